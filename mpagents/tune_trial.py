"""One configuration of a search, in a worker process, without Ray: its seeds' trials side by side, evaluation by evaluation.

Each seed is an ordinary trial of the house (`mpagents.trial`) with a checkpoint at every evaluation. `advance` takes all of
them to the next evaluation and gives the mean of the metric; a scheduler that stops the configuration closes the trials'
generators. Evaluations are read from the trials' own `metrics.jsonl`: a configuration that continues in another process tells
the earlier ones again without training.

In population-based training a configuration that copies another one opens a new generation: trials of their own, which begin
from the copied checkpoints (weights, optimisers, replay, normalisers, random generators, to the bit) with the new settings,
and stand in TensorBoard with their own hparams.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpagents.encoder_specification import job_of
from mpagents.results.attempt import Attempt, Superseded
from mpagents.results.checkpoint import load_checkpoint, save_checkpoint, steps
from mpagents.results.files import check_inside, read_json, read_status, write_json
from mpagents.specification import TrialSpec
from mpagents.trial import trial_steps
from mpagents.tune_order import GENERATION, Order, generation_folder, newest_generation
from mpagents.watch import time_limit

COPIED = "copied.json"  # in a checkpoint of Tune's


class SeedRun:
    """A trial that is taken from evaluation to evaluation."""

    def __init__(self, spec: TrialSpec, root: Path, metric: str, marks: int) -> None:
        self.spec, self.root, self.folder, self.metric, self.marks = spec, root, root / spec.path, metric, marks
        check_inside(root, spec.path)
        status = read_status(root, spec.path)
        ended = status.get("hash") == spec.hash and status.get("status") in ("finished", "failed")
        self.status: dict[str, Any] | None = status if ended else None
        self.trial: Any = None
        # Taken as the configuration begins: a process that is cut off between two seeds must not begin the second one later.
        self.own = None if ended else Attempt.begin(self.folder)
        self.step: int | None = None  # of the trial's last yield

    def value_at(self, mark: int) -> float:
        """The metric at evaluation `mark` (from 1). Raises RuntimeError where the trial failed."""
        while self.status is None:
            if mark < self.marks and (self.step is None or self.step >= mark * self.spec.evaluation.every):
                value = self._evaluated(mark)
                if value is not None:
                    return value
            self._next()
        if self.status["status"] == "failed":
            raise RuntimeError(f"{self.spec.path}: {self.status['error']['message']}")
        value = self._evaluated(mark) if mark < self.marks else self.status["final"].get(self.metric)
        value = self.status["final"].get(self.metric) if value is None else value
        if value is None:
            raise RuntimeError(f"{self.spec.path}: {self.metric} isn't known of its policy; choose another metric")
        return float(value)

    def close(self) -> None:
        """Stop it here, where it hasn't ended; its checkpoints stay."""
        if self.trial is not None:
            if self.status is None:
                self.record("stopped")
            self.trial.close()
            self.trial = None
        if self.own is not None:
            self.own.end()

    def record(self, status: str, **more: Any) -> None:
        """Say so of the trial, unless another process has it now."""
        if self.own is not None:
            with contextlib.suppress(FileNotFoundError):  # the attempt's folder, once it is superseded
                write_json(self.folder / "status.json", {"status": status, "hash": self.spec.hash, **more}, self.own.folder)

    def _next(self) -> None:
        if self.trial is None and self.own is not None:
            self.trial = trial_steps(self.spec, self.root, self.own.folder.name)
        try:
            self.step, _ = next(self.trial)
        except StopIteration as end:
            self.status, self.trial = end.value, None
        except Superseded:  # another process has it now: not ours to stop
            self.trial = None
            raise

    def _evaluated(self, mark: int) -> float | None:
        """The first evaluation at or after a mark that `metrics.jsonl` holds."""
        with contextlib.suppress(FileNotFoundError):
            for line in (self.folder / "metrics.jsonl").read_bytes().split(b"\n"):
                with contextlib.suppress(ValueError):  # a line half written, at the end
                    row = json.loads(line) if b'"eval/' in line else {}
                    if row.get("step", -1) >= mark * self.spec.evaluation.every:
                        return row.get(f"eval/{self.metric}")
        return None


