"""A learned world model as an environment: any agent trains in `TorchVectorEnv(Dream(model, starts, action), n)` unchanged.

A dream starts in a state drawn from `starts` (visited real states, or first ones), follows the model, ends where the model
says so, and is cut after `horizon` steps, which is a truncation: agents value the final observation. Whether it ends is drawn
from the model's probability, or decided by it ("threshold": at more than 1/2, so that small doubts don't add up over a dream).

A step takes the model's noise and one number more, for the end; a reset takes one number, for the start.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mpagents.deep.observations import has_channels_last
from mpagents.torch_env import ArraySpec, State

Ends = Literal["threshold", "draw"]


def array_spec(space: gym.Space) -> ArraySpec:
    """The spec of a space. Raises ValueError for spaces that worlds aren't learned of."""
    if isinstance(space, gym.spaces.Discrete) and space.start == 0:
        return ArraySpec(num=int(space.n))
    if isinstance(space, gym.spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3:
        if not has_channels_last(space.shape):
            raise ValueError(f"frames are {list(space.shape)}, stacked [K, H, W]; expected [H, W, C]: move the first axis")
        return ArraySpec(frame=tuple(space.shape))  # type: ignore[arg-type]
    if isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating) and len(space.shape) == 1:
        return ArraySpec(low=tuple(space.low.tolist()), high=tuple(space.high.tolist()))
    raise ValueError(f"space is {space}; expected Discrete from 0, vectors of floats [D], or frames uint8 [H, W, C]")


def encoded_action(action: Tensor, num: int | None) -> Tensor:
    """Actions as world models take them, floats [n, A]: numbers one-hot."""
    return action.float() if num is None else F.one_hot(action.long(), num).float()


def drawn(model: Any, state: State) -> Tensor:
    """Frames [n, H, W, 3] of states."""
    return in_colour(model.observation(state))


def in_colour(frames: Tensor) -> Tensor:
    """[n, H, W, C] → [n, H, W, 3]; of stacked ones the newest."""
    return frames if frames.shape[3] == 3 else frames[..., -1:].expand(*frames.shape[:3], 3)


class Dream:
    """A `TorchEnv`; `model` keeps the protocol of `generative.world.protocol`, `starts` are states of it [N, …]."""

    def __init__(
        self,
        model: Any,
        starts: State,
        action: ArraySpec,
        *,
        horizon: int | None,
        observes: Literal["observation", "features"] = "observation",
        temperature: float = 1.0,  # of what is drawn: 0 follows the mean
        ends: Ends = "threshold",
    ) -> None:
        """Raises ValueError where there is nothing to start from, and for settings that can't be."""
        if ends not in ("threshold", "draw"):
            raise ValueError(f"ends is {ends!r}; expected 'threshold' or 'draw'")
        if observes not in ("observation", "features"):
            raise ValueError(f"observes is {observes!r}; expected 'observation' or 'features'")
        if not temperature >= 0:
            raise ValueError(f"temperature is {temperature}; expected 0 or more")
        if not starts or not len(starts[0]):
            raise ValueError("starts hold no state; expected at least one that was visited and not terminated")
        self.model, self.action = model, action
        self.starts = tuple(part.detach() for part in starts)
        self.max_episode_steps, self.temperature, self.ends = horizon, temperature, ends
        self.noise_shape: tuple[int, ...] = (model.num_noise + 1,)
        self.observe = model.features if observes == "features" else model.observation
        one = tuple(part[:1] for part in starts)
        self.observation = spec_of(self.observe(one)[0])
        if model.observation(one).dtype == torch.uint8:
            self.render = partial(drawn, model)  # frames can be shown

    def reset(self, noise: Tensor) -> State:
        place = (noise[:, 0] * len(self.starts[0])).long()
        return tuple(part[place] for part in self.starts)

    def step(self, state: State, action: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        action = encoded_action(action, self.action.num)
        after, reward, end = self.model.imagine(state, action, noise[:, :-1], self.temperature)
        return after, reward, end > (0.5 if self.ends == "threshold" else noise[:, -1])


def spec_of(seen: Tensor) -> ArraySpec:
    """Of one observation: frames [H, W, C], or floats [D] without bounds."""
    if seen.dtype == torch.uint8:
        return ArraySpec(frame=tuple(seen.shape))  # type: ignore[arg-type]
    return ArraySpec(low=(-float("inf"),) * len(seen), high=(float("inf"),) * len(seen))
