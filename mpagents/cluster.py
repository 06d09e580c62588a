"""The nodes of the Ray that is up: how many trials they take, which of them are lost, and whether all of them write where
results go.

Ray itself may wait long for what ran on a node that it has declared dead, where the connection only hangs. So a task tells
its node, and the driver looks which nodes there are.
"""

from __future__ import annotations

import math
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpagents.configuration import InvalidInput, Problem
from mpagents.results.attempt import Superseded
from mpagents.specification import Resources, versions
from mpagents.worker import Message, work

LOOK_EVERY = 5.0  # seconds between two looks at the nodes
ANSWER_SECONDS = 180.0  # for every node to answer at the start: a worker process starts there
SEEN_SECONDS = 5.0  # for a new file to be seen on another machine


class Lost(RuntimeError):
    """A task whose process is gone, by itself or with its node."""

    def __init__(self, why: str, of_node: bool) -> None:
        super().__init__(why)
        self.of_node = of_node


class Nodes:
    """The nodes that take trials with these resources, as they were a few seconds ago."""

    def __init__(self, resources: Resources, most: int | None = None, place: tuple[str, ...] = ("resources",)) -> None:
        """`most`: trials at once; `place`: of `resources` in the file. Raises InvalidInput where no node takes a single one."""
        self.resources, self.most = resources, most
        self.alive: dict[str, dict[str, Any]] = {}
        self.dead: set[str] = set()  # a node in neither has joined since the last look
        self.looked = -math.inf
        self.look()
        if not self.slots:
            asked = f"{resources.cpus:g} CPUs and {resources.gpus:g} GPUs"
            nodes: list[dict[str, float]] = [node["Resources"] for node in self.alive.values()]
            largest = max(nodes, key=lambda has: (has.get("GPU", 0), has.get("CPU", 0)), default={})
            there = f"{largest.get('CPU', 0):g} and {largest.get('GPU', 0):g}"
            raise InvalidInput([Problem(place, f"got {asked} for a trial; the largest node has {there}")])

    def look(self) -> None:
        """Ask Ray, where the last time is a while ago."""
        if time.monotonic() - self.looked > LOOK_EVERY:
            import ray

            nodes = {node["NodeID"]: node for node in ray.nodes()}
            self.alive = {id: node for id, node in nodes.items() if node["Alive"]}
            self.dead |= nodes.keys() - self.alive.keys()
            self.looked = time.monotonic()

    def look_now(self) -> None:
        self.looked = -math.inf
        self.look()

    @property
    def slots(self) -> int:
        """Trials at once."""
        total = sum(map(self._room, self.alive.values()))
        return min(total, self.most or total)

    def _room(self, node: dict[str, Any]) -> int:
        asked = {"CPU": self.resources.cpus, "GPU": self.resources.gpus}
        rooms = [node["Resources"].get(name, 0.0) / count for name, count in asked.items() if count]
        return int(min(rooms) + 1e-9)

    def check(self, folder: Path) -> None:
        """Raise ValueError where one of them doesn't write into this folder of ours; it names each and the fix."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        probing = ray.remote(num_cpus=0, max_retries=0)(probe)
        token = folder / f".shared-{secrets.token_hex(8)}" / "token"
        token.parent.mkdir()  # as trials' folders, it's made here: a node's user must have the right to write there too
        try:
            token.touch()
            asked = {}
            for id in [id for id, node in self.alive.items() if self._room(node)]:
                there = NodeAffinitySchedulingStrategy(id, soft=False)
                asked[id] = probing.options(scheduling_strategy=there).remote(str(token), versions()["mpagents"])
            self._await(asked)
            answers = {id: _answered(answer) for id, answer in asked.items()}
        finally:
            shutil.rmtree(token.parent, ignore_errors=True)
        self.look_now()
        problems = [f"{_name(node)}: {answers[id]}" for id, node in self.alive.items() if answers.get(id)]
        if problems:
            raise ValueError("\n".join(problems))

    def _await(self, asked: dict[str, Any]) -> None:
        """Until all have answered that aren't lost meanwhile: Ray would wait for one that is cut off."""
        import ray

        end = time.monotonic() + ANSWER_SECONDS
        while waiting := [answer for id, answer in asked.items() if id in self.alive]:
            answered, _ = ray.wait(waiting, num_returns=len(waiting), timeout=LOOK_EVERY)
            if len(answered) == len(waiting) or time.monotonic() > end:
                return
            self.look()


def probe(token: str, version: str) -> str | None:
    """What's wrong on a node: another version, a folder that isn't the driver's with this file, or no right to write there."""
    if versions()["mpagents"] != version:
        return f"has mpagents {versions()['mpagents']}, this machine {version}; install the same"
    file, end = Path(token), time.monotonic() + SEEN_SECONDS
    folder = file.parent.parent
    while not file.exists():
        if time.monotonic() > end:
            return (
                f"{folder} isn't the folder of this machine there, or not there at all; give a folder that all nodes "
                "share with --out, under the same path on each"
            )
        time.sleep(0.1)
    own = file.with_name(secrets.token_hex(8))
    try:
        own.write_bytes(b"probe")
        own.unlink()
    except OSError as error:
        return f"can't write into {folder}: {error.strerror}; let its user write there, or choose another with --out"
    return None


def work_on_node(
    specs: list[dict[str, Any]], folder: str, path: list[str], every: float
) -> Iterator[tuple[str, list[Message]]]:  # fmt: skip
    """`work` in a task of Ray's; each time with the node that it runs on."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    for messages in work(specs, folder, path, every):
        yield node, messages


def remote(resources: Resources) -> Any:
    """`work_on_node` as a task that streams what it yields; who calls it sees to another try."""
    import ray

    asked = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
    return ray.remote(**asked, num_returns="streaming", max_retries=0)(work_on_node)


def ready(tasks: list[Any], timeout: float) -> list[Any]:
    """Those of the tasks that have something to tell, or have ended; waits for the first of them, in seconds."""
    import ray

    first, _ = ray.wait(tasks, timeout=timeout)
    return ray.wait(tasks, num_returns=len(tasks), timeout=0)[0] if first else []


def told(task: Any) -> tuple[str, list[Message]]:
    """(the node, what is told) of a task that is ready. Raises StopIteration at its end, Superseded, or Lost."""
    import ray

    try:
        return ray.get(next(task))
    except Superseded as error:
        raise Superseded(str(getattr(error, "cause", error))) from error
    except ray.exceptions.RayError as error:
        raise Lost(str(error), isinstance(error, ray.exceptions.NodeDiedError)) from error


def _answered(answer: Any) -> str | None:
    """What a node has answered, or why it hasn't."""
    import ray

    try:
        return ray.get(answer, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return f"gives no answer within {ANSWER_SECONDS:g} s; take it out of the cluster, or look into its Ray"
    except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
        return None  # it has gone since we looked: no trial will run there
    except Exception as error:  # noqa: BLE001 - of any kind: it is what the node says
        return f"can't run mpagents; install the same there as here: {error}"


def _name(node: dict[str, Any]) -> str:
    return f"node {node['NodeManagerAddress']} ({node['NodeManagerHostname']})"
