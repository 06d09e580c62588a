"""Running means and standard deviations: of observations, and of discounted returns to scale rewards by.

They change only when training says so, once a rollout; acting and evaluation read them. Moments are merged exactly, batch by
batch (Chan, Golub & LeVeque 1983). Engstrom et al. 2020, arXiv:2005.12729, tell what these two do for policy gradients.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

LIMIT = 10.0  # standard deviations; what lies beyond is clipped


class RunningMoments(nn.Module):
    """Mean and variance [D] of all rows seen, as buffers (so they are part of a network's state)."""

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def update(self, x: Tensor) -> None:
        """Merge rows [B, D]."""
        if len(x) == 0:
            return
        mean, variance, count = merged(
            (self.mean.double(), self.variance.double(), self.count),
            (x.double().mean(0), x.double().var(0, unbiased=False), float(len(x))),
        )
        self.mean.copy_(mean)
        self.variance.copy_(variance)
        self.count.copy_(count)

    def forward(self, x: Tensor) -> Tensor:
        """(x − mean) / standard deviation, clipped."""
        return ((x - self.mean) / torch.sqrt(self.variance + 1e-8)).clamp(-LIMIT, LIMIT)


def merged(one, other):
    """(mean, variance, count) of two sets of rows together; numbers, arrays or tensors."""
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

    def state_dict(self) -> dict:
        return {"moments": self.moments, "return": self._return}

    def load_state_dict(self, state: dict) -> None:
        self.moments, self._return = tuple(state["moments"]), state["return"]
