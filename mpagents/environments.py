"""Environments from their specification: single and vector ones, what an agent may know of them, and their state.

An id is Gymnasium's: `FrozenLake-v1`, `my_module:MyEnv-v0` (the module registers it) or `my_module:MyEnv` (a class).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, find_highest_version, get_env_id, parse_env_id
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from mpagents.agents.agent import Spaces
from mpagents.configuration import STRICT, PositiveInt, UnitInterval
from mpagents.native import make_native
from mpagents.tabular.mdp import FiniteMDP, NoTransitionTable
from mpagents.watch import watched

NATIVE_FROM = 5  # copies from which a native vector environment is faster than single ones in turn
EXTRAS = {"ale_py": "atari", "Box2D": "box2d", "mujoco": "mujoco", "minigrid": "minigrid"}  # module: our extra that installs it
REGISTERING = {"ALE/": "ale_py", "MiniGrid-": "minigrid", "BabyAI-": "minigrid"}  # ids that importing a package makes known
# They leave an MDP as it is, but for the limit.
PLAIN_WRAPPERS = (gym.wrappers.TimeLimit, gym.wrappers.OrderEnforcing, gym.wrappers.PassiveEnvChecker)


@dataclass(frozen=True)
class EnvironmentSpec:
    """An environment of a study."""

    __pydantic_config__: ClassVar = STRICT

    id: str  # a Gymnasium id, "module:Id-v0", or "module:Class"
    label: str | None = None  # the folder's name; default: from the id
    kwargs: dict[str, Any] = field(default_factory=dict)  # for the environment's constructor
    wrappers: tuple[str, ...] = ()  # "module:Class" or "module:function", innermost first, called with the environment
    max_episode_steps: PositiveInt | None = None  # default: the limit that the environment is registered with
    discount: UnitInterval = 0.99  # γ, for agents and for regret
    native: bool = True  # use the id's own vector environment where it has one that helps, and no wrappers are asked for


def imported(path: str, what: str) -> Any:
    """The object "module:name". Raises ValueError with what is missing."""
    module_name, _, name = path.partition(":")
    if not name or not module_name or module_name.startswith("."):
        raise ValueError(f"{what} {path!r} should be written as 'module:name'")
    try:
        return getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise ValueError(f"{what} {path!r}: no module {error.name!r} on the path of this folder") from error
    except AttributeError as error:
        raise ValueError(f"{what} {path!r}: module {module_name!r} has no {name!r}") from error


def _told(error: Exception, spec: EnvironmentSpec) -> str:
    """What went wrong as the environment was made, without what Gymnasium appends, and with a hint."""
    reason = str(error).partition(" was raised from the environment creator")[0]
    if ":" in spec.id:
        hint = _in_the_way(spec.id)
    else:
        unknown = isinstance(error, gym.error.UnregisteredEnv)
        hint = " (mpagents' own begin with envs:, see `mpagents list envs`)" if unknown else ""
    kwargs = f"; its kwargs are {spec.kwargs}" if isinstance(error, TypeError) else ""
    return f"{reason}{kwargs}{hint}"


def make(spec: EnvironmentSpec, render_mode: str | None = None) -> gym.Env:
    """One environment with its wrappers. Raises ValueError for what the specification has wrong."""
    try:
        options: dict[str, Any] = {"max_episode_steps": spec.max_episode_steps, "render_mode": render_mode}
        env = gym.make(_registered(spec.id), **{k: v for k, v in options.items() if v is not None}, **spec.kwargs)
    except ModuleNotFoundError as error:
        raise ValueError(f"environment {spec.id!r}: {_missing(error)}{_in_the_way(spec.id)}") from error
    except Exception as error:
        raise ValueError(f"environment {spec.id!r}: {_told(error, spec)}") from error
    for wrapper in spec.wrappers:
        env = _wrapped(env, wrapper)
    return env


def _missing(error: ModuleNotFoundError) -> str:
    """What to install, where a module that an environment needs isn't there."""
    extra = EXTRAS.get((error.name or "").partition(".")[0])
    fix = f"pip install 'mpagents[{extra}]'" if extra else "install its package, or run where its folder is"
    return f"module {error.name!r} is not installed; {fix}"


def _wrapped(env: gym.Env, path: str) -> gym.Env:
    wrapper = imported(path, "wrapper")
    try:
        wrapped = wrapper(env)
    except Exception as error:
        raise ValueError(f"wrapper {path!r}: {error} (it is called with the environment alone)") from error
    if not isinstance(wrapped, gym.Env):
        raise ValueError(f"wrapper {path!r} gave a {type(wrapped).__name__}; expected an environment")
    return wrapped


def make_vector(
    spec: EnvironmentSpec, num_envs: int, autoreset: AutoresetMode = AutoresetMode.NEXT_STEP, render_mode: str | None = None
) -> VectorEnv:
    """`num_envs` copies in one process; the id's own vector environment where that observes otherwise, or is faster."""
    single = partial(make, spec, render_mode)
    native = _native(spec, num_envs, autoreset)
    if native is not None:
        if num_envs >= NATIVE_FROM and render_mode is None:
            return watched(native, spec.id)
        env = single()
        own = (native.single_observation_space, native.single_action_space) != (env.observation_space, env.action_space)
        env.close()
        if own:
            return watched(native, spec.id)
        native.close()
    return watched(SyncVectorEnv([single] * num_envs, autoreset_mode=autoreset), spec.id)


