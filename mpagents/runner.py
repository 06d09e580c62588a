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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpagents.cluster import Lost, Nodes, ready, remote, told
from mpagents.encoder_specification import encoder_jobs, held_back
from mpagents.interrupting import STOPPING, check_stopped, handling, interrupt, listening
from mpagents.ray_session import ForPeople, ray_session
from mpagents.results import ledger
from mpagents.results.attempt import Attempt, Superseded
from mpagents.results.checkpoint import steps
from mpagents.results.files import check_inside, read_status
from mpagents.results.results import Results
from mpagents.specification import Resources, TrialSpec
from mpagents.study import Study
from mpagents.worker import TOLD_EVERY, Message, work

if TYPE_CHECKING:
    from mpagents.fit_specification import FitSpec

PACK_SECONDS = 1.0  # work in one task
MAX_RETRIES = 2  # of a trial whose worker process died, from one checkpoint
MAX_NODES_LOST = 10  # under a trial, from one checkpoint: that is hardly its fault, unless it always happens
MESSAGES = 400  # a second, about, that the driver hears at most

Loss = tuple[str, int, bool]  # a trial's path, the step of its last checkpoint, and whether it was the node that died
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
                _run_on_ray([*jobs, *todo], folder, display.update, workers, address, study.resources)
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
    return [read_status(root, spec.path) for spec in specs]


def _run_on_ray(
    todo: list[Any], folder: Path, listen: Listener, workers: int | None, address: str | None,
    resources: Resources = Resources(),  # noqa: B008 - frozen
) -> None:  # fmt: skip
    # What Ray prints is for people: standard output belongs to results.
    handled = handling(interrupt, STOPPING)
    with contextlib.redirect_stdout(ForPeople()), listening(), handled, ray_session(workers, address, folder):
        nodes = Nodes(resources, workers)
        if address is not None or len(nodes.alive) > 1:
            nodes.check(folder)
            check_stopped()
        run_on_ray(todo, folder, listen, nodes)


def run_on_ray(todo: list[Any], folder: Path, listen: Listener, nodes: Nodes) -> None:
    """Run trials as tasks of the Ray that is up; first the jobs among them that others wait for."""
    _Queue(todo, folder, listen, nodes).run()


@dataclass
class _Pack:
    """What one task has been given."""

    trials: dict[str, TrialSpec]  # by path: those that haven't ended
    node: str | None = None  # where it runs, once that is told


class _Queue:
    """Trials on their way through Ray."""

    def __init__(self, todo: list[Any], folder: Path, listen: Listener, nodes: Nodes) -> None:
        self.folder, self.listen, self.nodes = folder, listen, nodes
        self.waiting, self.held = held_back(todo)
        self.running: dict[Any, _Pack] = {}  # by task
        self.losses: Counter[Loss] = Counter()
        self.seconds, self.finished = 0.0, 0
        self.path = [str(Path.cwd()), *(entry for entry in sys.path if entry)]
        self.remote = remote(nodes.resources)

    def run(self) -> None:
        while self.waiting or self.running or self.held:
            self.nodes.look()
            if not (self.waiting or self.running):  # a job's process was lost for good: its trials say so
                self.waiting.extend(itertools.chain(*self.held.values()))
                self.held.clear()
            while self.waiting and len(self.running) < self.nodes.slots + 1:  # one waits for the first worker that gets free
                self._start()
            for task in ready(list(self.running), TOLD_EVERY):
                self._hear(task)
            check_stopped()
            for task in [task for task, pack in self.running.items() if pack.node in self.nodes.dead]:
                self._lose(task, "Ray has declared it dead", of_node=True)

    def _start(self) -> None:
        mean = self.seconds / self.finished if self.finished else None
        size = _pack_size(len(self.waiting), self.nodes.slots, mean)
        pack = _Pack({spec.path: self.waiting.popleft() for spec in list(itertools.islice(self.waiting, size))})
        orders = [self._order(spec) for spec in pack.trials.values()]
        every = max(TOLD_EVERY, self.nodes.slots / MESSAGES)
        self.running[self.remote.remote(orders, str(self.folder), self.path, every)] = pack

    def _order(self, spec: Any) -> dict[str, Any]:
        """What a worker is told; another attempt at the trial, which none of those before can disturb."""
        attempt = Attempt.begin(self.folder / spec.path).folder.name if isinstance(spec, TrialSpec) else None
        return spec.to_json() | {"attempt": attempt}

    def _hear(self, task: Any) -> None:
        pack = self.running[task]
        try:
            pack.node, messages = told(task)
        except StopIteration:
            del self.running[task]
        except Superseded as error:
            raise ledger.FolderInUse(f"{error}; wait for the other run, or use --out DIR") from error
        except Lost as error:
            self.nodes.look_now()
            self._lose(task, str(error), of_node=error.of_node or pack.node in self.nodes.dead)
        else:
            for message in messages:
                if message["status"]:
                    self.waiting.extend(self.held.pop(message["trial"], ()))  # a trial whose encoder failed says so
                    del pack.trials[message["trial"]]
                    self.seconds, self.finished = self.seconds + message["status"].get("seconds", 0.0), self.finished + 1
                self.listen(message)

    def _lose(self, task: Any, why: str, of_node: bool) -> None:
        pack = self.running.pop(task).trials
        self.waiting.extendleft(_lost(pack, self.losses, why, self.folder, self.listen, of_node))


def _pack_size(waiting: int, slots: int, seconds: float | None) -> int:
    """Trials for one task: about a second of work, and never so many that a worker goes without."""
    if seconds is None:
        return 1
    return max(1, min(int(PACK_SECONDS / max(seconds, 1e-3)), -(-waiting // (2 * max(1, slots)))))


def _lost(
    pack: dict[str, TrialSpec], losses: Counter[Loss], why: str, folder: Path, listen: Listener, of_node: bool = False
) -> list[TrialSpec]:
    """What to run again of a task whose worker or node died: all but the trials that had ended, or that it befell too often."""
    again, blamed = [], False
    for path, spec in pack.items():
        status = read_status(folder, path)
        ended = status.get("hash") == spec.hash and status.get("status") in ("finished", "failed")
        if not ended and not blamed:  # the first that hasn't ended can alone have been running; the others waited behind it
            loss = path, max(steps(folder / path / "checkpoint"), default=0), of_node
            losses[loss] += 1
            blamed = True
            if losses[loss] > (MAX_NODES_LOST if of_node else MAX_RETRIES):
                whose = "node was lost" if of_node else "worker process died"
                status = ledger.record_lost(folder, spec, f"its {whose} {losses[loss]} times: {why}")
                ended = True
        if ended:
            reward = status.get("final", {}).get("mean_reward")
            listen({"trial": path, "steps": spec.steps, "reward": reward, "status": status})
        else:
            again.append(spec)
    return again
