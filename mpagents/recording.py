"""`mpagents record`: an environment under a policy, written as compressed shards that `generative.recordings` reads.

    recordings/CartPole-v1/manifest.json    written anew after each shard: an interrupted recording keeps what it says
    recordings/CartPole-v1/00000.npz        columns of some thousand rows, one copy of the environment after the other

Equal settings and seed give equal files, to the bit. `collecting.py` says what a row is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpagents import scenes
from mpagents.collecting import (
    Collector,
    Policy,
    Row,
    View,
    mixed_policy,
    random_policy,
    scripted_policy,
    trained_policy,
)
from mpagents.configuration import validate
from mpagents.environments import EnvironmentSpec, imported
from mpagents.progress_bar import ProgressBar
from mpagents.results.files import read_json, write_atomically, write_json
from mpagents.results.ledger import locked
from mpagents.specification import versions
from mpagents.study_file import apply_overrides

FORMAT = 1
SHARD_BYTES = 32_000_000  # of a shard before compression


@dataclass(frozen=True)
class RecordingSpec:
    """All that a recording depends on."""

    env: str  # a Gymnasium id, module:Id-v0 or module:Class
    steps: int = 10_000  # rows (observations) over all copies, rounded up to a multiple of them
    num_envs: int = 4  # copies stepped together
    policy: str = "random"  # random, a trial's folder, or module:function of (observation, rng) -> action
    epsilon: float = 0.0  # share of random actions among a policy's
    view: View = field(default_factory=View)
    seed: int = 0
    settings: tuple[str, ...] = ()  # of the environment: "max_episode_steps=100", "kwargs.size=8"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.num_envs < 1 or not 0 <= self.epsilon <= 1:
            raise ValueError(
                f"steps is {self.steps}, num_envs {self.num_envs}, epsilon {self.epsilon}; expected at least 1, 1, and 0 to 1"
            )


def record(
    spec: RecordingSpec, folder: Path, *, fresh: bool = False, trust: bool = False, show: str = "auto"
) -> dict[str, Any]:
    """Record into `folder`; returns the manifest. Interrupted, it keeps what was recorded, and raises KeyboardInterrupt.

    Raises ValueError for what the specification has wrong, and where the folder holds something already.
    """
    env_spec, policy = environment_and_policy(spec, trust)
    with _held(folder, fresh):
        return write(spec, Collector(env_spec, spec.view, policy, spec.num_envs, spec.seed), folder, show=show)


def write(spec: RecordingSpec, collector: Collector, folder: Path, *, show: str = "auto") -> dict[str, Any]:
    """Record what a collector sees into an empty folder, and close it; otherwise as `record`."""
    with contextlib.closing(collector):
        writer = Writer(folder, _description(spec, collector), spec.num_envs)
        total = -(-spec.steps // spec.num_envs)  # rows of each copy
        with ProgressBar(total * spec.num_envs, "rows", show) as progress:
            try:
                for rows in _rows(collector, total):
                    writer.add(rows)
                    progress.update(writer.num_rows)
            except KeyboardInterrupt as interrupt:
                writer.flush()
                done = f"{writer.num_rows:,} of {total * spec.num_envs:,} rows are kept in {folder}"
                raise KeyboardInterrupt(f"interrupted: {done}") from interrupt
            writer.flush(complete=True)
        return writer.manifest


def parse_size(size: str | None, grey: bool) -> View:
    """The view of "32x48": height and width of frames. Raises ValueError for other text."""
    if size is None:
        return View(grey=grey)
    height, by, width = size.lower().partition("x")
    if not (by and height.isdecimal() and width.isdecimal()):
        raise ValueError(f"size is {size!r}; expected height and width in pixels, e.g. 32x32")
    return View((int(height), int(width)), grey)


def environment_and_policy(spec: RecordingSpec, trust: bool) -> tuple[EnvironmentSpec, Policy]:
    """The environment's specification and who acts in it."""
    values: dict[str, Any] = {"id": spec.env, "native": False}  # single environments render, and end in NEXT_STEP
    if spec.policy == "random":
        policy = random_policy(spec.seed)
    elif Path(spec.policy).is_dir():
        from mpagents.trained import load_trained

        trial, agent, _ = load_trained(Path(spec.policy), spec.env, trust)
        if spec.epsilon and getattr(agent, "remembers_actions", False):
            raise ValueError(
                "epsilon: this policy reckons with the actions that it took; random ones in between would mislead it"
            )
        values, policy = dataclasses.asdict(trial.env), trained_policy(agent)
    elif ":" in spec.policy:
        policy = scripted_policy(imported(spec.policy, "policy"), spec.seed)
    else:
        raise ValueError(f"policy is {spec.policy!r}; expected random, a trial's folder, or module:function")
    policy = mixed_policy(policy, spec.epsilon, spec.seed) if spec.epsilon else policy
    return validate(EnvironmentSpec, apply_overrides(values, spec.settings)), policy


