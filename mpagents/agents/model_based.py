"""Model-based learning (notes §10): count transitions, take relative frequencies for P and means for r, and plan in that model.

    P(s′ | s, a) ≈ n(s, a, s′) / n(s, a),    r(s, a) ≈ the mean of the rewards;    q = r + γ P max_a q

`planning` solves the learned model every `plan_every` steps by value or policy iteration, begun from the last solution; or it
is Dyna-Q (Sutton 1990): a Q-learning update for every real step, then `planning_steps` more with transitions drawn from the
model. The agent acts ε-greedily on q.

Pairs seen fewer than `known_after` times are believed as `unvisited` says. "optimistic" (R-max; Brafman and Tennenholtz 2002):
the best reward for ever, max(0, best reward)/(1 − γ), so that the agent goes there. "self_loop": stay, for nothing. Dyna-Q
never solves the model; there this is q's first value (by a `best_reward` that was named) and which pairs are drawn.

Deviations: the model is solved by sweeps in place until they change no value by ε(1−γ)/2γ, or 10,000 times, for a half-known
model at γ = 1 may have no solution: `planning/residual` tells. Dyna-Q draws successors as often as they were seen, the book's
(Sutton and Barto 2018, §8.2) being deterministic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mpagents.agents.agent import Metrics, Spaces
from mpagents.configuration import NonNegative, Positive, PositiveInt, UnitInterval
from mpagents.schedules import Schedule, scheduled
from mpagents.tabular.bellman import action_values, extended, gauss_seidel_backup, greedy_actions, optimal_backups
from mpagents.tabular.compiled import kernel
from mpagents.tabular.control import Control
from mpagents.tabular.counting import count_transition, counted_model, draw_counted, is_full, no_counts, widen
from mpagents.tabular.exploration import epsilon_greedy
from mpagents.tabular.mdp import FiniteMDP
from mpagents.tabular.policy_evaluation import ROUNDING, evaluate_policy
from mpagents.tabular.simulation import NOT_CHOSEN, begin, finish_step, take_step
from mpagents.tabular.states import check_finite
from mpagents.tabular.updates import q_learning_error, rates_of, step_size

MAX_SWEEPS = 10_000
BETTER = 1e-10  # relative to max(1, |q|): an action that leads by less doesn't change a policy, or ties would let it cycle


@kernel
def learn(world, walk, episodes, rng, rates, q, counts, num_steps):
    """Take `num_steps` environment steps and count; stops early, with True, where a list of successors is full."""
    for i in range(num_steps + 1):
        if walk.action == NOT_CHOSEN:
            s = begin(world, walk, rng)
            walk.action = epsilon_greedy(q, s, scheduled(rates.epsilon, walk.num_steps), rng)
            counts.starts[s] += 1
        if is_full(counts, walk.state, walk.action):
            return True
        if i == num_steps:
            break
        s, a = walk.state, walk.action
        reward, next_s, terminated, _ = take_step(world, walk, rng)
        count_transition(counts, s, a, reward, next_s, terminated)
        if not finish_step(walk, episodes):
            walk.action = epsilon_greedy(q, next_s, scheduled(rates.epsilon, walk.num_steps), rng)
    return False


@kernel
def learn_dyna(world, walk, episodes, rng, rates, q, counts, pairs, num_pairs, known_after, planning_steps, num_steps):
    """The same with Q-learning on real and remembered transitions; `pairs` [S·A] lists those that are known."""
    for i in range(num_steps + 1):
        if walk.action == NOT_CHOSEN:
            s = begin(world, walk, rng)
            walk.action = epsilon_greedy(q, s, scheduled(rates.epsilon, walk.num_steps), rng)
            counts.starts[s] += 1
        if is_full(counts, walk.state, walk.action):
            return True
        if i == num_steps:
            break
        s, a = walk.state, walk.action
        reward, next_s, terminated, _ = take_step(world, walk, rng)
        count_transition(counts, s, a, reward, next_s, terminated)
        if counts.visits[s, a] == known_after:
            pairs[num_pairs[0]] = s * world.num_actions + a
            num_pairs[0] += 1
        error = q_learning_error(q, s, a, reward, next_s, terminated, rates.discount)
        q[s, a] += step_size(rates, counts.visits[s, a]) * error
        for _ in range(planning_steps if num_pairs[0] > 0 else 0):
            pair = pairs[int(rng.random() * num_pairs[0])]
            ms, ma = pair // world.num_actions, pair % world.num_actions
            mean_reward, model_s, ends = draw_counted(counts, ms, ma, rng)
            error = q_learning_error(q, ms, ma, mean_reward, model_s, ends, rates.discount)
            q[ms, ma] += step_size(rates, counts.visits[ms, ma]) * error
        if not finish_step(walk, episodes):
            walk.action = epsilon_greedy(q, next_s, scheduled(rates.epsilon, walk.num_steps), rng)
    return False


def improve_by_sweeps(mdp: FiniteMDP, q: np.ndarray, epsilon: float) -> tuple[np.ndarray, int, float]:
    """Value iteration in place, from max_a q: (action values, sweeps, last change).

    At γ = 1 it begins with 0: there a self-loop keeps any value for ever.
    """
    discount, backups = mdp.discount, optimal_backups(mdp)
    v = extended(mdp, q.max(axis=1) if discount < 1.0 else np.zeros(mdp.num_states))
    sweeps, change = 0, np.inf
    while change * (2 * discount if discount < 1.0 else 1.0) >= epsilon * (1 - discount or 1.0) and sweeps < MAX_SWEEPS:
        low, high = gauss_seidel_backup(backups, discount, v)
        sweeps, change = sweeps + 1, max(high, -low)
        if sweeps % 64 == 0 and change <= ROUNDING * np.abs(v).max():
            break
    return action_values(mdp, v[:-1]), sweeps, float(change)


def improve_by_policies(mdp: FiniteMDP, q: np.ndarray) -> tuple[np.ndarray, int, float]:
    """Policy iteration from the greedy policy of q: (action values, improvements, last change of an action's value)."""
    policy, sweeps, better = greedy_actions(q), 0, np.True_
    while np.any(better) and sweeps < MAX_SWEEPS:
        q = action_values(mdp, evaluate_policy(mdp, policy))
        best, kept = q.max(axis=1), np.take_along_axis(q, policy[:, None], axis=1)[:, 0]
        better = best > kept + BETTER * np.maximum(1.0, np.abs(best))
        policy, sweeps = np.where(better, greedy_actions(q), policy), sweeps + 1
    return q, sweeps, float((best - kept).max())


class ModelBased:
    """Tabular learning of a model and planning in it, for finite observations and Discrete actions."""

    @dataclass(frozen=True)
    class Config:
        planning: Literal["value_iteration", "policy_iteration", "dyna"] = "value_iteration"
        plan_every: PositiveInt = 1_000  # environment steps between solutions of the model
        plan_epsilon: Positive = 1e-6  # value iteration: action values are within it of the model's optimum
        planning_steps: PositiveInt = 10  # Dyna-Q: updates from the model for each environment step
        unvisited: Literal["optimistic", "self_loop"] = "optimistic"  # what is believed of pairs that aren't known
        known_after: PositiveInt = 1  # visits
        best_reward: float | None = None  # of optimism; None: the largest seen so far
        alpha: UnitInterval = 0.1  # Dyna-Q's step size
        alpha_decay: NonNegative = 0.0  # Dyna-Q: after n visits of (s, a) it is alpha / n^alpha_decay
        epsilon: UnitInterval | Schedule = 0.1  # exploration: share of random actions
        log_every: PositiveInt = 1_000  # environment steps

    @classmethod
    def check(cls, config: Config, spaces: Spaces) -> None:
        check_finite(spaces.observation, spaces.action)
        if spaces.discount < 1.0:
            return
        if config.unvisited == "optimistic":
            raise ValueError(
                "unvisited is 'optimistic' at discount 1, where the best reward for ever is worth infinitely much; "
                "expected a discount below 1 (or use unvisited='self_loop')"
            )
        if config.planning == "policy_iteration":
            raise ValueError(
                "planning is 'policy_iteration' at discount 1, where a policy that never ends has no value, and a half-known "
                "model is full of them; expected a discount below 1 (or use planning='value_iteration' or 'dyna')"
            )

    def __init__(self, config: Config, spaces: Spaces, *, seed: int, encoder: Any = None, device: str = "cpu") -> None:
        self.config, self.spaces = config, spaces
        self.control = Control(spaces, seed=seed)
        self.stream, self.q, self.visits = self.control.stream, self.control.q, self.control.visits
        self.counts = no_counts(self.visits)
        self.q[:] = self._unknown_value() or 0.0
        self.pairs, self.num_pairs = np.zeros(self.q.size, np.int64), np.zeros(1, np.int64)
        self.sweeps, self.residual = 0, 0.0

    def _unknown_value(self) -> float | None:
        """What optimism believes; None for self-loops."""
        if self.config.unvisited == "self_loop":
            return None
        best = self.counts.best_reward[0] if self.config.best_reward is None else self.config.best_reward
        return max(0.0, float(best)) / (1.0 - self.spaces.discount)

    def model(self) -> FiniteMDP:
        """The learned MDP. Unknown pairs end the episode and pay what is believed of them, or are self-loops."""
        return counted_model(
            self.counts, discount=self.spaces.discount, known_after=self.config.known_after, unknown_value=self._unknown_value()
        )

    def action_probabilities(self, observation: Any, deterministic: bool = True, action_masks: Any = None) -> np.ndarray:
        """The greedy policy [B, A], uniform over ties; not `deterministic`: the ε-greedy one."""
        return self.control.action_probabilities(observation, deterministic, action_masks)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:  # fmt: skip
        return self.control.predict(observation, deterministic, action_masks), state

    def train(self, env: Any, num_steps: int) -> Iterator[tuple[int, Metrics]]:
        config, stream = self.config, self.stream
        rates = rates_of(config, self.spaces.discount, num_steps)
        plans = config.planning != "dyna"
        while stream.num_steps < num_steps:
            until = min(num_steps, *(after(stream.num_steps, every) for every in (config.log_every, config.plan_every)))
            self._experience(env, rates, until)
            if plans and (until % config.plan_every == 0 or until == num_steps):
                self._plan()
            if until % config.log_every == 0 or until == num_steps:
                steps, metrics = self.control.report(rates.epsilon)
                yield steps, metrics | self._metrics(plans)

    def _experience(self, env: Any, rates: Any, until: int) -> None:
        kernel: Any = learn
        more: tuple = ()
        if self.config.planning == "dyna":
            kernel, more = learn_dyna, (self.pairs, self.num_pairs, self.config.known_after, self.config.planning_steps)
        while self.stream.num_steps < until:
            self.stream.advance(env, kernel, (rates, self.q, self.counts, *more), until - self.stream.num_steps)
            if is_full(self.counts, self.stream.walk.state, self.stream.walk.action):
                self.counts = widen(self.counts)

    def _plan(self) -> None:
        if self.config.planning == "policy_iteration":
            self.q[:], sweeps, self.residual = improve_by_policies(self.model(), self.q)
        else:
            self.q[:], sweeps, self.residual = improve_by_sweeps(self.model(), self.q, self.config.plan_epsilon)
        self.sweeps += sweeps

    def _metrics(self, plans: bool) -> dict[str, float]:
        known = {"train/known_pairs": int((self.visits >= self.config.known_after).sum())}
        return known | ({"planning/sweeps": self.sweeps, "planning/residual": self.residual} if plans else {})

    def state_dict(self) -> dict:
        own = {"pairs": self.pairs[: self.num_pairs[0]].copy(), "sweeps": self.sweeps, "residual": self.residual}
        return self.control.state_dict() | own | {"counts": self.counts._asdict()}

    def load_state_dict(self, state: dict) -> None:
        self.control.load_state_dict(state)
        copies = {name: np.array(values) for name, values in state["counts"].items()}
        self.counts = self.counts._replace(**(copies | {"visits": self.visits}))
        self.num_pairs[0] = len(state["pairs"])
        self.pairs[: self.num_pairs[0]] = state["pairs"]
        self.sweeps, self.residual = state["sweeps"], state["residual"]


def after(step: int, every: int) -> int:
    """The next multiple of `every`."""
    return (step // every + 1) * every
