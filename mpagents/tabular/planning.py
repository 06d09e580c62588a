"""Planners: value iteration, policy iteration, modified policy iteration, backward induction (notes §10, Algorithms 4 and 5).

Each iterative planner is a generator of `Sweep`s (for agents that log progress) and a function that runs it to a `Solution`:

    for sweep in value_iteration_sweeps(mdp): …        solution = value_iteration(mdp)

Deviations from the notes. Algorithm 4 stops at ‖v_t − v_{t−1}‖ ≤ ε; ours at < ε(1−γ)/2γ, which guarantees ‖v − v*‖ < ε/2 and
an ε-optimal greedy policy (Puterman 1994, Theorem 6.3.1). Algorithm 5 stops by values; ours when no action is better than the
policy's by a tolerance, for ties would let it cycle. Modified policy iteration stops by the span of a sweep's changes
(MacQueen's bounds; Puterman §6.6). Where ε lies below what float64 resolves, planners stop at its noise, and `bound` says so.

γ = 1. v* is the best value of policies that end with probability 1; where from some state none does, ValueError. Planners start
from a policy that ends, with Tv ≥ v, and climb: zero-reward loops can neither hold them nor be mistaken for an optimum. No
contraction bounds the error, so `bound` is inf, and sweeps stop when values change by less than ε. A loop that earns reward
forever is refused when policy iteration steps into it, and by the other planners after `max_sweeps`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from mpagents.tabular.bellman import (
    action_values,
    gauss_seidel_backup,
    greedy_actions,
    optimal_backup,
    optimal_backups,
    policy_backups,
    revise,
    without_beaten,
)
from mpagents.tabular.endings import ending_greedy, ending_policy, refuse_endless, to_the_end
from mpagents.tabular.mdp import FiniteMDP
from mpagents.tabular.policy_evaluation import EXACT_STATES, ROUNDING, chain_values, evaluate_policy, sweep_limit
from mpagents.tabular.threads import Backups, over_states

SETTLED = 0.03  # of an improvement's span
RESOLUTION = 1e-12  # of the largest optimal value: differences that rounding makes


@dataclass(frozen=True)
class Solution:
    values: np.ndarray  # float64 [S]
    policy: np.ndarray  # int64 [S]; at γ = 1 it ends with probability 1
    action_values: np.ndarray  # float64 [S, A], one backup of `values`
    sweeps: int  # backups of all states; policy iteration: improvements (its exact evaluations aren't sweeps)
    bound: float  # guaranteed ‖values − v*‖∞; inf at γ = 1
    history: np.ndarray  # float64: the residual of every yield


class Sweep(NamedTuple):
    number: int  # sweeps so far
    values: np.ndarray  # float64 [S], a view that the next sweep overwrites
    policy: np.ndarray | None  # int64 [S], where the planner keeps one
    residual: float  # largest change of a value in the last optimal backup; modified policy iteration: their span
    bound: float  # guaranteed ‖values − v*‖∞; inf at γ = 1


def value_iteration_sweeps(
    mdp: FiniteMDP, *, epsilon: float = 1e-6, gauss_seidel: bool = False, max_sweeps: int | None = None
) -> Iterator[Sweep]:
    """v ← Tv until ‖Tv − v‖∞ < ε(1−γ)/2γ (at γ = 1: < ε). `max_sweeps`: None for what contraction needs; 100,000 at γ = 1.

    After 16, 32, 64, … sweeps, actions that can never lead again are dropped, which leaves all values as they are: if the last
    changes lie in [low, high], the next lie in γ[low, high], so no action gains more on another than γ(high − low)/(1 − γ).
    (MacQueen 1967.)
    """
    discount, backups = mdp.discount, optimal_backups(mdp)
    v = _first_values(mdp, backups)
    out, unused = np.zeros_like(v), np.empty(mdp.num_states, np.int64)
    limit, ends = sweep_limit(discount, max_sweeps), bool(mdp.terminated.any())  # the end is a state whose change is 0
    for number in range(1, limit + 1):
        if gauss_seidel:
            low, high = gauss_seidel_backup(backups, discount, v)
        else:
            low, high = over_states(optimal_backup, backups, discount, v, out, unused)
            v, out = out, v
        residual = max(high, -low)
        yield Sweep(number, v[:-1], None, residual, _bound(discount, residual))
        if residual * (1.0 if discount == 1.0 else 2 * discount) < epsilon * _slack(discount) or _is_noise(number, residual, v):
            return
        if not gauss_seidel and discount < 1.0 and number >= 16 and number & (number - 1) == 0:
            gain = discount / (1 - discount) * (max(high, 0.0) - min(low, 0.0) if ends else high - low)
            backups = without_beaten(backups, discount, v, gain + 1e-9 * (1.0 + float(np.abs(v).max())))
    raise _unsettled(limit, residual, mdp)


def value_iteration(
    mdp: FiniteMDP, *, epsilon: float = 1e-6, gauss_seidel: bool = False, max_sweeps: int | None = None
) -> Solution:
    """v* within ε/2 and an ε-optimal greedy policy. Raises ValueError where γ = 1 and there is no such thing."""
    return _solution(mdp, value_iteration_sweeps(mdp, epsilon=epsilon, gauss_seidel=gauss_seidel, max_sweeps=max_sweeps))


def policy_iteration_sweeps(
    mdp: FiniteMDP, *, evaluation: Literal["exact", "iterative"] = "exact", tolerance: float = 1e-10, max_sweeps: int = 10_000
) -> Iterator[Sweep]:
    """Evaluate the policy, then change actions that others beat by `tolerance` · max(1, |q|), until there are none."""
    discount, backups = mdp.discount, optimal_backups(mdp)
    policy = ending_policy(backups) if discount == 1.0 else greedy_actions(mdp.expected_reward)
    for number in range(1, max_sweeps + 1):
        chain = policy_backups(mdp, policy)
        if discount == 1.0:
            refuse_endless(chain)
        values = np.where(mdp.terminal, 0.0, chain_values(chain, discount, evaluation, epsilon=tolerance / 10))
        q = action_values(mdp, values)
        best = q.max(axis=1)
        residual = float(np.abs(best - values).max())
        kept = np.take_along_axis(q, policy[:, None], axis=1)[:, 0]
        better = best > kept + tolerance * np.maximum(1.0, np.abs(best))
        bound = np.inf if discount == 1.0 else residual / (1 - discount)  # ‖v − v*‖ ≤ ‖v − Tv‖ + γ‖v − v*‖
        yield Sweep(number, values, policy, residual, bound)
        if not better.any():
            return
        policy = np.where(better, greedy_actions(q), policy)
    raise _unsettled(max_sweeps, residual, mdp)


def policy_iteration(
    mdp: FiniteMDP, *, evaluation: Literal["exact", "iterative"] = "exact", tolerance: float = 1e-10, max_sweeps: int = 10_000
) -> Solution:
    """v* and an optimal policy. Raises ValueError where γ = 1 and there is no such thing."""
    return _solution(mdp, policy_iteration_sweeps(mdp, evaluation=evaluation, tolerance=tolerance, max_sweeps=max_sweeps))


def modified_policy_iteration_sweeps(
    mdp: FiniteMDP, *, epsilon: float = 1e-6, evaluation_sweeps: int = 20, max_sweeps: int | None = None
) -> Iterator[Sweep]:
    """v ← T_π^m Tv with π greedy for v, until MacQueen's bounds Tv + γ/(1−γ)·[min, max](Tv − v) around v* are ε apart.

    Yields after each improvement; the last values are the middle of the bounds. `evaluation_sweeps` is the most: an evaluation
    ends once its own changes span 3 % of the improvement's, for more would be spent on a policy that is about to change. With 0
    this is value iteration that stops by span.
    """
    discount, backups = mdp.discount, optimal_backups(mdp)
    v = _first_values(mdp, backups)
    out, policy, unused = np.zeros_like(v), np.empty(mdp.num_states, np.int64), np.empty(mdp.num_states, np.int64)
    ends, chain, followed = bool(mdp.terminated.any()), None, policy
    limit, number, improvements = sweep_limit(discount, max_sweeps), 0, 0
    while number < limit:
        low, high = over_states(optimal_backup, backups, discount, v, out, policy)
        v, out, number, improvements = out, v, number + 1, improvements + 1
        low, high = (min(low, 0.0), max(high, 0.0)) if ends else (low, high)
        residual = max(high, -low) if discount == 1.0 else high - low
        if residual * discount < epsilon * _slack(discount) or _is_noise(improvements, residual, v):
            if discount < 1.0:
                v[:-1] = np.where(mdp.terminal, 0.0, v[:-1] + discount / (1 - discount) * (low + high) / 2)
            yield Sweep(number, v[:-1], policy, residual, _bound(discount, residual / 2))
            return
        yield Sweep(number, v[:-1], policy, residual, _bound(discount, max(high, -low)))
        if chain is None or over_states(revise, backups, followed, policy, chain)[0] < 0:
            chain = policy_backups(mdp, policy)
        followed, spread = policy.copy(), high - low
        for _ in range(evaluation_sweeps):
            low, high = over_states(optimal_backup, chain, discount, v, out, unused)
            v, out, number = out, v, number + 1
            low, high = (min(low, 0.0), max(high, 0.0)) if ends else (low, high)
            if high - low < SETTLED * spread or (high - low) * discount < 0.5 * epsilon * _slack(discount):
                break
    raise _unsettled(limit, residual, mdp)


def modified_policy_iteration(
    mdp: FiniteMDP, *, epsilon: float = 1e-6, evaluation_sweeps: int = 20, max_sweeps: int | None = None
) -> Solution:
    """v* within ε/2 and an ε-optimal policy. Raises ValueError where γ = 1 and there is no such thing."""
    sweeps = modified_policy_iteration_sweeps(mdp, epsilon=epsilon, evaluation_sweeps=evaluation_sweeps, max_sweeps=max_sweeps)
    return _solution(mdp, sweeps)


def backward_induction(mdp: FiniteMDP, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Optimal values float64 [H + 1, S] and policy int64 [H, S] at time t, when the episode is cut at time H."""
    backups = optimal_backups(mdp)
    values, policy = np.zeros((horizon + 1, mdp.num_states + 1)), np.empty((horizon, mdp.num_states), np.int64)
    for t in reversed(range(horizon)):
        over_states(optimal_backup, backups, mdp.discount, values[t + 1], values[t], policy[t])
    return values[:, :-1], policy


