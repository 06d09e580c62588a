"""The transitions in recorded sequences: which are real, and what must be there to learn a world from them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from generative.model import Batch

NEEDED = ("action", "reward", "terminated")


class Transitions(NamedTuple):
    """All steps (x_{t−1}, action_t) → (x_t, reward_t) of sequences [B, T, …], side by side: N = B (T − 1)."""

    before: Tensor  # [N, D]
    action: Tensor  # [N, A]
    after: Tensor  # [N, D]
    reward: Tensor  # [N]
    weight: Tensor  # [N], 1 where the step is real; 0 where an episode begins with x_t, or nothing was recorded


def transitions(batch: Batch, dtype: torch.dtype) -> Transitions:
    """Of a batch with `action` that LED to x_t. A row that begins an episode (an autoreset) is the result of no action."""
    x, action, reward = (batch[name].to(dtype) for name in ("x", "action", "reward"))
    weight = (real(batch)[:, 1:] & real(batch)[:, :-1] & ~begins(batch)[:, 1:]).to(dtype)
    parts = x[:, :-1], action[:, 1:], x[:, 1:], reward[:, 1:], weight
    return Transitions(*(part.flatten(0, 1) for part in parts))


def real(batch: Batch) -> Tensor:
    """[B, T]: where something was recorded."""
    return batch["mask"] if "mask" in batch else torch.ones_like(batch["terminated"], dtype=torch.bool)


def begins(batch: Batch) -> Tensor:
    """[B, T]: where an episode begins."""
    return batch["first"] if "first" in batch else torch.zeros_like(batch["terminated"], dtype=torch.bool)


def check(batch: Batch, in_features: int, action_size: int) -> None:
    """Raise ValueError where sequences of vectors with actions, rewards and ends are expected and something else came."""
    x = batch["x"]
    if x.ndim != 3 or x.shape[2] != in_features:
        raise ValueError(
            f"x is {list(x.shape)}; expected sequences [B, T, {in_features}] of vectors: set the length, or in_features"
        )
    missing = [name for name in NEEDED if name not in batch]
    if missing:
        raise ValueError(f"the batch has no {', '.join(missing)}; expected recorded steps (mpagents record) with actions='led'")
    expected = {"action": (*x.shape[:2], action_size), "reward": x.shape[:2], "terminated": x.shape[:2]}
    for name, shape in expected.items():
        if tuple(batch[name].shape) != tuple(shape):
            fix = ": set action_size to its width, one-hot where actions are numbers" if name == "action" else ""
            raise ValueError(f"{name} is {list(batch[name].shape)}; expected {list(shape)}{fix}")
    if x.shape[1] < 2:
        raise ValueError("x has sequences of 1 step; expected at least 2, or there is no transition: set length of the source")
    if not x.isfinite().all():
        raise ValueError("x is not finite everywhere; expected numbers: leave such rows out")
