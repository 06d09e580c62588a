"""What a policy is worth: v^π, the solution of (I − γ P_π) v = r_π (notes §10, the Bellman consistency equation).

Exact: a sparse LU. Iterative: v ← T_π v until MacQueen's bounds, which enclose v^π by the least and the largest change of a
sweep, are `epsilon` apart on either side (MacQueen 1966; Puterman 1994, §6.6).

At γ = 1 the sum of rewards is only sure to exist if the policy ends with probability 1. This is asked of the states that are
visited from the initial distribution under the policy: those tell what an agent earns. Other states from which it may never
end have no value: nan.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve

from mpagents.tabular.bellman import optimal_backup, policy_backups
from mpagents.tabular.compiled import jit
from mpagents.tabular.endings import trapped_states
from mpagents.tabular.mdp import FiniteMDP
from mpagents.tabular.threads import Backups, over_states

EXACT_STATES = 1_000  # above, the LU of a random graph fills in (9 s at 5,000 states, where sweeps to 1e-10 take 3 ms)
EXACT_STATES_UNDISCOUNTED = 100_000  # sweeps at γ = 1 may need ages, and bound nothing
ROUNDING = 16 * np.finfo(np.float64).eps  # a sweep's changes, relative to the values, below which float64 sees noise


@jit
def _linear_system(backups, discount):
    """I − γP in compressed rows, the diagonal first in each."""
    _, row_start, successor, probability, reward = backups
    num_states = reward.size
    start, end = np.zeros(num_states + 1, np.int32), 0
    columns, entries = np.empty(num_states + successor.size, np.int32), np.empty(num_states + successor.size)
    for s in range(num_states):
        diagonal, end = end, end + 1
        columns[diagonal], entries[diagonal] = s, 1.0
        for k in range(row_start[s], row_start[s + 1]):
            if successor[k] == s:
                entries[diagonal] -= discount * probability[k]
            elif successor[k] < num_states:
                columns[end], entries[end] = successor[k], -discount * probability[k]
                end += 1
        start[s + 1] = end
    return start, columns[:end], entries[:end]


def evaluate_policy(
    mdp: FiniteMDP, policy, *, method: Literal["exact", "iterative"] = "exact", epsilon: float = 1e-10
) -> np.ndarray:
    """v^π, float64 [S]. `exact` iterates too above 1,000 states (100,000 at γ = 1).

    An iteration gives ‖v − v^π‖ ≤ epsilon, or what float64 resolves, where γ < 1. At γ = 1 it stops when a sweep changes
    nothing by more than `epsilon`, which bounds no error.
    Raises ImproperPolicyError at γ = 1 where a state visited from the initial distribution may never end.
    """
    if method not in ("exact", "iterative"):
        raise ValueError(f"unknown method {method!r}; expected 'exact' or 'iterative'")
    chain = policy_backups(mdp, policy)
    if mdp.discount < 1.0:
        return np.where(mdp.terminal, 0.0, chain_values(chain, mdp.discount, method, epsilon))
    trapped = trapped_states(mdp, chain)
    if not trapped.any():
        return chain_values(chain, 1.0, method, epsilon)
    counts: np.ndarray = np.diff(chain.row_start.view(np.int64))
    probability = np.where(np.repeat(trapped, counts), 0.0, chain.probability)
    values = chain_values(chain._replace(probability=probability), 1.0, method, epsilon)
    return np.where(trapped, np.nan, values)


def chain_values(chain: Backups, discount: float, method: str = "exact", epsilon: float = 1e-10) -> np.ndarray:
    """The solution v [S] of v = r + γPv for a process with one action; at γ = 1 it must end from every state."""
    num_states = chain.reward.size
    if method == "exact" and num_states <= (EXACT_STATES if discount < 1.0 else EXACT_STATES_UNDISCOUNTED):
        start, columns, entries = _linear_system(chain, discount)
        matrix = sp.csr_array((entries, columns, start), shape=(num_states, num_states))
        return np.atleast_1d(spsolve(matrix, chain.reward))
    return _iterated_values(chain, discount, epsilon)


def sweep_limit(discount: float, max_sweeps: int | None) -> int:
    """Sweeps after which we give up: by contraction γ^n < e⁻⁶⁰ of the first error is left; at γ = 1 nothing is promised."""
    if max_sweeps is not None:
        if max_sweeps < 1:
            raise ValueError(f"max_sweeps is {max_sweeps}; expected 1 or more")
        return max_sweeps
    return 100_000 if discount == 1.0 else 1_000 + int(60 / (1 - discount))


def _iterated_values(chain: Backups, discount: float, epsilon: float) -> np.ndarray:
    num_states = chain.reward.size
    ends = bool((chain.successor == num_states).any())
    v, out, actions = np.zeros(num_states + 1), np.zeros(num_states + 1), np.empty(num_states, np.int64)
    for sweep in range(1, sweep_limit(discount, None) + 1):
        low, high = over_states(optimal_backup, chain, discount, v, out, actions)
        v, out = out, v
        if ends:
            low, high = min(low, 0.0), max(high, 0.0)  # the end is a state too, and its value never changes
        noise = ROUNDING * np.abs(v).max() if sweep % 64 == 0 else 0.0
        if discount == 1.0 and max(high, -low) <= max(epsilon, noise):
            return v[:-1]
        if discount < 1.0 and (discount * (high - low) / 2 <= epsilon * (1 - discount) or high - low <= noise):
            return v[:-1] + discount / (1 - discount) * (low + high) / 2
    raise ValueError(f"policy evaluation didn't settle within {sweep} sweeps: ends are too rare; try method='exact'")
