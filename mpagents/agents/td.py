"""Temporal-difference prediction, TD(0) and TD(λ) (Sutton 1988; notes §10.2): the state values of a given policy.

    δ = r + γ V(s′) − V(s),    V(s) ← V(s) + α δ;    with λ > 0 all states share δ by their eligibility traces

It controls nothing: it acts by `policy` and learns what that is worth. Where the environment is a finite MDP,
`train/value_rmse` is the root of the mean squared distance to the exact values, over the states that the policy visits (each
weighs the same).

Deviation: the notes write V ← αV + (1 − α)(…) in one place and V + αδ in another; here α weighs the new.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mpagents.agents.agent import Metrics, Spaces
from mpagents.configuration import NonNegative, PositiveInt, UnitInterval
from mpagents.schedules import numbers
from mpagents.seeding import generator, generator_state, restore_generator
from mpagents.tabular.bellman import policy_backups
from mpagents.tabular.compiled import kernel
from mpagents.tabular.exploration import epsilon_greedy_probabilities, sample_actions
from mpagents.tabular.mdp import FiniteMDP
from mpagents.tabular.planning import policy_iteration
from mpagents.tabular.policy_evaluation import evaluate_policy
from mpagents.tabular.simulation import NOT_CHOSEN, Stream, begin, finish_step, take_step
from mpagents.tabular.states import StateIndex, check_finite
from mpagents.tabular.traces import clear, credit, fade, mark, no_traces, restore_traces, trace_state
from mpagents.tabular.transitions import reach
from mpagents.tabular.updates import Rates, step_size, td_error


@kernel
def draw_action(cumulative, s, rng):
    """a ~ π(s) from cumulated probabilities [S, A]; a sure action costs no random number."""
    if cumulative[s, 0] == 1.0:
        return 0
    u, a = rng.random(), 0
    while cumulative[s, a] <= u:
        a += 1
    return a


@kernel
def learn(world, walk, episodes, rng, rates, policy, v, visits, num_steps):
    """Take `num_steps` environment steps of TD(0)."""
    for i in range(num_steps + 1):
        if walk.action == NOT_CHOSEN:
            walk.action = draw_action(policy, begin(world, walk, rng), rng)
        if i == num_steps:
            break
        s = walk.state
        reward, next_s, terminated, _ = take_step(world, walk, rng)
        visits[s] += 1
        v[s] += step_size(rates, visits[s]) * td_error(v, s, reward, next_s, terminated, rates.discount)
        if not finish_step(walk, episodes):
            walk.action = draw_action(policy, next_s, rng)


@kernel
def learn_traces(world, walk, episodes, rng, rates, policy, v, visits, traces, decay, replacing, num_steps):
    """Take `num_steps` environment steps of TD(λ)."""
    for i in range(num_steps + 1):
        if walk.action == NOT_CHOSEN:
            walk.action = draw_action(policy, begin(world, walk, rng), rng)
            clear(traces)
        if i == num_steps:
            break
        s = walk.state
        reward, next_s, terminated, _ = take_step(world, walk, rng)
        visits[s] += 1
        error = td_error(v, s, reward, next_s, terminated, rates.discount)
        fade(traces, rates.discount * decay)
        mark(traces, s, replacing)
        credit(traces, v, visits, rates, error)
        if not finish_step(walk, episodes):
            walk.action = draw_action(policy, next_s, rng)


def given_policy(policy: str | tuple[int, ...], spaces: Spaces) -> np.ndarray:
    """The configured policy as probabilities [S, A]. Raises ValueError where there is none."""
    num_states, num_actions = StateIndex(spaces.observation).num_states, int(spaces.action.n)  # type: ignore[attr-defined]
    if policy == "uniform":
        return np.full((num_states, num_actions), 1.0 / num_actions)
    if policy == "optimal":
        if spaces.mdp is None:
            raise ValueError("policy is 'optimal'; this environment has no transition table to find it (expected a tuple)")
        actions = policy_iteration(spaces.mdp.with_discount(spaces.discount)).policy
    else:
        actions = np.asarray(policy, np.int64)
        if actions.shape != (num_states,):
            raise ValueError(f"policy names {actions.size} actions; expected one for each of the {num_states} states")
        wrong = (actions < 0) | (actions >= num_actions)
        if wrong.any():
            s = int(np.argmax(wrong))
            raise ValueError(f"policy names action {actions[s]} in state {s}; expected 0 … {num_actions - 1}")
    return np.eye(num_actions)[actions]


def exact_values(mdp: FiniteMDP, policy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """v^π [S], and bool [S]: the states that the policy visits before an episode's end."""
    chain = policy_backups(mdp, policy)
    ends = chain.successor == mdp.num_states
    visited = reach(chain.row_start, chain.successor, ends, 1, mdp.initial > 0)
    return evaluate_policy(mdp, policy), visited & ~mdp.terminal


