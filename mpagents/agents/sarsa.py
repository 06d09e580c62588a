"""SARSA (Rummery and Niranjan 1994; notes §10.2), on-policy: learns the action values of the ε-greedy policy that it acts by.

    Q(s, a) ← Q(s, a) + α [r + γ Q(s′, a′) − Q(s, a)],    a′ ~ π(s′), and a′ is what is then executed

`expected` (van Seijen et al. 2009) bootstraps on Σ_a′ π(a′ | s′) Q(s′, a′) instead. `n` steps of reward come before the
bootstrap (Sutton and Barto 2018, §7.2): G = r_1 + γ r_2 + … + γⁿ Q(s_n, a_n), with the exponent that an episode's end leaves.
`trace_decay` λ > 0 weighs all n by eligibility traces instead (SARSA(λ), op. cit. §12.7).

After termination nothing is bootstrapped on. Truncation cuts a return and bootstraps on an a′ ~ π(s′) that, the episode being
over, is never executed.

Deviations: the notes weigh the old value by α where here it weighs the new. An n-step return bootstraps on the present table,
as in the book, also for the updates left at an episode's end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from mpagents.agents.agent import Metrics, Spaces
from mpagents.configuration import NonNegative, PositiveInt, UnitInterval
from mpagents.schedules import Schedule, scheduled
from mpagents.tabular.compiled import kernel
from mpagents.tabular.control import Control
from mpagents.tabular.exploration import epsilon_greedy
from mpagents.tabular.simulation import NOT_CHOSEN, begin, finish_step, take_step
from mpagents.tabular.states import check_finite
from mpagents.tabular.traces import clear, credit, fade, mark, no_traces, restore_traces, trace_state
from mpagents.tabular.updates import n_step_return, next_value, rates_of, sarsa_error, step_size


class Recent(NamedTuple):
    """The last n steps of the episode, as rings indexed by step."""

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray


@kernel
def learn(world, walk, episodes, rng, rates, expected, q, visits, num_steps):
    """Take `num_steps` environment steps of (Expected) SARSA."""
    for i in range(num_steps + 1):
        if walk.action == NOT_CHOSEN:
            s = begin(world, walk, rng)
            walk.action = epsilon_greedy(q, s, scheduled(rates.epsilon, walk.num_steps), rng)
        if i == num_steps:
            break
        s, a = walk.state, walk.action
        reward, next_s, terminated, _ = take_step(world, walk, rng)
        epsilon = scheduled(rates.epsilon, walk.num_steps)
        next_a = NOT_CHOSEN if terminated else epsilon_greedy(q, next_s, epsilon, rng)
        visits[s, a] += 1
        bootstrap = next_value(q, next_s, next_a, terminated, expected, epsilon)
        q[s, a] += step_size(rates, visits[s, a]) * sarsa_error(q, s, a, reward, bootstrap, rates.discount)
        if not finish_step(walk, episodes):
            walk.action = next_a


@kernel
def learn_n_step(world, walk, episodes, rng, rates, expected, q, visits, recent, num_steps):
    """The same with n-step returns: an update for the pair n steps back, and at an episode's end for all that are left."""
    n = recent.rewards.size
    for i in range(num_steps + 1):
        if walk.action == NOT_CHOSEN:
            s = begin(world, walk, rng)
            walk.action = epsilon_greedy(q, s, scheduled(rates.epsilon, walk.num_steps), rng)
        if i == num_steps:
            break
        slot = walk.elapsed % n
        recent.states[slot], recent.actions[slot] = walk.state, walk.action
        reward, next_s, terminated, truncated = take_step(world, walk, rng)
        recent.rewards[slot] = reward
        epsilon = scheduled(rates.epsilon, walk.num_steps)
        next_a = NOT_CHOSEN if terminated else epsilon_greedy(q, next_s, epsilon, rng)
        t = walk.elapsed
        for step in range(max(0, t - n), t if terminated or truncated else t - n + 1):
            s, a = recent.states[step % n], recent.actions[step % n]
            bootstrap = next_value(q, next_s, next_a, terminated, expected, epsilon)
            visits[s, a] += 1
            error = n_step_return(recent.rewards, step, t, bootstrap, rates.discount) - q[s, a]
            q[s, a] += step_size(rates, visits[s, a]) * error
        if not finish_step(walk, episodes):
            walk.action = next_a


