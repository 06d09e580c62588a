"""γ = 1: which policies end with probability 1, so that their sums of rewards exist.

A policy ends from s with probability 1 if the end can be reached from every state that can be reached from s.
"""

from __future__ import annotations

import numpy as np

from mpagents.tabular.bellman import optimal_backups
from mpagents.tabular.compiled import jit
from mpagents.tabular.mdp import FiniteMDP
from mpagents.tabular.threads import Backups
from mpagents.tabular.transitions import reach


class ImproperPolicyError(ValueError):
    """At γ = 1, a policy that visits a state from which it may never end: its sum of rewards need not exist."""


@jit
def ways_out(row_start, successor, allowed, target):
    """Actions int64 [S] that lead towards `target` bool [S + 1] (S: the end), by fewest steps; −1 where none of `allowed` does.

    Breadth first from the target, backwards. In target states themselves: −1.
    """
    num_states, num_actions = allowed.shape
    start = np.zeros(num_states + 2, np.int64)
    for k in range(successor.size):
        start[successor[k] + 1] += 1
    start = np.cumsum(start)
    fill, row_of = start[:-1].copy(), np.empty(successor.size, np.int64)
    for row in range(num_states * num_actions):
        for k in range(row_start[row], row_start[row + 1]):
            row_of[fill[successor[k]]] = row
            fill[successor[k]] += 1
    actions, queue = np.full(num_states, -1), np.empty(num_states + 1, np.int64)
    found, head, tail = target.copy(), 0, 0
    for s in np.flatnonzero(target):
        queue[tail] = s
        tail += 1
    while head < tail:
        for k in range(start[queue[head]], start[queue[head] + 1]):
            s, a = divmod(row_of[k], num_actions)
            if not found[s] and allowed[s, a]:
                found[s], actions[s], queue[tail] = True, a, s
                tail += 1
        head += 1
    return actions


def to_the_end(backups: Backups, allowed: np.ndarray | None = None) -> np.ndarray:
    """Actions int64 [S], of `allowed` bool [S, A], that lead to the end by fewest transitions; −1 where none does."""
    num_states = backups.state_start.size - 1
    target = np.arange(num_states + 1) == num_states
    allowed = np.ones((num_states, backups.reward.size // num_states), np.bool_) if allowed is None else allowed
    return ways_out(backups.row_start, backups.successor, allowed, target)


def trapped_states(mdp: FiniteMDP, chain: Backups) -> np.ndarray:
    """bool [S]: states that may come to where there is no end. Raises where one of them is visited."""
    hopeless = to_the_end(chain) < 0
    if not hopeless.any():
        return hopeless
    visited = reach(chain.row_start.view(np.int64), chain.successor, chain.successor == mdp.num_states, 1, mdp.initial > 0)
    if (visited & hopeless).any():
        s = int(np.argmax(visited & hopeless))
        raise ImproperPolicyError(
            f"state {s}: at discount 1 the policy visits it and then never ends, so it has no value; expected a policy "
            "that ends with probability 1 (or a discount below 1)"
        )
    towards = ways_out(chain.row_start, chain.successor, np.ones((mdp.num_states, 1), np.bool_), np.append(hopeless, False))
    return hopeless | (towards >= 0)


def ending_greedy(mdp: FiniteMDP, q: np.ndarray, tolerance: float) -> np.ndarray:
    """Of the actions within `tolerance` of the best, those nearest to the end: a tie must not close a loop."""
    backups, best = optimal_backups(mdp), q.max(axis=1, keepdims=True)
    while True:
        policy = to_the_end(backups, allowed=q >= best - tolerance * np.maximum(1.0, np.abs(best)))
        if (policy >= 0).all():
            return policy
        tolerance *= 10


def ending_policy(backups: Backups) -> np.ndarray:
    policy = to_the_end(backups)
    if (policy < 0).any():
        s = int(np.argmax(policy < 0))
        raise ValueError(
            f"state {s}: no policy reaches an end from it, so at discount 1 it has no value; expected a discount below 1, "
            "or ends (`terminal`, or terminated transitions) within reach of every state"
        )
    return policy


def refuse_endless(chain: Backups) -> None:
    endless = to_the_end(chain) < 0
    if endless.any():
        s = int(np.argmax(endless))
        raise ValueError(
            f"state {s}: at discount 1 a loop earns reward forever, so there is no optimum; expected a discount below 1"
        )
