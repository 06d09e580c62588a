"""Every write of a trial made to fail: by ENOSPC, by EIO, or as the last thing that its process did."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.fault_rows.outcome import Outcome, checkpoints, differing, results, trial


class Fault:
    """Counts the calls that write, and makes one of them fail: with an error number, or by the process's end."""

    CALLS = ("open", "mkdir", "fsync", "replace", "rename", "link", "unlink", "rmdir", "truncate")

    def __init__(self, at: int = -1, error: int | None = None, after: bool = False) -> None:
        self.at, self.error, self.after, self.count = at, error, after, 0

    def __call__(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        self.count += 1
        hit = self.count - 1 == self.at
        if hit and not self.after:
            self._strike()
        result = function(*arguments, **keywords)
        if hit and self.after:
            self._strike()
        return result

    def _strike(self) -> None:
        if self.error is None:
            os._exit(9)
        raise OSError(self.error, os.strerror(self.error))

    @contextlib.contextmanager
    def armed(self) -> Iterator[Fault]:
        """Within it, all that is written below Python's `open` and `os` passes through here."""
        kept = {name: getattr(os, name) for name in self.CALLS} | {"fdopen": os.fdopen, "io": io.open}
        reading = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)

        def calling(name: str) -> Callable[..., Any]:
            def call(*arguments: Any, **keywords: Any) -> Any:
                if name == "open" and arguments[1:2] in [(os.O_RDONLY,), (reading,)]:
                    return kept[name](*arguments, **keywords)
                return self(kept[name], *arguments, **keywords)

            return call

        def opening(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(file: Any, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
                opened = function(file, mode, *arguments, **keywords)
                return _Written(opened, self) if set(mode) & set("wxa+") else opened

            return call

        try:
            for name in self.CALLS:
                setattr(os, name, calling(name))
            os.fdopen, io.open = opening(kept["fdopen"]), opening(kept["io"])  # type: ignore[assignment]
            yield self
        finally:
            for name in self.CALLS:
                setattr(os, name, kept[name])
            os.fdopen, io.open = kept["fdopen"], kept["io"]


class _Written:
    """A file whose writes can be made to fail, half done."""

    def __init__(self, file: Any, fault: Fault) -> None:
        self.file, self.fault = file, fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def write(self, content: Any) -> Any:
        fault = self.fault
        if fault.count == fault.at and not fault.after:
            self.file.write(content[: len(content) // 2])
            self.file.flush()
        return fault(self.file.write, content)

    def flush(self) -> Any:
        return self.fault(self.file.flush)


def writes(times: int, folder: Path, rng: random.Random, spec: Any = None) -> Outcome:
    """A trial whose k-th write, flush, fsync, rename … fails by ENOSPC or EIO or is its process's last; then run again."""
    from mpagents.trial import run_trial

    spec = spec or trial()
    run_trial(spec, folder / "calm")
    calm = results(folder / "calm")
    with Fault().armed() as counting:
        run_trial(spec, folder / "counted")
    points = [(k, error, after) for k in range(counting.count) for error in (None, errno.ENOSPC, errno.EIO) for after in (0, 1)]
    chosen = points if times >= len(points) else rng.sample(points, times)
    zero = ("silently begun anew", "trials unequal", "refused without a reason")
    outcome = Outcome(len(chosen), {"write points": counting.count, "recovered": 0}, dict.fromkeys(zero, 0))
    for number, (k, error, after) in enumerate(chosen):
        root = folder / f"at{number}"
        fault = Fault(k, error, bool(after))
        in_a_child(partial(_faulty, spec, root, fault))
        step = checkpoints(root).get(spec.path, 0)
        told = run_trial(spec, root)
        if told["status"] == "failed":
            outcome.faults["refused without a reason"] += not told["error"]["message"]
            continue
        outcome.faults["silently begun anew"] += begun_from(root / spec.path) <= step - 1
        outcome.faults["trials unequal"] += differing(results(root), calm)
        outcome.counts["recovered"] += 1
        shutil.rmtree(root)
    return outcome


def _faulty(spec: Any, root: Path, fault: Fault) -> None:
    from mpagents.trial import run_trial

    with fault.armed(), contextlib.suppress(OSError):
        run_trial(spec, root)


def in_a_child(work: Callable[[], None]) -> None:
    """Do something in a forked process, whatever becomes of it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def begun_from(folder: Path) -> int:
    """The step that the last process purged TensorBoard's curve from, 0 for one that begins."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    last = max(folder.glob("events.*"), key=lambda path: path.name[-4:])
    return next((event.step for event in EventFileLoader(str(last)).Load() if event.HasField("session_log")), 0)
