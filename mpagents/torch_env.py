"""Environments as pure, batched functions of tensors, and the vector environment that one makes.

A `TorchEnv` holds no state: `step` maps (state, action, noise) of n environments to the next, so a whole iteration of learning
(policy, environment, returns, gradient, optimiser) can be compiled as one graph. torch refuses a generator within a graph:
hence noise, uniform in [0, 1), is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

State = tuple[Tensor, ...]  # each [n, …]


@dataclass(frozen=True)
class ArraySpec:
    """The numbers 0 … `num` − 1, frames, or arrays of floats within bounds (infinite by default) that hold for each entry."""

    num: int | None = None
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    frame: tuple[int, int, int] | None = None  # (H, W, C) of uint8 frames

    def space(self) -> gym.Space:
        if self.num is not None:
            return gym.spaces.Discrete(self.num)
        if self.frame is not None:
            return gym.spaces.Box(0, 255, self.frame, np.uint8)
        return gym.spaces.Box(np.array(self.low, np.float32), np.array(self.high, np.float32))


class TorchEnv(Protocol):
    """n environments at once; every method is pure and can be compiled.

    Two methods are optional: `truth(state)`, the true state as floats [n, D] for `info["state"]`, and `render(state)`, uint8
    frames for people.
    """

    observation: ArraySpec
    action: ArraySpec
    max_episode_steps: int | None
    noise_shape: tuple[int, ...]  # of one environment's noise, for a reset or for a step

    def reset(self, noise: Tensor) -> State:
        """First states from noise [n, *noise_shape]."""
        ...

    def step(self, state: State, action: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        """(next state, reward [n], terminated [n])."""
        ...

    def observe(self, state: State) -> Tensor:
        """Observations [n, …]."""
        ...


class Walk(NamedTuple):
    """Where n environments stand."""

    state: State
    elapsed: Tensor  # int64 [n], steps since the episode began


class Outcome(NamedTuple):
    """What one step did, before any reset."""

    next_obs: Tensor
    reward: Tensor  # float32 [n]
    terminated: Tensor  # bool [n]
    truncated: Tensor  # bool [n], never together with terminated


def begin(env: TorchEnv, noise: Tensor) -> Walk:
    """New episodes from noise [n, *noise_shape]."""
    return Walk(env.reset(noise), torch.zeros(len(noise), dtype=torch.int64, device=noise.device))


def advance(env: TorchEnv, walk: Walk, action: Tensor, noise: Tensor) -> tuple[Walk, Outcome]:
    """One step with the time limit and SAME_STEP autoreset; noise [2, n, *noise_shape] is the step's and the resets'."""
    arrived, reward, terminated, truncated = move(env, walk, action, noise[0])
    outcome = Outcome(env.observe(arrived.state), reward, terminated, truncated)
    return renew(env, arrived, terminated | truncated, noise[1]), outcome


def move(env: TorchEnv, walk: Walk, action: Tensor, noise: Tensor) -> tuple[Walk, Tensor, Tensor, Tensor]:
    """(where the environments stand before any reset, reward, terminated, truncated) [n]; noise [n, *noise_shape]."""
    state, reward, terminated = env.step(walk.state, action, noise)
    elapsed = walk.elapsed + 1
    limit = env.max_episode_steps
    truncated = torch.zeros_like(terminated) if limit is None else (elapsed >= limit) & ~terminated
    return Walk(state, elapsed), reward, terminated, truncated


def renew(env: TorchEnv, walk: Walk, ended: Tensor, noise: Tensor) -> Walk:
    """New episodes where `ended` [n]; noise [n, *noise_shape]."""
    fresh = env.reset(noise)
    after = tuple(torch.where(ended.view(-1, *[1] * (old.dim() - 1)), new, old) for new, old in zip(fresh, walk.state))
    return Walk(after, torch.where(ended, 0, walk.elapsed))


class TorchVectorEnv(VectorEnv):
    """`num_envs` copies of a `TorchEnv` as a Gymnasium vector environment."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 (Gymnasium's annotation)

    def __init__(self, torch_env: TorchEnv, num_envs: int, device: str = "cpu") -> None:
        self.torch_env, self.num_envs, self.device = torch_env, num_envs, torch.device(device)
        self.single_observation_space, self.single_action_space = torch_env.observation.space(), torch_env.action.space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.generator = torch.Generator()
        self.walk: Walk | None = None

    def noise(self, *shape: int) -> Tensor:
        """Uniform numbers [*shape, n, *noise_shape] from the environment's own generator."""
        full = (*shape, self.num_envs, *self.torch_env.noise_shape)
        return torch.rand(full, generator=self.generator).to(self.device)

    @torch.no_grad()
    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """`options["reset_mask"]`, bool [n]: for whom; the others stay where they are. Other options are not used."""
        super().reset(seed=seed if seed is None else int(np.ravel(seed)[0]))
        if seed is not None:
            self.generator.manual_seed(int(np.ravel(seed)[0]))
        elif self.walk is None:
            self.generator.seed()
        mask = (options or {}).get("reset_mask")
        if mask is None:
            self.walk = begin(self.torch_env, self.noise())
        else:
            self.walk = renew(self.torch_env, self._started(), self._mask(mask), self.noise())
        return self.observe(), self.truth(self.walk.state)

    @torch.no_grad()
    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        walk = self._started()
        action = torch.as_tensor(self._checked(actions), device=self.device)
        noise = self.noise(2)
        arrived, *came = move(self.torch_env, walk, action, noise[0])
        next_obs = self._seen(arrived.state)
        reward, terminated, truncated = (part.cpu().numpy() for part in came)
        begun = came[1] | came[2]
        ended = terminated | truncated
        if not ended.any():
            self.walk = arrived
            return next_obs, reward, terminated, truncated, self.truth(arrived.state)
        self.walk = renew(self.torch_env, arrived, begun, noise[1])
        infos = self.truth(self.walk.state) | {"final_obs": next_obs, "_final_obs": ended}
        if final := self.truth(arrived.state, ended):
            infos |= {"final_info": final, "_final_info": ended}
        obs = next_obs.copy()
        obs[ended] = self.torch_env.observe(tuple(part[begun] for part in self.walk.state)).cpu().numpy()  # drawing is dear
        return obs, reward, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...]:
        """A picture of each copy, uint8 [H, W, 3]. Raises NotImplementedError where the environment draws none."""
        if not hasattr(self.torch_env, "render"):
            raise NotImplementedError(f"{type(self.torch_env).__name__} draws no pictures: it has no `render`")
        with torch.no_grad():
            return tuple(self.torch_env.render(self._started().state).cpu().numpy())

    def _started(self) -> Walk:
        if self.walk is None:
            raise gym.error.ResetNeeded("the environments stand nowhere yet: call env.reset() first")
        return self.walk

    def _mask(self, mask: Any) -> Tensor:
        told = np.asarray(mask)
        if told.shape != (self.num_envs,) or told.dtype != np.bool_:
            raise ValueError(f"reset_mask is {told.dtype} {list(told.shape)}; expected bool [{self.num_envs}]")
        return torch.as_tensor(told, device=self.device)

    def _checked(self, actions: Any) -> np.ndarray:
        """The actions, if there is one for each environment and none is a number out of range: it would be some other's row."""
        action, num = np.asarray(actions), self.torch_env.action.num
        if action.shape != self.action_space.shape:
            raise ValueError(f"actions have shape {action.shape}; expected {self.action_space.shape}, one for each environment")
        if num is not None and (action.dtype.kind not in "iu" or action.min() < 0 or action.max() >= num):
            got = f"{action.dtype} from {action.min()} to {action.max()}"
            raise ValueError(f"actions are {got}; expected integers from 0 to {num - 1}")
        return action

    def truth(self, state: State, told: np.ndarray | None = None) -> dict[str, Any]:
        """The true states where the environment tells them; `told` [n] marks for whom they are meant, everyone if None."""
        if not hasattr(self.torch_env, "truth"):
            return {}
        true = self.torch_env.truth(state).cpu().numpy().copy()  # it may be a view of the state
        return {"state": true, "_state": np.ones(self.num_envs, np.bool_) if told is None else told}

    def snapshot(self) -> dict:
        """All that changes, for a checkpoint."""
        assert self.walk is not None
        return {"state": list(self.walk.state), "elapsed": self.walk.elapsed, "generator": self.generator.get_state()}

    def restore(self, saved: dict) -> None:
        """Stand where `snapshot` was taken."""
        state = tuple(part.to(self.device) for part in saved["state"])
        self.walk = Walk(state, saved["elapsed"].to(self.device))
        self.generator.set_state(saved["generator"])

    def observe(self) -> np.ndarray:
        """What is seen where the environments stand, [n, …]."""
        assert self.walk is not None
        return self._seen(self.walk.state)

    def _seen(self, state: State) -> np.ndarray:
        """Observations that are the caller's own: vectors may be a view of the state."""
        seen = self.torch_env.observe(state).cpu().numpy()
        return seen if seen.dtype == np.uint8 else seen.copy()
