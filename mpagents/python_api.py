"""Agents without a study: build one for any vector environment, or load a trained one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gymnasium.vector import SyncVectorEnv, VectorEnv

from mpagents.agents import agent_class, check_mode, resolved_device
from mpagents.agents.agent import Spaces
from mpagents.configuration import validate


def make_agent(name: str, env: VectorEnv, *, seed: int = 0, discount: float = 0.99, encoder: Any = None, **config: Any) -> Any:
    """An untrained agent for a vector environment; `config` are the agent's own keywords.

    `encoder`: one that learns with the agent, in mode finetune or joint, as part of its network (a copy of it); a frozen one
    stands around the environment, `EncodeObservation(env, encoder)`.

    Raises ValueError for an unknown name, a wrong keyword, or spaces in which the agent can't learn.
    """
    from mpagents.environments import spaces_of

    cls: Any = agent_class(name)
    if not hasattr(env, "single_observation_space"):
        raise ValueError(f"{env} is a single environment; expected a vector one: gymnasium.make_vec(id, num_envs=1)")
    if isinstance(env, SyncVectorEnv):
        spaces = spaces_of(env.envs[0], discount)
    else:
        spaces = Spaces(env.single_observation_space, env.single_action_space, discount)
    configuration = validate(cls.Config, config)
    cls.check(configuration, spaces)
    learned: dict[str, Any] = {}
    if encoder is not None:
        if encoder.mode == "frozen":
            raise ValueError(
                "a frozen encoder stands around the environment: make_agent(name, EncodeObservation(env, encoder))"
            )
        check_mode(cls, name, encoder.mode)
        encoder.space(spaces.observation)
        learned = {"encoder": encoder}
    device = resolved_device(getattr(configuration, "device", "cpu"))
    return cls(configuration, spaces, seed=seed, device=device, **learned)


def load_agent(trial: str | Path) -> Any:
    """The trained agent of a trial's folder, e.g. `runs/quickstart/Taxi-v4/q_learning/seed=0`, ready to `predict`."""
    from mpagents.trained import load_trained

    return load_trained(Path(trial))[1]
