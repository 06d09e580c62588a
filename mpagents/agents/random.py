"""The random agent: uniformly random actions, the floor under every learner. It learns nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces as gym_spaces

from mpagents.agents.agent import Metrics, Spaces
from mpagents.seeding import derive


class Random:
    """Draws from the action space, among the allowed actions where masks are given."""

    planner = True  # no step teaches it anything: reports draw it as a horizontal line

    @dataclass(frozen=True)
    class Config:
        pass

    @classmethod
    def check(cls, config: Config, spaces: Spaces) -> None:
        """Any spaces will do."""

    def __init__(self, config: Config, spaces: Spaces, *, seed: int, encoder: Any = None, device: str = "cpu") -> None:
        self.config, self.spaces = config, spaces
        self._action_space = copy.deepcopy(spaces.action)
        self._action_space.seed(derive(seed, "random"))
        self._num_steps = 0

    def action_probabilities(self, observation: Any, deterministic: bool = True, action_masks: Any = None) -> np.ndarray:
        """Uniform over the (allowed) actions, [B, A]; for Discrete actions."""
        if not isinstance(self.spaces.action, gym_spaces.Discrete):
            raise ValueError(f"action space is {self.spaces.action}; probabilities exist for Discrete ones")
        batch = self._batch_size(observation)
        allowed = np.ones((batch, int(self.spaces.action.n))) if action_masks is None else np.asarray(action_masks, np.float64)
        return allowed / allowed.sum(axis=1, keepdims=True)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:  # fmt: skip
        batch = self._batch_size(observation)
        masks = [None] * batch if action_masks is None else np.asarray(action_masks, np.int8).reshape(batch, -1)
        return np.stack([np.asarray(self._action_space.sample(mask)) for mask in masks]), state

    def _batch_size(self, observation: Any) -> int:
        """Number of observations in a batch of a (possibly nested) space."""
        space = self.spaces.observation
        while isinstance(space, gym_spaces.Tuple | gym_spaces.Dict):
            key = 0 if isinstance(space, gym_spaces.Tuple) else next(iter(space))
            observation, space = observation[key], space[key]  # type: ignore[index]
        return len(observation)

    def train(self, env: Any, num_steps: int) -> Iterator[tuple[int, Metrics]]:
        """Takes no steps: nothing is learned from them. Evaluation tells what random actions earn."""
        self._num_steps = num_steps
        yield num_steps, {}

    def state_dict(self) -> dict:
        return {"num_steps": self._num_steps, "rng": dict(self._action_space.np_random.bit_generator.state)}

    def load_state_dict(self, state: dict) -> None:
        self._num_steps = state["num_steps"]
        self._action_space.np_random.bit_generator.state = state["rng"]
