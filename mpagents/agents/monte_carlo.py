"""Monte Carlo control (notes §10.1; Sutton and Barto 2018, §5.3–5.4), on-policy: action values are mean returns of episodes.

    G_t = r_{t+1} + γ G_{t+1},    Q(s_t, a_t) ← Q(s_t, a_t) + α/n^decay [G_t − Q(s_t, a_t)] after the episode

With α = decay = 1 this is the sample average over the n returns of a pair. `visits` says whether a pair's return counts at its
first visit of an episode or at each. Every pair must be tried: by an ε-soft policy (ε-greedy), or by `exploring_starts`, where
an episode begins with a uniformly random pair and then acts greedily (ε = 0).

An episode that was cut hasn't shown its return: it is bootstrapped by the policy's value of its last state, or dropped.
A greedy policy may never end an episode, and CliffWalking has no time limit: so an episode is cut after
`max_episode_length` steps and the walk starts anew; that is a truncation as any other.

Deviation: sample averages over the returns of ever better policies forget slowly; alpha_decay < 1 weighs the new more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from mpagents.agents.agent import Metrics, Spaces
from mpagents.configuration import NonNegative, PositiveInt, UnitInterval
from mpagents.schedules import Schedule, numbers, scheduled
from mpagents.tabular.compiled import kernel
from mpagents.tabular.control import Control
from mpagents.tabular.exploration import epsilon_greedy, epsilon_greedy_value
from mpagents.tabular.simulation import NOT_CHOSEN, begin, finish_step, take_step
from mpagents.tabular.states import check_finite
from mpagents.tabular.updates import rates_of, step_size


class Record(NamedTuple):
    """The steps of the present episode [max_episode_length], and the episode (its first step's number) in which each
    pair was last visited [S, A]."""

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    counts: np.ndarray  # bool: whether the step's return counts
    last_episode: np.ndarray


@kernel
def record_step(record, step, s, a, episode, first_visits):
    """Note the pair of a step, and whether its return will count."""
    record.states[step], record.actions[step] = s, a
    record.counts[step] = not first_visits or record.last_episode[s, a] != episode
    record.last_episode[s, a] = episode


@kernel
def learn_from_episode(record, length, value_of_the_rest, rates, q, visits):
    """Move the values of an episode's pairs towards its returns, from its last step backwards."""
    total = value_of_the_rest
    for step in range(length - 1, -1, -1):
        total = record.rewards[step] + rates.discount * total
        if record.counts[step]:
            s, a = record.states[step], record.actions[step]
            visits[s, a] += 1
            q[s, a] += step_size(rates, visits[s, a]) * (total - q[s, a])


@kernel
def start(world, walk, rng, rates, q, starts):
    """The first state and action of an episode: a random pair where there are `starts` to explore."""
    s = begin(world, walk, rng)
    if starts.size > 0:
        walk.state = starts[int(rng.random() * starts.size)]
        walk.action = int(rng.random() * world.num_actions)
    else:
        walk.action = epsilon_greedy(q, s, scheduled(rates.epsilon, walk.num_steps), rng)


@kernel
def learn(world, walk, episodes, rng, rates, first_visits, bootstrap, starts, q, visits, record, num_steps):
    """Take `num_steps` environment steps of Monte Carlo control."""
    for i in range(num_steps + 1):
        if walk.action == NOT_CHOSEN:
            start(world, walk, rng, rates, q, starts)
        if i == num_steps:
            break
        step = walk.elapsed
        record_step(record, step, walk.state, walk.action, walk.num_steps - step, first_visits)
        reward, next_s, terminated, truncated = take_step(world, walk, rng)
        record.rewards[step] = reward
        epsilon = scheduled(rates.epsilon, walk.num_steps)
        if terminated:
            learn_from_episode(record, walk.elapsed, 0.0, rates, q, visits)
        elif truncated and bootstrap:
            learn_from_episode(record, walk.elapsed, epsilon_greedy_value(q, next_s, epsilon), rates, q, visits)
        if not finish_step(walk, episodes):
            walk.action = epsilon_greedy(q, next_s, epsilon, rng)


class MonteCarlo:
    """Tabular Monte Carlo control for finite observations and Discrete actions."""

    @dataclass(frozen=True)
    class Config:
        visits: Literal["first", "every"] = "first"  # of a pair within an episode: whose returns count
        exploring_starts: bool = False  # begin episodes with a random pair and act greedily, instead of ε-greedily throughout
        alpha: UnitInterval = 1.0  # step size
        alpha_decay: NonNegative = 1.0  # the n-th return of (s, a) uses alpha / n^alpha_decay
        epsilon: UnitInterval | Schedule = 0.1  # exploration: share of random actions; 0 with exploring starts
        on_truncation: Literal["bootstrap", "drop"] = "bootstrap"  # what becomes of an episode that was cut
        max_episode_length: PositiveInt = 10_000  # environment steps, after which an episode is cut
        initial_value: float = 0.0  # of every action that has no return yet
        log_every: PositiveInt = 1_000  # environment steps

    @classmethod
    def check(cls, config: Config, spaces: Spaces) -> None:
        check_finite(spaces.observation, spaces.action)
        if config.exploring_starts and spaces.mdp is None:
            raise ValueError(
                "exploring_starts is true, which puts the environment into any state; this environment has no transition table "
                "to do so (use exploring_starts=false: the ε-greedy policy explores)"
            )

    def __init__(self, config: Config, spaces: Spaces, *, seed: int, encoder: Any = None, device: str = "cpu") -> None:
        self.config, self.spaces = config, spaces
        self.control = Control(spaces, seed=seed, initial_value=config.initial_value, longest_episode=config.max_episode_length)
        self.stream, self.q, self.visits = self.control.stream, self.control.q, self.control.visits
        longest = self.stream.world.max_episode_steps
        states, actions, counts = np.zeros(longest, np.int32), np.zeros(longest, np.int32), np.zeros(longest, np.bool_)
        self.record = Record(states, actions, np.zeros(longest), counts, np.full(self.q.shape, -1, np.int64))
        self.starts = np.zeros(0, np.int64)
        if config.exploring_starts and spaces.mdp is not None:
            self.starts = np.flatnonzero(spaces.mdp.reachable() & ~spaces.mdp.terminal)

    def action_probabilities(self, observation: Any, deterministic: bool = True, action_masks: Any = None) -> np.ndarray:
        """The greedy policy [B, A], uniform over ties; not `deterministic`: the ε-greedy one."""
        return self.control.action_probabilities(observation, deterministic, action_masks)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:  # fmt: skip
        return self.control.predict(observation, deterministic, action_masks), state

    def train(self, env: Any, num_steps: int) -> Iterator[tuple[int, Metrics]]:
        config, rates = self.config, rates_of(self.config, self.spaces.discount, num_steps)
        if config.exploring_starts:
            rates = rates._replace(epsilon=numbers(0.0, num_steps))
        tables = (
            rates, config.visits == "first", config.on_truncation == "bootstrap", self.starts, self.q, self.visits, self.record,
        )  # fmt: skip
        yield from self.control.train(env, num_steps, config.log_every, learn, tables, rates.epsilon)

    def state_dict(self) -> dict:
        recorded = int(self.stream.walk.elapsed)  # of a finished episode too: nothing reads those
        episode = {name: steps[:recorded].copy() for name, steps in self.record._asdict().items() if name != "last_episode"}
        return self.control.state_dict() | {"episode": episode}

    def load_state_dict(self, state: dict) -> None:
        self.control.load_state_dict(state)
        episode = state["episode"]
        for name, values in episode.items():
            getattr(self.record, name)[: len(values)] = values
        self.record.last_episode[:] = -1
        self.record.last_episode[episode["states"], episode["actions"]] = self.stream.num_steps - self.stream.walk.elapsed