@kernel
def learn_traces(
    world, walk, episodes, rng, rates, expected, q, visits, traces, decay, replacing, flat_q, flat_visits, num_steps
):
    """The same with eligibility traces; `flat_q` and `flat_visits` [S·A] are `q` and `visits`, as the traces number pairs."""
    for i in range(num_steps + 1):
        if walk.action == NOT_CHOSEN:
            s = begin(world, walk, rng)
            walk.action = epsilon_greedy(q, s, scheduled(rates.epsilon, walk.num_steps), rng)
            clear(traces)
        if i == num_steps:
            break
        s, a = walk.state, walk.action
        reward, next_s, terminated, _ = take_step(world, walk, rng)
        epsilon = scheduled(rates.epsilon, walk.num_steps)
        next_a = NOT_CHOSEN if terminated else epsilon_greedy(q, next_s, epsilon, rng)
        visits[s, a] += 1
        bootstrap = next_value(q, next_s, next_a, terminated, expected, epsilon)
        error = sarsa_error(q, s, a, reward, bootstrap, rates.discount)
        fade(traces, rates.discount * decay)
        mark(traces, s * world.num_actions + a, replacing)
        credit(traces, flat_q, flat_visits, rates, error)
        if not finish_step(walk, episodes):
            walk.action = next_a


class Sarsa:
    """Tabular SARSA, Expected SARSA, n-step SARSA and SARSA(λ) for finite observations and Discrete actions."""

    @dataclass(frozen=True)
    class Config:
        alpha: UnitInterval = 0.1  # step size
        alpha_decay: NonNegative = 0.0  # the n-th update of (s, a) uses alpha / n^alpha_decay
        epsilon: UnitInterval | Schedule = 0.1  # exploration: share of random actions
        expected: bool = False  # bootstrap on the policy's mean value instead of the next action's
        n: PositiveInt = 1  # steps of reward before the bootstrap
        trace_decay: UnitInterval = 0.0  # λ of eligibility traces; 0: none
        traces: Literal["accumulating", "replacing"] = "accumulating"  # what a second visit does to a trace
        initial_value: float = 0.0  # of every action; above what can be earned, it makes the agent explore
        log_every: PositiveInt = 1_000  # environment steps

    @classmethod
    def check(cls, config: Config, spaces: Spaces) -> None:
        check_finite(spaces.observation, spaces.action)
        if config.n > 1 and config.trace_decay > 0.0:
            raise ValueError(
                f"n is {config.n} and trace_decay is {config.trace_decay}; expected one of the two, for traces weigh all n "
                "(use n=1 or trace_decay=0)"
            )

    def __init__(self, config: Config, spaces: Spaces, *, seed: int, encoder: Any = None, device: str = "cpu") -> None:
        self.config, self.spaces = config, spaces
        self.control = Control(spaces, seed=seed, initial_value=config.initial_value)
        self.stream, self.q, self.visits = self.control.stream, self.control.q, self.control.visits
        self.recent = Recent(np.zeros(config.n, np.int64), np.zeros(config.n, np.int64), np.zeros(config.n))
        self.traces = no_traces(self.q.size if config.trace_decay > 0.0 else 0)

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
        kernel, tables = learn, (rates, config.expected, self.q, self.visits)  # type: Any, tuple
        if config.n > 1:
            kernel, tables = learn_n_step, (*tables, self.recent)
        elif config.trace_decay > 0.0:
            replacing, flat = config.traces == "replacing", (self.q.reshape(-1), self.visits.reshape(-1))
            kernel, tables = learn_traces, (*tables, self.traces, float(config.trace_decay), replacing, *flat)
        yield from self.control.train(env, num_steps, config.log_every, kernel, tables, rates.epsilon)

    def state_dict(self) -> dict:
        return self.control.state_dict() | {"recent": self.recent._asdict(), "traces": trace_state(self.traces)}

    def load_state_dict(self, state: dict) -> None:
        self.control.load_state_dict(state)
        for name, ring in self.recent._asdict().items():
            ring[:] = state["recent"][name]
        restore_traces(self.traces, state["traces"])
