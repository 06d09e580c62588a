"""A running environment as a source of minibatches: random actions, and a memory of what was seen last to draw from.

Each minibatch first steps the environment so far that, on average, an observation is drawn `reuse` times while it is
remembered. So it is an endless recording; a row is what `collecting.py` says, and `generative/windows.py` reads it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from generative.model import Batch
from generative.windows import Reading, Windows, windows
from mpagents.collecting import Collector, Row, View, random_policy
from mpagents.environments import EnvironmentSpec
from mpagents.seeding import derive
from mpagents.snapshot import restore, snapshot


class EnvironmentSource:
    """`sample(n, generator)` of an environment; `memory` and `num_envs` count rows and copies."""

    def __init__(
        self, spec: EnvironmentSpec, *, view: View | None = None, reading: Reading | None = None, num_envs: int = 16,
        memory: int = 4_096, reuse: float = 4.0, seed: int = 0,
    ) -> None:  # fmt: skip
        view, reading = view or View(), reading or Reading()
        if num_envs < 1 or reuse <= 0 or memory < 2 * num_envs * (reading.length or 1):
            raise ValueError(
                f"num_envs is {num_envs}, reuse {reuse}, memory {memory}; expected at least 1, above 0, and at least "
                f"{2 * num_envs * (reading.length or 1)} rows (two data of each copy)"
            )
        self.arguments: dict[str, Any] = {
            "spec": spec, "view": view, "reading": reading, "num_envs": num_envs, "memory": memory, "reuse": reuse,
        }  # fmt: skip
        self.reading, self.reuse, self.num_envs, self.seed = reading, reuse, num_envs, seed
        self.collector = Collector(spec, view, random_policy(seed), num_envs, seed)
        self.kept = memory // num_envs  # rows of each copy
        self.columns: dict[str, np.ndarray] = {}  # [copies, 2 · kept, …]; the last `kept` rows before `end` are remembered
        self.end = 0  # rows of each copy
        self.owed = 0.0  # steps of each copy that are due

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        self.owed += n * (self.reading.length or 1) / (self.num_envs * self.reuse)
        while self.end < min(self.kept, 2 * (self.reading.length or 1)) or self.owed >= 1:
            self._remember(self.collector.step())
            self.owed = max(0.0, self.owed - 1)
        return self.remembered().sample(n, generator)

    def remembered(self) -> Windows:
        """All data in the memory."""
        flat = {name: column.reshape(-1, *column.shape[2:]) for name, column in self.columns.items()}
        begin = np.arange(self.num_envs) * 2 * self.kept
        streams = np.stack([begin + max(0, self.end - self.kept), begin + self.end], 1)
        return windows(flat, streams, self.reading, self.collector.num_actions)

    def split(self, share: float, seed: int) -> tuple[EnvironmentSource, Windows]:
        """(itself, what another run of the environment has filled a memory with): nothing of it is ever trained on."""
        other = EnvironmentSource(**self.arguments, seed=derive(self.seed, "held out", seed))
        while other.end < other.kept:
            other._remember(other.collector.step())
        other.collector.close()
        return self, other.remembered()

    def state_dict(self) -> dict[str, Any]:
        """The memory and, where it can be told exactly, the environment's state; else it goes on with new episodes."""
        begin = max(0, self.end - self.kept)
        collector = self.collector
        return {
            "columns": {name: column[:, begin : self.end].copy() for name, column in self.columns.items()},
            "owed": self.owed,
            "env": snapshot(collector.env),
            "num_steps": collector.num_steps,
            "ended": collector.ended.copy(),
            "action_mask": collector.infos.get("action_mask"),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.owed, self.columns = state["owed"], {}
        self.end = max((column.shape[1] for column in state["columns"].values()), default=0)
        for name, column in state["columns"].items():
            self.columns[name] = np.zeros((self.num_envs, 2 * self.kept, *column.shape[2:]), column.dtype)
            self.columns[name][:, : self.end] = column
        collector = self.collector
        collector.num_steps, collector.ended = state["num_steps"], state["ended"].copy()
        collector.observation = None
        if state["env"] is not None:
            restore(collector.env, state["env"])
            collector.observation = collector.env._observations  # type: ignore[attr-defined]
            collector.infos = {} if state["action_mask"] is None else {"action_mask": state["action_mask"]}

    def _remember(self, rows: list[list[Row]]) -> None:
        """Take in one row of each copy."""
        if self.end == 2 * self.kept:
            for column in self.columns.values():
                column[:, : self.kept] = column[:, self.kept :]
            self.end = self.kept
        for name in rows[0][0]:
            new = np.stack([row[name] for (row,) in rows])
            if name not in self.columns:
                self.columns[name] = np.zeros((self.num_envs, 2 * self.kept, *new.shape[1:]), new.dtype)
            self.columns[name][:, self.end] = new
        self.end += 1