@dataclass
class Writer:
    """Gathers rows and writes them as shards; what the manifest names is on the disk."""

    folder: Path
    manifest: dict[str, Any]
    num_envs: int
    waiting: list[list[Row]] = field(default_factory=list)  # of each copy: rows not yet written
    num_rows: int = 0
    size: int = 0  # bytes waiting

    def __post_init__(self) -> None:
        self.waiting = [[] for _ in range(self.num_envs)]
        write_json(self.folder / "manifest.json", self.manifest)

    def add(self, rows: list[list[Row]]) -> None:
        """The next rows of each copy. Raises ValueError where rows aren't alike."""
        for waiting, new in zip(self.waiting, rows):
            for row in new:
                arrays = {name: np.asarray(value) for name, value in row.items()}
                self._check({name: {"dtype": value.dtype.str, "shape": list(value.shape)} for name, value in arrays.items()})
                self.size += sum(value.nbytes for value in arrays.values())
            waiting += new
            self.num_rows += len(new)
        if self.size >= SHARD_BYTES:
            self.flush()

    def flush(self, complete: bool = False) -> None:
        """Write what waits as a shard."""
        rows = [row for waiting in self.waiting for row in waiting]
        if rows:
            content = io.BytesIO()
            columns = {name: np.stack([row[name] for row in rows]) for name in self.manifest["columns"]}
            np.savez_compressed(content, allow_pickle=False, **columns)
            name = f"{len(self.manifest['shards']):05d}.npz"
            write_atomically(self.folder / name, content.getvalue())
            counts = [len(waiting) for waiting in self.waiting]
            digest = hashlib.sha256(content.getvalue()).hexdigest()
            self.manifest["shards"].append({"file": name, "sha256": digest, "counts": counts})
            self.manifest["episodes"] += sum(int(row["terminated"] or row["truncated"]) for row in rows)
            self.manifest["rows"] = self.num_rows
        self.manifest["complete"] = complete
        self.waiting, self.size = [[] for _ in self.waiting], 0
        write_json(self.folder / "manifest.json", self.manifest)

    def _check(self, columns: dict[str, Any]) -> None:
        expected = self.manifest["columns"] = self.manifest["columns"] or columns
        if columns != expected:
            names = [name for name in expected | columns if columns.get(name) != expected.get(name)]
            raise ValueError(
                f"an observation's {', '.join(names)} is there only sometimes, or changes its form: it can't be recorded"
            )


def _rows(collector: Collector, total: int) -> Iterator[list[list[Row]]]:
    """Steps until every copy has `total` rows; no copy gets more."""
    counts = np.zeros(collector.env.num_envs, int)
    while (counts < total).any():
        rows = [new[: total - count] for new, count in zip(collector.step(), counts)]
        counts += [len(new) for new in rows]
        yield rows


def _description(spec: RecordingSpec, collector: Collector) -> dict[str, Any]:
    """The manifest before the first row."""
    env = collector.env
    about = {"vocabulary": scenes.VOCABULARY, "classes": scenes.CLASSES, "state": scenes.STATE} if collector.scenes else {}
    return {
        "format": FORMAT,
        "complete": False,
        "env": dataclasses.asdict(collector.spec),
        "spaces": {"observation": _plain(env.single_observation_space), "action": _plain(env.single_action_space)},
        "policy": spec.policy,
        "epsilon": spec.epsilon,
        "view": {**dataclasses.asdict(spec.view), "rendered": collector.rendered},
        "num_envs": spec.num_envs,
        "seed": spec.seed,
        "steps": -(-spec.steps // spec.num_envs) * spec.num_envs,
        "rows": 0,
        "episodes": 0,
        "num_actions": collector.num_actions,
        **{key: list(value) for key, value in about.items()},
        "columns": {},
        "shards": [],
        "versions": versions(),
    }


def _plain(space: Any) -> str:
    """A space in words, without addresses in memory, which differ each time."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(space))


@contextmanager
def _held(folder: Path, fresh: bool) -> Iterator[None]:
    """Hold the folder for this process, empty. Raises ValueError where it isn't, unless it is a recording and `fresh`."""
    with locked(folder):
        entries = [entry for entry in folder.iterdir() if entry.name != ".lock"]
        if entries:
            manifest = read_json(folder / "manifest.json")
            if manifest is None:
                raise ValueError(f"{folder} holds other things than a recording; choose another folder with --out")
            if not fresh:
                raise ValueError(
                    f"{folder} holds a recording of {manifest['rows']:,} rows; discard it with --fresh, or choose another --out"
                )
            for entry in sorted(entries, key=lambda entry: entry.name == "manifest.json"):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        yield