class Configuration:
    """The trials of one configuration, its seeds, in lockstep."""

    def __init__(self, order: Order, id: str) -> None:
        self.order, self.id = order, id
        self.mark, self.generation = order.mark, order.generation
        self.runs: list[SeedRun] = []

    def advance(self) -> dict[str, Any]:
        """To the next evaluation: {value, mark, generation, done}. Raises RuntimeError where a trial fails."""
        self._begin()
        if all(run.status and run.status["status"] == "finished" for run in self.runs):
            self.mark = self.order.marks  # it finished earlier: its last figure is all that is wanted
        else:
            self.mark += 1
        with time_limit(self.order.specs[0].step_timeout, self._hung):  # it outlives those of the trials within
            values = [run.value_at(self.mark) for run in self.runs]
        value, done = sum(values) / len(values), self.mark >= self.order.marks
        if done:
            self.close()
        return {"value": value, "mark": self.mark, "generation": self.generation, "done": done}

    def save(self, folder: Path) -> None:
        """What another configuration needs to go on from here: of a population each seed's newest and best checkpoint."""
        if self.order.population:
            for run in self.runs:
                source, found = run.folder / "checkpoint", steps(run.folder / "checkpoint")
                for step in found:
                    shutil.copytree(source / f"step={step}", folder / f"seed={run.spec.seed}" / f"step={step}")
        write_json(folder / COPIED, {"id": self.id, "mark": self.mark, "generation": self.generation})

    def load(self, folder: Path) -> None:
        """Go on from what `save` left: from our own place, or with another's weights and the settings of our own order."""
        copied = read_json(folder / COPIED) or {}
        self.close()
        self.runs = []
        self.mark = copied["mark"]
        if copied["id"] == self.id:
            self.generation = copied["generation"]
            return
        of = {key: copied[key] for key in ("id", "mark", "generation")}
        newest = newest_generation(self.order, self.id)
        if newest and (newest["of"], newest["values"]) == (of, self.order.values):  # copied by a process that died
            self.generation = newest["generation"]
            return
        self.generation = newest["generation"] + 1 if newest else 0
        self._open_generation(folder, of)

    def close(self) -> None:
        for run in self.runs:
            run.close()

    def _begin(self) -> None:
        if self.runs:
            return
        order = self.order
        if order.population and not (generation_folder(order, self.id, self.generation) / GENERATION).exists():
            self._open_generation(None, None)
        self._make_encoder()
        specs = order.labelled(self.id, self.generation)
        self.runs = [SeedRun(spec, order.root, order.metric, order.marks) for spec in specs]

    def _open_generation(self, folder: Path | None, of: dict[str, Any] | None) -> None:
        """The folder of a generation, whole or not at all, its checkpoints those in `folder`. One that another process opened
        meanwhile (a cut-off one wakes) is left as it is: the next number is taken."""
        target = generation_folder(self.order, self.id, self.generation)
        temporary = target.with_name(f".{target.name}.{socket.gethostname()}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for spec in self.order.specs if folder else ():
            seed = f"seed={spec.seed}"
            for step in steps(folder / seed):  # type: ignore[operator]
                state = load_checkpoint(folder / seed / f"step={step}")  # type: ignore[operator]
                state["offset"] = 0  # of its metrics: its curve begins here
                save_checkpoint(temporary / seed / "checkpoint", step, state, keep=1_000)
        while True:
            told = {"generation": self.generation, "values": self.order.values, "mark": self.mark, "of": of}
            write_json(temporary / GENERATION, told)
            try:
                temporary.rename(generation_folder(self.order, self.id, self.generation))
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                self.generation += 1

    def _make_encoder(self) -> None:
        """The encoder that the trials see by, made once for all configurations that use it."""
        job = job_of(self.order.specs[0])
        if job is None:
            return
        from mpagents.encoder_stage import make_encoder

        with _alone(self.order.root / job.path):
            make_encoder(job, self.order.root)

    def _hung(self, message: str) -> None:
        """The process is about to end: say of the trials why."""
        error = {"type": "TimeoutError", "message": message, "traceback": ""}
        for run in self.runs:
            if run.status is None:
                run.record("failed", error=error)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; the others wait. The lock goes with the process, however it ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
