"""The keywords of Stable-Baselines3's algorithms as plain data: checked by name, and made into what they take.

A schedule is one of ours ({start, end, fraction, kind}), classes are "package.module:Class", an activation has its name
("tanh"), and `action_noise: 0.1` is Gaussian noise of that standard deviation.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from mpagents.configuration import nearest, validate
from mpagents.schedules import Schedule, numbers, scheduled

OURS = {"policy", "env", "seed", "device", "verbose", "tensorboard_log", "gamma", "_init_setup_model"}  # set by the study
SCHEDULES = ("learning_rate", "clip_range", "clip_range_vf")
PACKAGES = ("torch", "stable_baselines3", "sb3_contrib", "generative", "mpagents")  # that classes may come from
RESOLUTION = 1_000_000  # a schedule's points


def check_keywords(algorithm: str, settings: Mapping[str, Any]) -> None:
    """Raise ValueError for a keyword that the algorithm doesn't know, or that the study sets."""
    import stable_baselines3

    known = inspect.signature(getattr(stable_baselines3, algorithm)).parameters.keys() - OURS
    for name in settings:
        if name == "gamma":
            raise ValueError("settings.gamma: the discount belongs to the environment's entry; set `discount` there")
        if name in OURS:
            raise ValueError(f"settings.{name}: the study sets it; take it out")
        if name not in known:
            raise ValueError(f"settings.{name}: Stable-Baselines3's {algorithm} has no such keyword{nearest(name, known)}")


def keywords(settings: Mapping[str, Any], action_space: gym.Space) -> dict[str, Any]:
    """What the algorithm is called with."""
    found = {name: _resolved(name, value) for name, value in settings.items()}
    if isinstance(found.get("action_noise"), int | float):
        from stable_baselines3.common.noise import NormalActionNoise

        shape = action_space.shape or (1,)
        found["action_noise"] = NormalActionNoise(np.zeros(shape), np.full(shape, float(found["action_noise"])))
    return found


def policy_for(observation: gym.Space) -> str:
    """The policy that the observations need: convolutions for frames of 36×36 and more."""
    from stable_baselines3.common.preprocessing import is_image_space

    if isinstance(observation, gym.spaces.Dict):
        return "MultiInputPolicy"
    large = is_image_space(observation) and sorted(observation.shape or ())[1] >= 36
    return "CnnPolicy" if large else "MlpPolicy"


def _resolved(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        if name in SCHEDULES:
            return _as_function(validate(Schedule, value, ("settings", name)))
        return {key: _resolved(key, item) for key, item in value.items()}
    if isinstance(value, str) and name == "activation_fn" and ":" not in value:
        return _activation(value)
    if isinstance(value, str) and name.endswith(("_class", "_fn")):
        return _imported(name, value)
    return tuple(value) if name == "train_freq" and isinstance(value, list | tuple) else value


def _as_function(schedule: Schedule) -> Callable[[float], float]:
    """Stable-Baselines3's form: of the progress that remains, from 1 to 0."""
    points = numbers(schedule, RESOLUTION)
    return lambda remaining: float(scheduled.py_func(points, (1.0 - remaining) * RESOLUTION))


def _activation(name: str) -> Any:
    from mpagents.deep.networks import ACTIVATIONS

    if name not in ACTIVATIONS:
        raise ValueError(f"settings.policy_kwargs.activation_fn: unknown activation {name!r}{nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _imported(name: str, path: str) -> Any:
    module, _, attribute = path.partition(":")
    found = None
    if module.partition(".")[0] in PACKAGES and attribute:
        found = getattr(importlib.import_module(module), attribute, None)
    if not isinstance(found, type):
        raise ValueError(f"settings' {name} is {path!r}; expected 'package.module:Class' of {', '.join(PACKAGES)}")
    return found
