"""A trained world model as an environment: `envs:WorldModel-v0` with the model's file and the recording it was trained on.

    mpagents record CartPole-v1 --steps 20000
    mpagents fit ensemble_dynamics recordings/CartPole-v1 --set action_size=2 \\
        --source length=16 --source crossing=true --source actions=led

Episodes start in states that were recorded, and are cut after `max_episode_steps`, the horizon. What is observed is what the
model predicts, in the form of the recording's observations; the recorded actions say which there are (their bounds, where they
are floats, are those of the recorded ones).

With `actions="recorded"` a recorded episode is dreamt again under its own actions, and `render` shows the real frame beside the
dreamt one.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

import generative
from envs.pixels.single import SingleEnv
from generative.recordings import Recording
from generative.world.protocol import State
from mpagents.dream import Dream, Ends
from mpagents.dream_beside import Beside
from mpagents.torch_env import ArraySpec, TorchVectorEnv

LENGTH = 16  # rows of the sequences whose states are started from
REPLAYED = 64  # rows of the sequences that are dreamt again, at most


def dream(
    path: str,
    recording: str,
    *,
    horizon: int | None,
    starts: Literal["visited", "first"] = "visited",
    num_starts: int = 4_096,
    temperature: float = 1.0,
    ends: Ends = "threshold",
    actions: Literal["chosen", "recorded"] = "chosen",
    seen: int = 1,
    settings: dict[str, Any] | None = None,
) -> Dream | Beside:
    """`settings` are the recording's, as they were in training (e.g. stack); before it follows recorded actions, the model is
    shown `seen` rows. Raises ValueError for missing or wrong files.
    """
    model: Any = generative.load(path)
    if not hasattr(model, "imagine"):
        raise ValueError(f"{path} holds a {type(model).__name__}, which imagines nothing; expected a world model")
    if actions not in ("chosen", "recorded"):
        raise ValueError(f"actions is {actions!r}; expected 'chosen' or 'recorded'")
    if starts not in ("visited", "first"):
        raise ValueError(f"starts is {starts!r}; expected 'visited' or 'first'")
    model.requires_grad_(False).eval()
    if actions == "recorded":
        source = Recording(recording, length=REPLAYED, actions="led", **settings or {})
        batch = source.sample(min(num_starts, REPLAYED), torch.Generator().manual_seed(0))
        return Beside(model, batch, _actions(source), seen=seen, temperature=temperature, horizon=horizon)
    source = Recording(recording, length=LENGTH, crossing=True, actions="led", **settings or {})
    chosen = _actions(source)
    width = chosen.num or len(chosen.low)
    try:
        if width != getattr(model.config, "action_size", width):
            raise ValueError(f"its actions have the width {width}; expected {model.config.action_size}")
        states = _states(model, source, starts, num_starts)
    except ValueError as error:
        raise ValueError(f"{recording} isn't such as {path} was fitted to: {error}") from error
    return Dream(model, states, chosen, horizon=horizon, temperature=temperature, ends=ends)


def _states(model: Any, source: Recording, starts: str, num_starts: int) -> State:
    """States to start from: after steps drawn from the recording, or after the first observations of its episodes."""
    generator = torch.Generator().manual_seed(0)
    if starts == "first":
        rows = Recording(source.folder, stack=source.stack, stride=source.stride).windows
        begun = np.flatnonzero(np.asarray(rows.columns["first"])[rows.starts])[:num_starts]
        return model.begin(rows.at(torch.from_numpy(begun))["x"])
    found, valid = model.posterior(source.sample(-(-num_starts // LENGTH), generator))
    return tuple(part[valid] for part in found)


def _actions(source: Recording) -> ArraySpec:
    num = source.manifest["num_actions"]
    if num is not None:
        return ArraySpec(num=num)
    recorded = np.asarray(source.windows.columns["action"])
    return ArraySpec(low=tuple(recorded.min(0).tolist()), high=tuple(recorded.max(0).tolist()))


def single(path: str, recording: str, render_mode: str | None = None, **settings: Any) -> SingleEnv:
    """One environment; settings are those of `dream`."""
    return SingleEnv(dream(path, recording, horizon=None, **settings), render_mode)


def vector(
    path: str, recording: str, num_envs: int = 1, max_episode_steps: int | None = 50, device: str = "cpu", **settings: Any
) -> TorchVectorEnv:
    """The entry point of vector environments; settings are those of `dream`."""
    return TorchVectorEnv(dream(path, recording, horizon=max_episode_steps, **settings), num_envs, device)