class TD:
    """Tabular TD(0) and TD(λ) prediction for finite observations and Discrete actions."""

    @dataclass(frozen=True)
    class Config:
        policy: Literal["uniform", "optimal"] | tuple[int, ...] = "uniform"  # a name, or an action (from 0) per state
        alpha: UnitInterval = 0.1  # step size
        alpha_decay: NonNegative = 0.0  # the n-th visit of s uses alpha / n^alpha_decay
        trace_decay: UnitInterval = 0.0  # λ of eligibility traces; 0: TD(0)
        traces: Literal["accumulating", "replacing"] = "accumulating"  # what a second visit does to a trace
        initial_value: float = 0.0  # of every state
        log_every: PositiveInt = 1_000  # environment steps

    @classmethod
    def check(cls, config: Config, spaces: Spaces) -> None:
        check_finite(spaces.observation, spaces.action)
        policy = given_policy(config.policy, spaces)
        if spaces.mdp is not None and spaces.discount == 1.0:
            evaluate_policy(spaces.mdp.with_discount(1.0), policy)  # refuses a policy that may never end: it has no values

    def __init__(self, config: Config, spaces: Spaces, *, seed: int, encoder: Any = None, device: str = "cpu") -> None:
        self.config, self.spaces = config, spaces
        self.stream = Stream(spaces, seed=seed)
        self.policy = given_policy(config.policy, spaces)
        self._cumulative = np.cumsum(self.policy, axis=1)
        self._cumulative[:, -1] = 1.0  # whatever rounding has left
        self.v = np.full(len(self.policy), float(config.initial_value))
        self.visits = np.zeros(len(self.policy), np.int64)
        self.traces = no_traces(self.v.size if config.trace_decay > 0.0 else 0)
        self.predict_rng = generator(seed, "predict")
        self._exact: tuple[np.ndarray, np.ndarray] | None = None

    def action_probabilities(self, observation: Any, deterministic: bool = True, action_masks: Any = None) -> np.ndarray:
        """The given policy [B, A], whether `deterministic` or not; with masks, renormalised over the allowed actions."""
        probabilities = self.policy[self.stream.index(observation)]
        if action_masks is None:
            return probabilities
        uniform = epsilon_greedy_probabilities(probabilities, 1.0, action_masks)  # refuses masks that allow nothing
        allowed = np.where(uniform > 0.0, probabilities, 0.0)
        total = allowed.sum(axis=1, keepdims=True)
        return np.where(total > 0.0, allowed / np.where(total > 0.0, total, 1.0), uniform)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:  # fmt: skip
        probabilities = self.action_probabilities(observation, deterministic, action_masks)
        return sample_actions(probabilities, self.predict_rng) + self.stream.first_action, state

    def train(self, env: Any, num_steps: int) -> Iterator[tuple[int, Metrics]]:
        config, stream = self.config, self.stream
        rates = Rates(float(self.spaces.discount), config.alpha, config.alpha_decay, numbers(0.0, num_steps))
        kernel, tables = learn, (rates, self._cumulative, self.v, self.visits)  # type: Any, tuple
        if config.trace_decay > 0.0:
            kernel, tables = learn_traces, (*tables, self.traces, float(config.trace_decay), config.traces == "replacing")
        while stream.num_steps < num_steps:
            stream.advance(env, kernel, tables, min(config.log_every, num_steps - stream.num_steps))
            yield stream.num_steps, stream.metrics() | self._value_error()

    def _value_error(self) -> dict[str, float]:
        if self.spaces.mdp is None:
            return {}
        if self._exact is None:
            self._exact = exact_values(self.spaces.mdp.with_discount(self.spaces.discount), self.policy)
        values, visited = self._exact
        return {"train/value_rmse": float(np.sqrt(np.mean((self.v - values)[visited] ** 2)))}

    def state_dict(self) -> dict:
        return {
            "v": self.v,
            "visits": self.visits,
            "traces": trace_state(self.traces),
            "stream": self.stream.state_dict(),
            "predict_rng": generator_state(self.predict_rng),
        }

    def load_state_dict(self, state: dict) -> None:
        self.v[:], self.visits[:] = state["v"], state["visits"]
        restore_traces(self.traces, state["traces"])
        self.stream.load_state_dict(state["stream"])
        restore_generator(self.predict_rng, state["predict_rng"])
