"""Videos of what a trained agent does: .mp4 (H.264) or .gif, at the environment's own speed, without a screen.

A frame is what the environment renders (`rgb_array`); where it doesn't render and observes frames, it is what the agent sees.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space
from gymnasium.vector import VectorEnv

from mpagents.agents.agent import Agent
from mpagents.deep.observations import has_channels_last
from mpagents.environments import EnvironmentSpec, capped, make, make_vector
from mpagents.evaluation import EPISODE_LIMIT
from mpagents.seeding import derive

FORMATS = (".mp4", ".gif")
FRAMES_PER_SECOND = 30  # where the environment doesn't tell


def record(agent: Agent, spec: EnvironmentSpec, path: Path, *, episodes: int, seed: int) -> dict[str, Any]:
    """Play `episodes` episodes deterministically into a video; returns their returns and the number of frames.

    Raises ValueError for a name that isn't a video's, and where the environment can't be seen.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path} is no video's name; expected one ending in {' or '.join(FORMATS)}")
    with _without_screen():
        renders = _renders(spec)
        env = make_vector(capped(spec, EPISODE_LIMIT), 1, render_mode="rgb_array" if renders else None)
        try:
            if not renders and _picture_shape(env.single_observation_space) is None:
                raise ValueError(f"environment {spec.id!r} renders no frames (no render mode rgb_array); it can't be recorded")
            return _write(agent, env, path, episodes, seed, renders)
        finally:
            env.close()


def _write(agent: Agent, env: VectorEnv, path: Path, episodes: int, seed: int, renders: bool) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    returns, num_frames = [0.0], 0
    try:
        with _writer(unfinished, env.metadata.get("render_fps") or FRAMES_PER_SECOND) as writer:
            for observation, reward, ended in _play(agent, env, episodes, derive(seed, "video")):
                writer.append_data(_even(env.render()[0] if renders else _picture(observation[0])))  # type: ignore[index]
                num_frames += 1
                returns[-1] += reward
                returns += [0.0] * ended
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return {"path": str(path), "frames": num_frames, "returns": returns[:-1]}


def _play(agent: Agent, env: VectorEnv, episodes: int, seed: int) -> Iterator[tuple[Any, float, bool]]:
    """(observation, reward, whether an episode ends there) of every state visited; the first of an episode has reward 0."""
    observation, infos = env.reset(seed=seed)
    state, first, ended = None, np.ones(1, np.bool_), False
    yield observation, 0.0, False
    while episodes > 0:
        action, state = agent.predict(observation, state, first, deterministic=True, action_masks=infos.get("action_mask"))
        observation, reward, terminated, truncated, infos = env.step(action)  # NEXT_STEP: only resets where it has ended
        first = np.array([ended])
        ended = bool(terminated[0] or truncated[0])
        episodes -= ended
        yield observation, float(reward[0]), ended


def _renders(spec: EnvironmentSpec) -> bool:
    env = make(spec)
    renders = "rgb_array" in (env.metadata.get("render_modes") or ())
    env.close()
    same = make_vector(spec, 1)  # an id's own vector environment that observes otherwise is seen by its observations
    renders = renders and hasattr(same, "envs")
    same.close()
    return renders


@contextlib.contextmanager
def _writer(path: Path, fps: float) -> Iterator[Any]:
    import imageio.v2 as imageio

    gif = path.suffix.lower() == ".gif"
    options: dict[str, Any] = {"duration": 1000 / fps, "loop": 0} if gif else {"fps": fps, "macro_block_size": 1}
    with imageio.get_writer(path, mode="I", **options) as writer:
        yield writer


@contextlib.contextmanager
def _without_screen() -> Iterator[None]:
    """Environments that draw with pygame open no window."""
    before = os.environ.get("SDL_VIDEODRIVER")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        yield
    finally:
        if before is None:
            del os.environ["SDL_VIDEODRIVER"]


def _picture_shape(space: Space) -> tuple[int, ...] | None:
    frames = isinstance(space, Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)
    return space.shape if frames else None


def _picture(observation: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of [H, W], [H, W, 1 or 3], or the last of stacked frames [K, H, W] or [H, W, K]."""
    if observation.ndim == 3 and observation.shape[2] not in (1, 3):
        observation = observation[..., -1] if has_channels_last(observation.shape) else observation[-1]
    grey = observation.reshape(*observation.shape[:2], -1)
    return np.broadcast_to(grey, (*grey.shape[:2], 3))


def _even(frame: Any) -> np.ndarray:
    """The frame with even height and width, as H.264 wants them; small ones enlarged so that they can be seen."""
    frame = np.ascontiguousarray(frame, np.uint8)
    times = max(1, 160 // max(frame.shape[:2]))
    frame = frame.repeat(times, axis=0).repeat(times, axis=1)
    return np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
