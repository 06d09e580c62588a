"""Real steps of n environments, kept as rows in time for a world model to learn from.

A row is what a recording's is (`generative.windows`): an observation with the action that LED to it and the reward and end that
came with it; `first` where an episode begins, as the result of no action. Autoreset rows are never stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpagents.deep.collection import Transition


class Experience:
    """The last rows of n streams, each a ring of `length` rows."""

    def __init__(self, observation: np.ndarray, action: np.ndarray, num_rows: int) -> None:
        """Observations [n, …] and actions [n, …] show shapes and types; `num_rows` is of all streams together."""
        n, length = len(observation), max(2, num_rows // len(observation))
        self.columns = {
            "x": np.zeros((n, length, *observation.shape[1:]), observation.dtype),
            "action": np.zeros((n, length, *action.shape[1:]), action.dtype),
            "reward": np.zeros((n, length), np.float32),
            "terminated": np.zeros((n, length), np.bool_),
            "first": np.zeros((n, length), np.bool_),
        }
        self.length, self.written = length, np.zeros(n, np.int64)  # rows, of each stream

    def add(self, x: np.ndarray, first: np.ndarray, action: np.ndarray, step: Transition, next_x: np.ndarray) -> None:
        """One step: `action` [n, …] was taken upon `x`, with which an episode began where `first`, and led to `next_x`."""
        none = np.full_like(action, -1 if action.ndim == 1 else 0)  # the number of no action; no action's vector
        self._append(first, x=x, action=none, reward=0.0, terminated=False, first=True)
        row = {"x": next_x, "action": action, "reward": step.reward, "terminated": step.terminated}
        self._append(step.valid, **row, first=False)

    def _append(self, where: np.ndarray, **row: Any) -> None:
        streams = np.flatnonzero(where)
        if len(streams):
            place = self.written[streams] % self.length
            for name, value in row.items():
                self.columns[name][streams, place] = value[streams] if isinstance(value, np.ndarray) else value
            self.written[streams] += 1

    def __len__(self) -> int:
        return int(np.minimum(self.written, self.length).sum())

    def rows(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """(columns [N, …] without a copy, runs [S, 2] of rows in time): a ring that has come round is two runs."""
        base, head = np.arange(len(self.written)) * self.length, self.written % self.length
        round_again = self.written > self.length
        filled = np.where(round_again | (self.written == self.length), self.length, head)
        newer = np.stack([base, base + np.where(round_again, head, filled)], axis=1)
        older = np.stack([base + head, base + filled], axis=1)[round_again]
        runs = np.concatenate([newer, older])
        columns = {name: column.reshape(-1, *column.shape[2:]) for name, column in self.columns.items()}
        return columns, runs[runs[:, 1] > runs[:, 0]]

    def state_dict(self) -> dict:
        filled = int(min(self.written.max(), self.length))
        return {"columns": {name: column[:, :filled] for name, column in self.columns.items()}, "written": self.written.copy()}

    def load_state_dict(self, state: dict) -> None:
        self.written = np.array(state["written"])
        for name, column in state["columns"].items():
            self.columns[name][:, : column.shape[1]] = column
