"""A world that shows its true state in place of a frame: the ceiling that learning from frames is measured by."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mpagents.torch_env import ArraySpec, State, TorchEnv

OBSERVES = ("frame", "state")


class TrueState:
    """The same world, observed as `truth(state)`: float32 [n, D]. Rewards, ends, noise, limit and pictures are the world's."""

    def __init__(self, world: Any) -> None:
        self.world, self.action, self.noise_shape = world, world.action, world.noise_shape
        self.max_episode_steps = world.max_episode_steps
        size = world.truth(world.reset(torch.zeros(1, *world.noise_shape))).shape[1]
        self.observation = ArraySpec(low=(-math.inf,) * size, high=(math.inf,) * size)
        self.reset, self.step, self.truth, self.render = world.reset, world.step, world.truth, world.render

    def observe(self, state: State) -> Tensor:
        """float32 [n, D], a copy: it may be a view of the state."""
        return self.world.truth(state).clone()


def observed(world: TorchEnv, observes: str) -> TorchEnv:
    """The world as it is (`frame`), or its true state (`state`). Raises ValueError for other words."""
    if observes not in OBSERVES:
        raise ValueError(f"observes is {observes!r}; expected 'frame' or 'state'")
    return TrueState(world) if observes == "state" else world
