"""Running means and standard deviations: of observations, and of discounted returns to scale rewards by.

They change only when training says so, once a rollout; acting and evaluation read them. Moments are merged exactly, batch by
batch (Chan, Golub & LeVeque 1983). Engstrom et al. 2020, arXiv:2005.12729, tell what these two do for policy gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpagents.deep.collection import Stored
from mpagents.deep.observations import ObservationCodec

LIMIT = 10.0  # standard deviations; what lies beyond is clipped


class ObservationScale:
    """Scales the float parts of observations to mean 0 and standard deviation 1, each number on its own.

    Frames, members of finite sets and what an encoder sees stay as they are. Moments change by `update` only, once a rollout.
    """

    def __init__(self, codec: ObservationCodec) -> None:
        floats = {name: leaf for name, leaf in codec.empty(1).items() if leaf.dtype == np.float32 and name != codec.encoded}
        shapes = {name: leaf.shape[1:] for name, leaf in floats.items()}
        self.moments = {name: (np.zeros(shape), np.ones(shape), 0.0) for name, shape in shapes.items()}

    def __call__(self, stored: Stored) -> Stored:
        """(x − mean) / standard deviation, clipped; any leading dimensions."""
        return {name: self._scaled(name, leaf) if name in self.moments else leaf for name, leaf in stored.items()}

    def _scaled(self, name: str, leaf: np.ndarray) -> np.ndarray:
        mean, variance, _ = self.moments[name]
        return np.clip((leaf - mean) / np.sqrt(variance + 1e-8), -LIMIT, LIMIT).astype(np.float32)

    def update(self, stored: Stored, valid: np.ndarray) -> None:
        """Take in the valid rows of a rollout [T, n]."""
        for name, moments in self.moments.items():
            rows = stored[name][valid].astype(np.float64)
            if len(rows):
                self.moments[name] = merged(moments, (rows.mean(0), rows.var(0), float(len(rows))))

    def state_dict(self) -> dict:
        return {"moments": self.moments}

    def load_state_dict(self, state: dict) -> None:
        self.moments = {name: tuple(moments) for name, moments in state["moments"].items()}


def merged(one, other):
    """(mean, variance, count) of two sets of rows together; numbers or arrays."""
    (mean_a, variance_a, count_a), (mean_b, variance_b, count_b) = one, other
    count, delta = count_a + count_b, mean_b - mean_a
    mean = mean_a + delta * count_b / count
    variance = (variance_a * count_a + variance_b * count_b + delta**2 * count_a * count_b / count) / count
    return mean, variance, count


class RewardScale:
    """Scales rewards by the standard deviation of the discounted return that each environment has gathered so far."""

    def __init__(self, discount: float) -> None:
        self.discount = discount
        self.moments = (0.0, 1.0, 0.0)  # mean, variance, count
        self._return = np.zeros(0)  # [n]

    def __call__(self, reward: np.ndarray, ended: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Take in a rollout's raw rewards [T, n], and return them scaled; means stay, so that signs do."""
        if len(self._return) != reward.shape[1]:
            self._return = np.zeros(reward.shape[1])
        returns = np.empty(reward.shape)
        for t in range(len(reward)):
            self._return = np.where(valid[t], self.discount * self._return + reward[t], self._return)
            returns[t] = self._return
            self._return = np.where(ended[t], 0.0, self._return)
        seen = returns[valid]
        if seen.size:
            self.moments = merged(self.moments, (float(seen.mean()), float(seen.var()), float(seen.size)))
        scaled = reward / np.sqrt(self.moments[1] + 1e-8)
        return np.clip(scaled, -LIMIT, LIMIT).astype(np.float32)

    def rescale(self, rollout: Any) -> None:
        """The same of a `Rollout`, in place."""
        flags = rollout.flags
        if flags["first"][0].all():  # maybe reset by somebody, in the midst of episodes
            self._return = np.zeros(len(flags["first"][0]))
        rollout.reward[:] = self(rollout.reward, flags["terminated"] | flags["truncated"], flags["valid"])

    def state_dict(self) -> dict:
        return {"moments": self.moments, "return": self._return}

    def load_state_dict(self, state: dict) -> None:
        self.moments, self._return = tuple(state["moments"]), state["return"]
