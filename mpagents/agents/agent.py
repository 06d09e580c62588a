"""The contract of an agent: what it is built from, and what it can do. No base class: an agent is any class of this shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
from gymnasium.spaces import Space

from mpagents.tabular.mdp import FiniteMDP

# A logged quantity: a number, a 0-dim tensor (stays on its device until it is logged) or a picture, uint8 [H, W, C].
Metrics = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Spaces:
    """What an agent knows of an environment before the first step."""

    observation: Space  # of a single environment
    action: Space
    discount: float = 0.99
    mdp: FiniteMDP | None = None  # where the environment is a finite MDP and nothing but a time limit is wrapped around it
    max_episode_steps: int | None = None  # the time limit of `mdp`


def encoded_spaces(spaces: Spaces, encoder: Any) -> Spaces:
    """What an agent is built from that sees through a frozen encoder; one that learns the encoder sees all itself."""
    if encoder is None or encoder.mode != "frozen":
        return spaces
    return replace(spaces, observation=encoder.space(spaces.observation), mdp=None, max_episode_steps=None)


class Agent(Protocol):
    """An agent is built from spaces, not from an environment, so that a checkpoint alone is enough to act.

    Optional: `action_probabilities(observation, deterministic=True, action_masks=None) -> [B, A]`, the policy itself. Where
    an agent has it, exact regret averages over ties; elsewhere `predict(…, deterministic=True)` is the policy.
    `state_values() -> [S]`, what a tabular agent believes its states are worth, for pictures.
    A class attribute `planner = True` marks agents that plan on `spaces.mdp`: they count sweeps, not environment steps.
    `encoder_modes`, e.g. ("finetune", "joint"), tells how an agent can learn an `encoder` (see `mpagents.encoders`) that it is
    built with; it makes it part of its network and its checkpoint. Frozen encoders stand before the agent, which sees codes.
    """

    Config: ClassVar[type]

    @classmethod
    def check(cls, config: Any, spaces: Spaces) -> None:
        """Raise ValueError (got, expected, fix) where this configuration can't learn in these spaces."""

    def __init__(self, config: Any, spaces: Spaces, *, seed: int, encoder: Any = None, device: str = "cpu") -> None: ...

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:  # fmt: skip
        """(actions, state) for a batch of observations; Stable-Baselines3's signature with sb3-contrib's masks."""
        ...

    def train(self, env: Any, num_steps: int) -> Iterator[tuple[int, Metrics]]:
        """Step a `gymnasium.vector.VectorEnv` and learn until this agent has taken `num_steps` environment steps in all.

        Yields (environment steps so far, metrics) where the state is complete: a checkpoint may be taken there, and an
        agent that was loaded from one continues with the same `num_steps`.
        """
        ...

    def state_dict(self) -> dict:
        """All of the agent's progress: nested dicts of numbers, strings, NumPy arrays and tensors."""
        ...

    def load_state_dict(self, state: dict) -> None: ...
