"""Steps an environment and gives what is recorded of it, a row for each observation of each copy.

A row holds an observation with what led to it: `x` the frame or vector; `action` the action that led there; `reward`,
`terminated`, `truncated` what came with it; `first` where an episode begins: no action led there (−1, or zeros), and the
reward is 0. So an episode's last observation has a row, and the reset that follows it another. The step that an automatic
reset swallows (its action is ignored) is the latter: nothing from before it reaches over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from gymnasium.spaces.utils import flatdim, flatten
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate
from PIL import Image

from mpagents import scenes
from mpagents.deep.observations import has_channels_last
from mpagents.encoder_input import is_picture
from mpagents.environments import EnvironmentSpec, make_vector
from mpagents.seeding import derive, generator
from mpagents.tabular.simulation import autoreset_mode
from mpagents.video import _without_screen

Row = dict[str, Any]
Policy = Callable[["Collector"], Any]  # the actions of all copies, as `env.step` takes them


@dataclass(frozen=True)
class View:
    """What is recorded as x. A size or grey asks for frames; else frames where observations are, or have no numbers."""

    size: tuple[int, int] | None = None  # height, width in pixels; default: as they are
    grey: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"size is {self.size}; expected height and width of at least 1 pixel")

    def picture(self, frame: np.ndarray) -> np.ndarray:
        """uint8 [H, W, C] of a frame [H, W], [H, W, C], or stacked ones [K, H, W], of which the last is taken."""
        if frame.ndim == 3 and not has_channels_last(frame.shape):
            frame = frame[-1]
        if frame.ndim == 3 and frame.shape[2] not in (1, 3):  # a stack of grey ones: Pillow has no such picture
            return np.concatenate([self.picture(frame[:, :, i]) for i in range(frame.shape[2])], axis=2)
        grey = frame.ndim == 2 or frame.shape[2] == 1
        image = Image.fromarray(np.ascontiguousarray(frame.reshape(frame.shape[:2]) if grey else frame))
        if self.grey and not grey:
            image = image.convert("L")
        if self.size is not None and image.size != self.size[::-1]:
            image = image.resize(self.size[::-1], Image.Resampling.BILINEAR)  # a mean of all it covers: no aliasing
        return np.array(image).reshape(image.height, image.width, -1)


class Collector:
    """`num_envs` copies of an environment under a policy; each `step` gives the rows of every copy."""

    def __init__(
        self, spec: EnvironmentSpec, view: View, policy: Policy, num_envs: int, seed: int,
        see: Callable[[Any], np.ndarray] | None = None,
    ) -> None:  # fmt: skip
        """`see` makes x of an observation in its own way, whatever the view says; nothing is then rendered."""
        self.spec, self.view, self.policy, self.seed, self.see = spec, view, policy, seed, see
        if see is None:
            self.env, self.rendered = open_environment(spec, view, num_envs)
        else:
            self.env, self.rendered = make_vector(spec, num_envs), False
        self.frames = self.rendered or is_picture_space(self.env.single_observation_space)
        self.next_step = autoreset_mode(self.env) == "NextStep"
        self.scenes = hasattr(self.env, "envs") and self.rendered and scenes.is_scene(self.env.envs[0])
        self.observation: Any = None  # of all copies; None before the first reset
        self.infos: dict[str, Any] = {}
        self.first = np.ones(num_envs, np.bool_)  # whether the observation is an episode's first
        self.ended = np.zeros(num_envs, np.bool_)  # NEXT_STEP: whether the next step only resets
        self.num_steps = 0  # of every copy

    @property
    def num_actions(self) -> int | None:
        """Of a discrete action, which is stored as its number from 0."""
        space = self.env.single_action_space
        return int(space.n) if isinstance(space, Discrete) else None

    def step(self) -> list[list[Row]]:
        """The new rows of each copy; the first call resets."""
        if self.observation is None:
            self.observation, self.infos = self.env.reset(seed=derive(self.seed, "record", self.num_steps))
            self.first[:] = True
            return [[self._row(i, seen)] for i, seen in enumerate(self._each())]
        action = self.policy(self)
        self.observation, reward, terminated, truncated, self.infos = self.env.step(action)
        self.num_steps += 1
        ended = terminated | truncated
        actions = list(iterate(self.env.action_space, action))
        came = [{"reward": reward[i], "terminated": terminated[i], "truncated": truncated[i]} for i in range(len(ended))]
        if self.next_step:
            self.first, self.ended = self.ended, ended
            return [
                [self._row(i, seen) if self.first[i] else self._row(i, seen, actions[i], came[i])]
                for i, seen in enumerate(self._each())
            ]
        self.first = ended
        rows = []
        for i, seen in enumerate(self._each()):
            arrived = self.infos["final_obs"][i] if ended[i] else seen
            rows.append([self._row(i, arrived, actions[i], came[i]), *([self._row(i, seen)] if ended[i] else [])])
        return rows

    def close(self) -> None:
        self.env.close()

    def _each(self) -> list[Any]:
        """The observation of each copy; the rendered frames are kept aside."""
        with _without_screen():
            self._frames: Any = self.env.render() if self.rendered else None
        return list(iterate(self.env.observation_space, self.observation))

    def _row(self, i: int, seen: Any, action: Any = None, came: dict[str, Any] | None = None) -> Row:
        space = self.env.single_observation_space
        row: Row = {"first": np.bool_(came is None), "action": self._action(action), "reward": np.float32(0)}
        row |= {"terminated": np.bool_(False), "truncated": np.bool_(False)}
        if came is not None:
            row |= {key: row[key].dtype.type(value) for key, value in came.items()}
        if self.see is not None:
            row["x"] = self.see(seen)
        elif self.frames:
            row["x"] = self.view.picture(self._frames[i] if self._frames is not None else np.asarray(seen))
        else:
            row["x"] = vector(space, seen)
        final = not self.next_step and bool(row["terminated"] or row["truncated"])
        return row | self._truth(i, seen, row["x"], self.infos.get("final_info", {}) if final else self.infos)

    def _action(self, action: Any) -> Any:
        space = self.env.single_action_space
        if isinstance(space, Discrete):
            return np.int32(-1 if action is None else int(action) - int(space.start))
        return np.zeros(flatdim(space), np.float32) if action is None else vector(space, action)

    def _truth(self, i: int, seen: Any, x: np.ndarray, infos: dict[str, Any]) -> Row:
        """What is known beyond x: the state that info offers, or the vector observation beside a frame; of MiniGrid all."""
        if self.scenes:
            env = self.env.envs[i]  # type: ignore[attr-defined]
            rng = generator(self.seed, "caption", i, self.num_steps)
            text = scenes.tokens(scenes.caption(scenes.objects(env), rng))
            return {"state": scenes.state(env), "label": scenes.labels(env, *x.shape[:2]), "text": text}
        if "state" in self.infos or "state" in infos:
            if not infos.get("_state", {i: False})[i]:
                raise ValueError(f"info of {self.spec.id!r} offers `state` sometimes: give it in every reset and step")
            return {"state": np.asarray(infos["state"][i], np.float32).flatten()}
        if self.rendered and self.env.single_observation_space.is_np_flattenable:
            return {"state": vector(self.env.single_observation_space, seen)}
        return {}


def open_environment(spec: EnvironmentSpec, view: View, num_envs: int) -> tuple[VectorEnv, bool]:
    """(the vector environment, whether frames are rendered). Raises ValueError where it can't be seen as asked."""
    with _without_screen():
        env = make_vector(spec, num_envs)
        space = env.single_observation_space
        pictures = is_picture_space(space)
        if pictures or (view == View() and space.is_np_flattenable):
            return env, False
        modes = env.metadata.get("render_modes") or ()
        env.close()
        why = "" if view != View() else f" (its observations, {space}, are no numbers alone)"
        if "rgb_array" not in modes:
            raise ValueError(f"environment {spec.id!r} renders no frames (no render mode rgb_array){why}")
        env = make_vector(spec, num_envs, render_mode="rgb_array")
        if not hasattr(env, "envs"):
            raise ValueError(f"environment {spec.id!r} is stepped by its own vector code, which renders no frames")
        return env, True


