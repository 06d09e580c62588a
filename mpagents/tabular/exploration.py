"""Choosing actions: ε-greedy with ties broken at random, in compiled learners and for batches of observations."""

from __future__ import annotations

import numpy as np

from mpagents.tabular.compiled import kernel

TIE = 1e-12  # relative to the largest value: action values this near each other are equal


@kernel
def largest_value(q, s):
    """max_a q(s, a) of a table [S, A]."""
    best = q[s, 0]
    for a in range(1, q.shape[1]):
        best = max(best, q[s, a])
    return best


@kernel
def greedy_action(q, s, rng):
    """argmax_a q(s, a), drawn uniformly among ties (reservoir sampling; no draw where there is one maximum)."""
    best, best_value, ties = 0, q[s, 0], 1
    for a in range(1, q.shape[1]):
        value = q[s, a]
        if value > best_value:
            best, best_value, ties = a, value, 1
        elif value == best_value:
            ties += 1
            if rng.random() * ties < 1.0:
                best = a
    return best


@kernel
def epsilon_greedy(q, s, epsilon, rng):
    """A uniformly random action with probability ε, else a greedy one."""
    if epsilon > 0.0:
        u = rng.random()
        if u < epsilon:
            return int(u / epsilon * q.shape[1])  # given u < ε, u/ε is uniform
    return greedy_action(q, s, rng)


@kernel
def epsilon_greedy_value(q, s, epsilon):
    """Σ_a π(a | s) q(s, a) under the ε-greedy policy: (1 − ε) max q + ε mean q (ties don't matter)."""
    total = 0.0
    for a in range(q.shape[1]):
        total += q[s, a]
    return (1.0 - epsilon) * largest_value(q, s) + epsilon * total / q.shape[1]


def greedy_probabilities(values: np.ndarray) -> np.ndarray:
    """Greedy policy [B, A] over action values [B, A], uniform over ties."""
    best = values.max(axis=1, keepdims=True)
    ties = values >= best - TIE * np.maximum(1.0, np.abs(best))  # -inf (a masked action) ties with nothing finite
    return ties / ties.sum(axis=1, keepdims=True)


def epsilon_greedy_probabilities(values: np.ndarray, epsilon: float, action_masks=None) -> np.ndarray:
    """ε-greedy policy [B, A] over action values [B, A], among the actions that `action_masks` [B, A] allows.

    Raises ValueError where a mask allows no action.
    """
    if action_masks is None:
        return (1.0 - epsilon) * greedy_probabilities(values) + epsilon / values.shape[1]
    allowed = np.asarray(action_masks, np.bool_).reshape(values.shape)
    if not allowed.any(axis=1).all():
        raise ValueError(f"the action mask of row {int(np.argmin(allowed.any(axis=1)))} allows no action")
    greedy = greedy_probabilities(np.where(allowed, values, -np.inf))
    return (1.0 - epsilon) * greedy + epsilon * allowed / allowed.sum(axis=1, keepdims=True)


def sample_actions(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One action, int64 [B], from each row of `probabilities` [B, A]."""
    cumulative = np.cumsum(probabilities, axis=1)
    u = rng.random(len(probabilities)) * cumulative[:, -1]
    return (cumulative > u[:, None]).argmax(axis=1)
