"""The state of a vector environment, taken between two steps and put back later, to the bit where that is possible.

Exact (`snapshot` gives a state) for Gymnasium's toy-text and classic-control environments (CartPole's own vector environment
too), for ours, and for any that has `snapshot() -> dict` and `restore(dict)`, under wrappers that keep no state beyond simple
attributes. Elsewhere `snapshot` gives None, and a resumed run starts from new episodes (the grade `episode-boundary`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv

from mpagents.encoding import EncodeObservation, EncodeVectorObservation
from mpagents.environments import layers
from mpagents.seeding import generator_state, restore_generator

EXACT_MODULES = ("gymnasium.envs.toy_text.", "gymnasium.envs.classic_control.")
EXACT_WRAPPERS = {
    "TimeLimit", "OrderEnforcing", "PassiveEnvChecker", "FlattenObservation", "TransformObservation", "TransformReward",
    "TransformAction", "ClipAction", "ClipReward", "RescaleAction", "RescaleObservation", "ReshapeObservation",
    "DtypeObservation", "FilterObservation", "TimeAwareObservation",
}  # fmt: skip
VECTOR_STATE = ("_autoreset_envs", "_rewards", "_terminations", "_truncations", "_observations")


def snapshot(env: VectorEnv) -> dict | None:
    """The environment's state as a tree that a checkpoint takes; None where it can't be told exactly, or was never reset."""
    if not is_exact(env) or not is_begun(env):
        return None
    if isinstance(env, EncodeVectorObservation):
        return {"within": snapshot(env.env), "encoding": env.progress()}
    if not isinstance(env, SyncVectorEnv):
        return {"native": _layer_state(env)}
    return {
        "vector": {name: _plain(getattr(env, name)) for name in VECTOR_STATE},
        "envs": [[_layer_state(layer) for layer in layers(single)] for single in env.envs],
    }


def restore(env: VectorEnv, state: dict) -> None:
    """Put an environment, made from the same specification, into a state taken by `snapshot`; it is then not reset again."""
    if isinstance(env, EncodeVectorObservation):
        restore(env.env, state["within"])
        env.restore_progress(state["encoding"])
    elif "native" in state:
        _restore_layer(env, state["native"])
    else:
        assert isinstance(env, SyncVectorEnv)
        for name, value in state["vector"].items():
            setattr(env, name, value)
        for single, states in zip(env.envs, state["envs"]):
            for layer, layer_state in zip(layers(single), states):
                _restore_layer(layer, layer_state)
    env.restored = True  # type: ignore[union-attr]


def is_exact(env: VectorEnv) -> bool:
    """Whether `snapshot` and `restore` continue this environment to the bit."""
    if isinstance(env, EncodeVectorObservation):
        return is_exact(env.env)
    if isinstance(env, SyncVectorEnv):
        return all(_is_exact(layer) for single in env.envs for layer in layers(single))
    return _is_exact(env)


def is_begun(env: VectorEnv) -> bool:
    """Whether the environment has been reset (or can't tell); simulated trials never touch theirs."""
    if isinstance(env, EncodeVectorObservation):
        return is_begun(env.env)
    if isinstance(env, SyncVectorEnv):
        return all(observation is not None for observation in env._env_obs)
    return getattr(env, "state", env) is not None


def _is_ours(layer: gym.Env | VectorEnv) -> bool:
    """Whether the class is of our package `envs`, not of a folder of the user's with that name."""
    source = getattr(sys.modules.get(type(layer).__module__), "__file__", None)
    return source is not None and Path(__file__).resolve().parent.parent / "envs" in Path(source).resolve().parents


def _is_exact(layer: gym.Env | VectorEnv) -> bool:
    if isinstance(layer, gym.Wrapper):
        encodes = isinstance(layer, EncodeObservation) and not layer.encoder.recurrent  # then it keeps nothing
        return encodes or (type(layer).__name__ in EXACT_WRAPPERS and type(layer).__module__.startswith("gymnasium."))
    own = hasattr(layer, "snapshot") and hasattr(layer, "restore")
    return own or type(layer).__module__.startswith(EXACT_MODULES) or (_is_ours(layer) and getattr(layer, "exact", True))


def _layer_state(layer: gym.Env | VectorEnv) -> dict:
    if not isinstance(layer, gym.Wrapper) and hasattr(layer, "snapshot"):
        return {"own": layer.snapshot(), "rng": generator_state(layer.np_random)}
    attributes = {name: _plain(value) for name, value in vars(layer).items() if name != "restored" and _is_plain(value)}
    rng = None if isinstance(layer, gym.Wrapper) else generator_state(layer.np_random)
    return {"attributes": attributes, "rng": rng}


def _restore_layer(layer: gym.Env | VectorEnv, state: dict) -> None:
    if state["rng"] is not None:
        restore_generator(layer.np_random, state["rng"])  # first: a generator that isn't there yet is made with a seed
    if "own" in state:
        layer.restore(state["own"])  # type: ignore[union-attr]
    for name, value in state.get("attributes", {}).items():
        setattr(layer, name, value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(_is_plain(item) for item in value)
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    return value is None or isinstance(value, bool | int | float | str | np.generic)


def _plain(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value
