"""What the agents that learn action values share: the table, acting ε-greedily on it, and the stream that it is learned from.

Agents hold a `Control`; they don't inherit from it. What differs between them, the kernel that learns, stays in their files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mpagents.schedules import ScheduleNumbers, scheduled
from mpagents.seeding import generator, generator_state, restore_generator
from mpagents.tabular.exploration import epsilon_greedy_probabilities, sample_actions
from mpagents.tabular.simulation import NO_LIMIT, Stream


class Control:
    """A table of action values q [S, A] with its visits [S, A], the present ε, and a `Stream`."""

    def __init__(self, spaces: Any, *, seed: int, initial_value: float = 0.0, longest_episode: int = NO_LIMIT) -> None:
        self.stream = Stream(spaces, seed=seed, longest_episode=longest_episode)
        shape = (self.stream.index.num_states, int(spaces.action.n))
        self.q = np.full(shape, float(initial_value))
        self.visits = np.zeros(shape, np.int64)
        self.epsilon = 0.0
        self.predict_rng = generator(seed, "predict")

    def action_probabilities(self, observation: Any, deterministic: bool, action_masks: Any) -> np.ndarray:
        """The greedy policy [B, A], uniform over ties; not `deterministic`: the ε-greedy one."""
        values = self.q[self.stream.index(observation)]
        return epsilon_greedy_probabilities(values, 0.0 if deterministic else self.epsilon, action_masks)

    def predict(self, observation: Any, deterministic: bool, action_masks: Any) -> np.ndarray:
        """Actions [B] drawn from `action_probabilities`."""
        probabilities = self.action_probabilities(observation, deterministic, action_masks)
        return sample_actions(probabilities, self.predict_rng) + self.stream.first_action

    def train(
        self, env: Any, num_steps: int, log_every: int, learn: Callable, tables: tuple, epsilon: ScheduleNumbers
    ) -> Iterator[tuple[int, dict]]:
        """Drive the kernel `learn` until `num_steps` environment steps have been taken in all, reporting every `log_every`."""
        while self.stream.num_steps < num_steps:
            self.stream.advance(env, learn, tables, min(log_every, num_steps - self.stream.num_steps))
            yield self.report(epsilon)

    def report(self, epsilon: ScheduleNumbers) -> tuple[int, dict]:
        """(environment steps so far, metrics); brings `epsilon` up to date."""
        num_steps = self.stream.num_steps
        self.epsilon = scheduled.py_func(epsilon, num_steps)  # not worth entering compiled code for
        return num_steps, self.stream.metrics() | {"rollout/exploration_rate": self.epsilon}

    def state_dict(self) -> dict:
        return {
            "q": self.q,
            "visits": self.visits,
            "epsilon": self.epsilon,
            "stream": self.stream.state_dict(),
            "predict_rng": generator_state(self.predict_rng),
        }

    def load_state_dict(self, state: dict) -> None:
        self.q[:], self.visits[:] = state["q"], state["visits"]
        self.epsilon = state["epsilon"]
        self.stream.load_state_dict(state["stream"])
        restore_generator(self.predict_rng, state["predict_rng"])
