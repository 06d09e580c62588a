"""ε-greedy actions for a vector of environments: a pure function, randomness passed in."""

from __future__ import annotations

import numpy as np


def greedy(q: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """argmax_a Q(s, a) over allowed actions, int64 [n]; a mask [n, A] that forbids everything allows everything."""
    return (q if mask is None else np.where(_usable(mask), q, -np.inf)).argmax(axis=1)


def random_action(noise: np.ndarray, num_actions: int, mask: np.ndarray | None = None) -> np.ndarray:
    """Uniform over allowed actions, int64 [n], from numbers `noise` [n] uniform in [0, 1)."""
    if mask is None:
        return (noise * num_actions).astype(np.int64)
    rank = np.cumsum(_usable(mask), axis=1)
    return (rank > (noise * rank[:, -1]).astype(np.int64)[:, None]).argmax(axis=1)


def epsilon_greedy(
    q: np.ndarray | None, epsilon: float, noise: np.ndarray, num_actions: int, mask: np.ndarray | None = None
) -> np.ndarray:
    """Actions int64 [n]: each environment explores where its own noise[0] [n] is below ε, by noise[1] [n].

    `q` [n, A] may be None where every environment explores.
    """
    explores = noise[0] < epsilon
    drawn = random_action(noise[1], num_actions, mask)
    return drawn if q is None else np.where(explores, drawn, greedy(q, mask))


def epsilon_greedy_probabilities(q: np.ndarray, epsilon: float, mask: np.ndarray | None = None) -> np.ndarray:
    """π(a | s) of the ε-greedy policy, [n, A]; ε = 0 is the greedy one, the first action where several are best."""
    usable = np.ones_like(q, np.bool_) if mask is None else _usable(mask)
    return (1 - epsilon) * np.eye(q.shape[1])[greedy(q, mask)] + epsilon * usable / usable.sum(axis=1, keepdims=True)


def _usable(mask: np.ndarray) -> np.ndarray:
    return mask | ~mask.any(axis=1, keepdims=True)
