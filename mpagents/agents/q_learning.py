"""Q-learning (Watkins 1989; notes §10.2), off-policy: learns the optimal action values while acting ε-greedily.

    Q(s, a) ← Q(s, a) + α [r + γ max_a′ Q(s′, a′) − Q(s, a)]

The maximum is 0 after termination; after truncation it is not. `double` (van Hasselt 2010) keeps two tables: a coin says
which one is updated, that one names the best next action and the other one values it, which takes away the maximum's
upward bias; the agent acts on their mean.

Deviation: the notes write the update as αQ + (1 − α)(…) in one place and Q + αδ in another; here α weighs the new.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpagents.agents.agent import Metrics, Spaces
from mpagents.configuration import NonNegative, PositiveInt, UnitInterval
from mpagents.schedules import Schedule, scheduled
from mpagents.tabular.compiled import kernel
from mpagents.tabular.control import Control
from mpagents.tabular.exploration import epsilon_greedy
from mpagents.tabular.simulation import NOT_CHOSEN, begin, finish_step, take_step
from mpagents.tabular.states import check_finite
from mpagents.tabular.updates import double_q_error, q_learning_error, rates_of, step_size


@kernel
def learn(world, walk, episodes, rng, rates, q, visits, num_steps):
    """Take `num_steps` environment steps of Q-learning."""
    for i in range(num_steps + 1):
        if walk.action == NOT_CHOSEN:
            s = begin(world, walk, rng)
            walk.action = epsilon_greedy(q, s, scheduled(rates.epsilon, walk.num_steps), rng)
        if i == num_steps:
            break
        s, a = walk.state, walk.action
        reward, next_s, terminated, _ = take_step(world, walk, rng)
        visits[s, a] += 1
        error = q_learning_error(q, s, a, reward, next_s, terminated, rates.discount)
        q[s, a] += step_size(rates, visits[s, a]) * error
        if not finish_step(walk, episodes):
            walk.action = epsilon_greedy(q, next_s, scheduled(rates.epsilon, walk.num_steps), rng)


@kernel
def learn_double(world, walk, episodes, rng, rates, q, twins, visits, num_steps):
    """Take `num_steps` environment steps of double Q-learning; `twins` [2, S, A] are the tables and `q` their mean."""
    for i in range(num_steps + 1):
        if walk.action == NOT_CHOSEN:
            s = begin(world, walk, rng)
            walk.action = epsilon_greedy(q, s, scheduled(rates.epsilon, walk.num_steps), rng)
        if i == num_steps:
            break
        s, a = walk.state, walk.action
        reward, next_s, terminated, _ = take_step(world, walk, rng)
        visits[s, a] += 1
        coin = int(rng.random() < 0.5)
        own, other = twins[coin], twins[1 - coin]
        error = double_q_error(own, other, s, a, reward, next_s, terminated, rates.discount, rng)
        own[s, a] += step_size(rates, visits[s, a]) * error
        q[s, a] = (own[s, a] + other[s, a]) / 2
        if not finish_step(walk, episodes):
            walk.action = epsilon_greedy(q, next_s, scheduled(rates.epsilon, walk.num_steps), rng)


class QLearning:
    """Tabular Q-learning for finite observations and Discrete actions."""

    @dataclass(frozen=True)
    class Config:
        alpha: UnitInterval = 0.1  # step size
        alpha_decay: NonNegative = 0.0  # the n-th visit of (s, a) uses alpha / n^alpha_decay
        epsilon: UnitInterval | Schedule = 0.1  # exploration: share of random actions
        double: bool = False
        initial_value: float = 0.0  # of every action; above what can be earned, it makes the agent explore
        log_every: PositiveInt = 1_000  # environment steps

    @classmethod
    def check(cls, config: Config, spaces: Spaces) -> None:
        check_finite(spaces.observation, spaces.action)

    def __init__(self, config: Config, spaces: Spaces, *, seed: int, encoder: Any = None, device: str = "cpu") -> None:
        self.config, self.spaces = config, spaces
        self.control = Control(spaces, seed=seed, initial_value=config.initial_value)
        self.stream, self.q, self.visits = self.control.stream, self.control.q, self.control.visits
        self.twins = np.full((2, *self.q.shape), float(config.initial_value)) if config.double else None

    def action_probabilities(self, observation: Any, deterministic: bool = True, action_masks: Any = None) -> np.ndarray:
        """The greedy policy [B, A], uniform over ties; not `deterministic`: the ε-greedy one."""
        return self.control.action_probabilities(observation, deterministic, action_masks)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:  # fmt: skip
        return self.control.predict(observation, deterministic, action_masks), state

    def train(self, env: Any, num_steps: int) -> Iterator[tuple[int, Metrics]]:
        rates = rates_of(self.config, self.spaces.discount, num_steps)
        kernel, tables = learn, (rates, self.q, self.visits)  # type: Any, tuple
        if self.twins is not None:
            kernel, tables = learn_double, (rates, self.q, self.twins, self.visits)
        yield from self.control.train(env, num_steps, self.config.log_every, kernel, tables, rates.epsilon)

    def state_dict(self) -> dict:
        return self.control.state_dict() | {"twins": self.twins}

    def load_state_dict(self, state: dict) -> None:
        self.control.load_state_dict(state)
        if self.twins is not None:
            self.twins[:] = state["twins"]