def _native(spec: EnvironmentSpec, num_envs: int, autoreset: AutoresetMode) -> VectorEnv | None:
    if not spec.native or spec.wrappers:
        return None
    try:
        registered = registration(spec.id)
    except (gym.error.Error, ModuleNotFoundError):  # making a single one says what is wrong
        return None
    limit = spec.max_episode_steps
    return make_native(registered, num_envs, kwargs=spec.kwargs, max_episode_steps=limit, autoreset=autoreset)


def examine(spec: EnvironmentSpec) -> tuple[Spaces, tuple[int, int] | None]:
    """What an agent is built from, and (rows, columns) where states form a grid. Raises ValueError as `make` does."""
    env = make(spec)
    spaces, shape = spaces_of(env, spec.discount), grid_shape(env)
    env.close()
    native = None if spaces.mdp is not None else _native(spec, 1, AutoresetMode.NEXT_STEP)
    if native is not None:
        spaces = replace(spaces, observation=native.single_observation_space, action=native.single_action_space)
        native.close()
    return spaces, shape


def capped(spec: EnvironmentSpec, most: int) -> EnvironmentSpec:
    """The same environment with episodes of at most `most` steps."""
    if spec.max_episode_steps is not None:
        return replace(spec, max_episode_steps=min(most, spec.max_episode_steps))
    own = registration(spec.id).max_episode_steps
    return spec if own is not None and own <= most else replace(spec, max_episode_steps=most)


def registration(env_id: str) -> EnvSpec:
    """What Gymnasium has registered under an id (the highest version where it names none), or made from a class."""
    registered = _registered(env_id)
    if isinstance(registered, EnvSpec):
        return registered
    namespace, name, version = parse_env_id(registered.rpartition(":")[2])
    return gym.spec(get_env_id(namespace, name, find_highest_version(namespace, name) if version is None else version))


def _registered(env_id: str) -> str | EnvSpec:
    """What `gymnasium.make` takes: the id, or a specification made from a class that isn't registered."""
    module_name, _, name = env_id.partition(":")
    for prefix, package in REGISTERING.items():
        if env_id.startswith(prefix) and importlib.util.find_spec(package):
            importlib.import_module(package)
    if not name:
        return env_id
    target = getattr(importlib.import_module(module_name), name, None)
    return EnvSpec(id=name, entry_point=target) if callable(target) else env_id


def _in_the_way(env_id: str) -> str:
    """Where the user's own folder hides a package of ours: which one it is."""
    name = env_id.partition(":")[0]
    module = sys.modules.get(name)
    if ":" not in env_id or name not in ("envs", "generative") or module is None:
        return ""
    folder = Path(module.__file__ or next(iter(module.__path__))).resolve()
    folder = folder.parent if folder.suffix else folder
    if folder == Path(__file__).resolve().parent.parent / name:
        return ""
    return f" (the package {name!r} found is your folder {folder}, which stands in the way of ours: rename it to use this id)"


def spaces_of(env: gym.Env, discount: float = 0.99) -> Spaces:
    """What an agent is built from; with the finite MDP where the environment is one and only a time limit wraps it."""
    mdp, limit = None, None
    if is_plain(env):
        try:
            mdp = FiniteMDP.from_gymnasium(env, discount)
            limits = [layer._max_episode_steps for layer in layers(env) if isinstance(layer, gym.wrappers.TimeLimit)]
            limit = min(limits, default=None)
        except NoTransitionTable:  # a learner will step the environment
            mdp = None
    return Spaces(env.observation_space, env.action_space, discount, mdp, limit)


def is_plain(env: gym.Env) -> bool:
    """Whether states are numbered 0 … S−1 and no wrapper changes the process."""
    discrete = all(isinstance(s, gym.spaces.Discrete) and s.start == 0 for s in (env.observation_space, env.action_space))
    return discrete and all(type(layer) in PLAIN_WRAPPERS for layer in layers(env)[:-1])


def layers(env: gym.Env) -> list[gym.Env]:
    """The environment's wrappers from the outside in, and the environment itself last."""
    found = [env]
    while isinstance(found[-1], gym.Wrapper):
        found.append(found[-1].env)
    return found


def grid_shape(env: gym.Env) -> tuple[int, int] | None:
    """(rows, columns) where states are a grid's cells in reading order, else None."""
    base = env.unwrapped
    for shape in (getattr(base, "grid_shape", None), getattr(base, "shape", None), np.shape(getattr(base, "desc", ()))):
        cells = isinstance(env.observation_space, gym.spaces.Discrete) and int(env.observation_space.n)
        if shape is not None and len(shape) == 2 and shape[0] * shape[1] == cells:
            return int(shape[0]), int(shape[1])
    return None