def is_picture_space(space: Space) -> bool:
    """Frames, stacked ones of one channel each too."""
    return isinstance(space, Box) and len(space.shape) < 4 and is_picture(space.shape, space.dtype == np.uint8)


def vector(space: Space, value: Any) -> np.ndarray:
    """float32 [D]; discrete parts one-hot. A copy: environments may use their buffers again."""
    return np.array(flatten(space, value), np.float32).reshape(-1)


def random_policy(seed: int) -> Policy:
    """Uniform over the (allowed) actions; a step's actions depend on the seed and the step alone."""

    def act(collector: Collector) -> Any:
        space: Any = collector.env.single_action_space
        space.seed(derive(seed, "random policy", collector.num_steps))
        masks = collector.infos.get("action_mask")
        masks = [None] * collector.env.num_envs if masks is None else np.asarray(masks, np.int8)
        return stacked(space, [space.sample(mask) for mask in masks])

    return act


def scripted_policy(function: Callable[[Any, np.random.Generator], Any], seed: int) -> Policy:
    """`function(observation, rng)` is asked for the action of each copy."""

    def act(collector: Collector) -> Any:
        rng = generator(seed, "scripted policy", collector.num_steps)
        seen = iterate(collector.env.observation_space, collector.observation)
        return stacked(collector.env.single_action_space, [function(observation, rng) for observation in seen])

    return act


def trained_policy(agent: Any) -> Policy:
    """A trained agent, as evaluation plays it."""
    memory: dict[str, Any] = {"state": None}

    def act(collector: Collector) -> Any:
        action, memory["state"] = agent.predict(
            collector.observation, memory["state"], collector.first, deterministic=True,
            action_masks=collector.infos.get("action_mask"),
        )  # fmt: skip
        return action

    return act


def mixed_policy(policy: Policy, epsilon: float, seed: int) -> Policy:
    """Random with probability `epsilon`, each copy for itself."""
    uniform = random_policy(seed)

    def act(collector: Collector) -> Any:
        space = collector.env.action_space
        draws = generator(seed, "epsilon", collector.num_steps).random(collector.env.num_envs)
        both = zip(iterate(space, uniform(collector)), iterate(space, policy(collector)), draws)
        return stacked(collector.env.single_action_space, [other if draw < epsilon else own for other, own, draw in both])

    return act


def stacked(space: Space, actions: list[Any]) -> Any:
    """One action of the single space for each copy, as the vector environment takes them."""
    empty: Any = create_empty_array(space, len(actions))
    return concatenate(space, actions, empty)