_OPTIMAL: WeakKeyDictionary[FiniteMDP, np.ndarray] = WeakKeyDictionary()


def optimal_values(mdp: FiniteMDP) -> np.ndarray:
    """v* [S], read-only, kept as long as `mdp` lives: exact up to 1,000 states or at γ = 1, else within 1e-9 (or rounding)."""
    if mdp not in _OPTIMAL:
        exact = mdp.num_states <= EXACT_STATES or mdp.discount == 1.0
        values = (policy_iteration(mdp) if exact else modified_policy_iteration(mdp, epsilon=2e-9)).values
        values.setflags(write=False)
        _OPTIMAL[mdp] = values
    return _OPTIMAL[mdp]


def regret(mdp: FiniteMDP, policy) -> float:
    """Σ_s initial(s) (v*(s) − v^π(s)), 0 where float64 can't tell. Raises ImproperPolicyError: γ = 1, and it may never end."""
    starts = mdp.initial > 0
    best = optimal_values(mdp)[starts]
    lost = float(mdp.initial[starts] @ (best - evaluate_policy(mdp, policy)[starts]))
    return 0.0 if abs(lost) < RESOLUTION * (1.0 + float(np.abs(best).max())) else lost


def _solution(mdp: FiniteMDP, sweeps: Iterator[Sweep]) -> Solution:
    history = []
    for sweep in sweeps:
        history.append(sweep.residual)
    values = sweep.values.copy()
    q = action_values(mdp, values)
    policy = sweep.policy
    if mdp.discount == 1.0 and (policy is None or (to_the_end(policy_backups(mdp, policy)) < 0).any()):
        policy = ending_greedy(mdp, q, tolerance=max(1e-10, 10 * sweep.residual))
    elif policy is None:
        policy = greedy_actions(q)
    return Solution(values, policy, q, sweep.number, sweep.bound, np.array(history))


def _first_values(mdp: FiniteMDP, backups: Backups) -> np.ndarray:
    """0 [S + 1]; at γ = 1 the values of a policy that ends."""
    if mdp.discount < 1.0:
        return np.zeros(mdp.num_states + 1)
    values = chain_values(policy_backups(mdp, ending_policy(backups)), 1.0)
    return np.append(np.where(mdp.terminal, 0.0, values), 0.0)


def _bound(discount: float, residual: float) -> float:
    return np.inf if discount == 1.0 else discount / (1 - discount) * residual


def _slack(discount: float) -> float:
    return 1.0 if discount == 1.0 else 1 - discount


def _is_noise(sweep: int, residual: float, v: np.ndarray) -> bool:
    """Whether a sweep's changes are rounding errors; looked at now and then."""
    return sweep % 64 == 0 and bool(residual <= ROUNDING * np.abs(v).max())


def _unsettled(sweeps: int, residual: float, mdp: FiniteMDP) -> ValueError:
    cause = "; at discount 1 a loop may earn reward forever (expected a discount below 1)" if mdp.discount == 1.0 else ""
    return ValueError(f"values still change by {residual:.3g} after {sweeps} sweeps{cause}; raise max_sweeps or epsilon")
