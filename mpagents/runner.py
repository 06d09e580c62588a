"""Runs a study's trials in parallel on Ray: embedded by default, an existing cluster by its address.

Trials are plain Ray tasks in warm worker processes; short ones are packed into one task, so that a trial costs well under a
millisecond of scheduling. A task streams what happens back to the driver. Results are on the disk before they are told.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpagents.encoder_specification import encoder_jobs, held_back
from mpagents.interrupting import STOPPING, check_stopped, handling, interrupt, listening
from mpagents.ray_session import ray_session
from mpagents.results import ledger
from mpagents.results.checkpoint import steps
from mpagents.results.files import check_inside
from mpagents.results.results import Results
from mpagents.specification import TrialSpec
from mpagents.study import Study
from mpagents.worker import TOLD_EVERY, Message, work

if TYPE_CHECKING:
    from mpagents.fit_specification import FitSpec

PACK_SECONDS = 1.0  # work in one task
MAX_RETRIES = 2  # of a trial whose worker process died, from one checkpoint

Listener = Callable[[Message], None]


def run(
    study: Study, *, out: str | Path = "runs", workers: int | None = None, address: str | None = None, fresh: bool = False,
    show: str = "auto",
) -> Results:  # fmt: skip
    """Run or continue a study and write its summary and report into `out/<name>`.

    `workers`: processes (default: all cores; 0: in this process, one trial after the other, without Ray); `address`: a Ray
    cluster's, e.g. "auto"; `fresh`: discard earlier results; `show`: "auto", "plain" or "quiet". Raises InvalidInput for what
    the study has wrong, before anything starts.
    """
    from mpagents.progress import Display

    expansion = study.trials()
    folder = Path(out).resolve() / study.name
    with ledger.locked(folder):
        if fresh:
            ledger.discard(folder)
        todo = ledger.unfinished(folder, expansion.trials)
        ledger.forget_failures(folder, todo)
        changes = ledger.version_changes(folder)
        ledger.write_study(folder, study, expansion)
        jobs = encoder_jobs(folder, todo)
        for job in jobs:
            check_inside(folder, job.path)
        with Display(show, expansion, todo, folder, jobs) as display:
            if changes:
                display.warn(f"other versions than those of the earlier results: {', '.join(changes)}")
            if todo and workers == 0:
                _run_here([*jobs, *todo], folder, display.update)
            elif todo:
                _run_on_ray([*jobs, *todo], folder, display.update, workers, address)
            display.finishing()
            results = Results(folder)
            results.write()
            return results


def _run_here(todo: list[Any], folder: Path, listen: Listener) -> None:
    with handling(interrupt, STOPPING):
        for pack in todo:
            for messages in work([pack.to_json()], str(folder), []):
                for message in messages:
                    listen(message)


def run_fits(
    specs: list[FitSpec], root: Path, *, fresh: bool = False, workers: int | None = None, address: str | None = None,
    show: str = "auto",
) -> list[dict[str, Any]]:  # fmt: skip
    """Train the seeds of one label (`mpagents fit`) in parallel; their statuses. Raises InvalidInput as `fit_all`."""
    from mpagents.fitting import held
    from mpagents.progress import Display
    from mpagents.specification import Expansion

    with held(specs, root, fresh) as todo, Display(show, Expansion(specs, []), todo, root) as display:  # type: ignore[arg-type]
        if todo:
            _run_on_ray(todo, root, display.update, workers, address)
    return [ledger.read_status(root, spec.path) for spec in specs]


def _run_on_ray(todo: list[Any], folder: Path, listen: Listener, workers: int | None, address: str | None) -> None:
    # What Ray prints is for people: standard output belongs to results.
    handled = handling(interrupt, STOPPING)
    with contextlib.redirect_stdout(sys.stderr), listening(), handled, ray_session(workers, address) as slots:
        run_on_ray(todo, folder, listen, slots)


def run_on_ray(todo: list[Any], folder: Path, listen: Listener, slots: int) -> None:
    """Run trials as tasks of the Ray that is up, at most `slots` at once; first the jobs among them that others wait for."""
    import ray

    remote = ray.remote(num_cpus=1, num_returns="streaming", max_retries=0)(work)
    waiting, held = held_back(todo)
    running: dict[Any, dict[str, TrialSpec]] = {}  # by task: its trials that haven't ended
    retries: Counter[tuple[str, int]] = Counter()
    seconds, finished = 0.0, 0
    path = [str(Path.cwd()), *(entry for entry in sys.path if entry)]
    while waiting or running or held:
        if not (waiting or running):  # a job's process was lost for good: its trials say so
            waiting.extend(itertools.chain(*held.values()))
            held.clear()
        while waiting and len(running) < slots + 1:  # one task waits for the first worker that gets free
            size = _pack_size(len(waiting), slots, seconds / finished if finished else None)
            pack = {spec.path: waiting.popleft() for spec in list(itertools.islice(waiting, size))}
            running[remote.remote([spec.to_json() for spec in pack.values()], str(folder), path)] = pack
        ready, _ = ray.wait(list(running), timeout=TOLD_EVERY)
        check_stopped()
        for task in ready:
            try:
                messages = ray.get(next(task))
            except StopIteration:
                del running[task]
                continue
            except ray.exceptions.RayError as error:
                waiting.extendleft(_lost(running.pop(task), retries, error, folder, listen))
                continue
            for message in messages:
                if message["status"]:
                    waiting.extend(held.pop(message["trial"], ()))  # a trial whose encoder failed says so
                    del running[task][message["trial"]]
                    seconds, finished = seconds + message["status"].get("seconds", 0.0), finished + 1
                listen(message)


def _pack_size(waiting: int, slots: int, seconds: float | None) -> int:
    """Trials for one task: about a second of work, and never so many that a worker goes without."""
    if seconds is None:
        return 1
    return max(1, min(int(PACK_SECONDS / max(seconds, 1e-3)), -(-waiting // (2 * slots))))


def _lost(
    pack: dict[str, TrialSpec], retries: Counter[tuple[str, int]], error: Exception, folder: Path, listen: Listener
) -> list[TrialSpec]:
    """What to run again of a task whose worker died: all but the trials that had ended, or whose worker died too often."""
    again, blamed = [], False
    for path, spec in pack.items():
        status = ledger.read_status(folder, path)
        ended = status.get("hash") == spec.hash and status.get("status") in ("finished", "failed")
        if not ended and not blamed:  # the first that hasn't ended can alone have been running; the others waited behind it
            place = path, max(steps(folder / path / "checkpoint"), default=0)
            retries[place] += 1
            blamed = True
            if retries[place] > MAX_RETRIES:
                status = ledger.record_lost(folder, spec, f"its worker process died {retries[place]} times: {error}")
                ended = True
        if ended:
            reward = status.get("final", {}).get("mean_reward")
            listen({"trial": path, "steps": spec.steps, "reward": reward, "status": status})
        else:
            again.append(spec)
    return again
