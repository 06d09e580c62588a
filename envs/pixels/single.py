"""One copy of a batched torch environment as a plain `gymnasium.Env`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.error import ResetNeeded
from torch import Tensor

from mpagents.torch_env import State, TorchEnv


class SingleEnv(gymnasium.Env):
    """A `TorchEnv` with n = 1 and without its time limit, which Gymnasium's `TimeLimit` keeps.

    From the same seed it goes the way of a `TorchVectorEnv` of one copy: each step draws the noise of a step and of a reset,
    and the next reset without a seed takes the latter. `info["state"]` is the true state, float32.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012 (Gymnasium's annotation)

    def __init__(self, torch_env: TorchEnv, render_mode: str | None = None) -> None:
        """Raises ValueError where the render mode isn't known."""
        if not hasattr(torch_env, "render"):
            self.metadata = {**self.metadata, "render_modes": []}
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode is {render_mode!r}; expected one of {self.metadata['render_modes']} or None")
        self.torch_env, self.render_mode = torch_env, render_mode
        self.observation_space, self.action_space = torch_env.observation.space(), torch_env.action.space()
        self.generator = torch.Generator()
        self.state: State | None = None
        self.reset_noise: Tensor | None = None  # [1, *noise_shape], drawn with the last step's

    def noise(self, *shape: int) -> Tensor:
        """Uniform numbers [*shape, 1, *noise_shape]."""
        return torch.rand((*shape, 1, *self.torch_env.noise_shape), generator=self.generator)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """`options` are not used."""
        super().reset(seed=seed)
        if seed is not None:
            self.generator.manual_seed(seed)
        elif self.state is None:
            self.generator.seed()
        drawn = self.reset_noise if seed is None else None
        self.state, self.reset_noise = self.torch_env.reset(self.noise() if drawn is None else drawn), None
        return self._seen()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.state is None:
            raise ResetNeeded("step was called before reset: call env.reset() first")
        action, num = np.asarray(action, self.action_space.dtype), self.torch_env.action.num
        if not self.action_space.contains(action):
            raise ValueError(f"action is {action}; expected {self.action_space if num is None else f'0 … {num - 1}'}")
        noise = self.noise(2)
        self.state, reward, terminated = self.torch_env.step(self.state, torch.from_numpy(action[None]), noise[0])
        self.reset_noise = noise[1]
        obs, info = self._seen()
        return obs, float(reward), bool(terminated), False, info

    def render(self) -> np.ndarray | None:
        """The larger picture for people, uint8 [H, W, 3]; None (and a warning) without a render mode."""
        if self.render_mode is None:
            gymnasium.logger.warn("render_mode is None: build the environment with 'rgb_array'")
            return None
        if self.state is None:
            raise ResetNeeded("render was called before reset: call env.reset() first")
        return self.torch_env.render(self.state)[0].numpy()  # type: ignore[attr-defined]

    def snapshot(self) -> dict[str, Any]:
        """All that changes, for a checkpoint."""
        assert self.state is not None
        return {"state": list(self.state), "reset_noise": self.reset_noise, "generator": self.generator.get_state()}

    def restore(self, saved: dict[str, Any]) -> None:
        """Stand where `snapshot` was taken."""
        self.state, self.reset_noise = tuple(saved["state"]), saved["reset_noise"]
        self.generator.set_state(saved["generator"])

    def _seen(self) -> tuple[np.ndarray, dict[str, Any]]:
        assert self.state is not None
        obs = self.torch_env.observe(self.state)[0].numpy().copy()  # it may be a view of the state
        if not hasattr(self.torch_env, "truth"):
            return obs, {}
        return obs, {"state": self.torch_env.truth(self.state)[0].numpy().copy()}
