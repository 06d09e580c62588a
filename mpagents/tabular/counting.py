"""A model learned by counting: how often each successor followed a pair, and what was paid (notes §10, model-based learning).

The successors of (s, a) are kept as a list of at most K, not as a row over all states, so that 10⁵ states fit. A transition
that terminates is a successor of its own, coded by s′ + S. A kernel that finds a list full stops before it takes the step, and
Python doubles K (`widen`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mpagents.tabular.compiled import kernel
from mpagents.tabular.mdp import FiniteMDP


class Counts(NamedTuple):
    """What has been seen. A pair's first `width` entries along K are in use."""

    visits: np.ndarray  # int64 [S, A]
    width: np.ndarray  # int32 [S, A], different successors
    code: np.ndarray  # int32 [S, A, K]: s′, or s′ + S where the transition terminated
    seen: np.ndarray  # int64 [S, A, K], times
    paid: np.ndarray  # float64 [S, A, K], the sum of rewards
    starts: np.ndarray  # int64 [S], episodes begun
    best_reward: np.ndarray  # float64 [1], the largest seen; -inf before


def no_counts(visits: np.ndarray, num_successors: int = 4) -> Counts:
    """Nothing seen yet; `visits` [S, A] is shared."""
    lists = (*visits.shape, num_successors)
    empty = np.zeros(lists, np.int32), np.zeros(lists, np.int64), np.zeros(lists)
    return Counts(visits, np.zeros(visits.shape, np.int32), *empty, np.zeros(len(visits), np.int64), np.full(1, -np.inf))


def widen(counts: Counts) -> Counts:
    """The same counts with room for twice as many successors."""
    lists = {name: getattr(counts, name) for name in ("code", "seen", "paid")}
    return counts._replace(**{name: np.concatenate([old, np.zeros_like(old)], axis=2) for name, old in lists.items()})


@kernel
def is_full(counts, s, a):
    """Whether a new successor of the pair might find no room."""
    return counts.width[s, a] == counts.code.shape[2]


@kernel
def count_transition(counts, s, a, reward, next_s, terminated):
    """Note one transition of a pair that isn't full."""
    code = next_s + counts.visits.shape[0] if terminated else next_s
    k = 0
    while k < counts.width[s, a] and counts.code[s, a, k] != code:
        k += 1
    if k == counts.width[s, a]:
        counts.code[s, a, k] = code
        counts.width[s, a] += 1
    counts.seen[s, a, k] += 1
    counts.paid[s, a, k] += reward
    counts.visits[s, a] += 1
    counts.best_reward[0] = max(counts.best_reward[0], reward)


@kernel
def draw_counted(counts, s, a, rng):
    """(mean reward, s′, terminated) of a successor of a visited pair, as often as it was seen."""
    left = int(rng.random() * counts.visits[s, a])
    k = 0
    while counts.seen[s, a, k] <= left:
        left -= counts.seen[s, a, k]
        k += 1
    code, num_states = counts.code[s, a, k], counts.visits.shape[0]
    terminated = code >= num_states
    return counts.paid[s, a, k] / counts.seen[s, a, k], code - num_states if terminated else code, terminated


def counted_model(counts: Counts, *, discount: float, known_after: int, unknown_value: float | None) -> FiniteMDP:
    """The MDP of relative frequencies. Pairs seen fewer than `known_after` times end the episode and pay `unknown_value`, or
    (None) stay where they are and pay nothing. The first state is distributed as it was; uniformly before the first episode.

    Built without `FiniteMDP.from_transitions`, which would take a state for terminal if no known pair leads there: terminal are
    states that ended an episode and in which nothing was ever done.
    """
    num_states, num_actions, num_successors = counts.code.shape
    known = counts.visits >= known_after
    used = np.arange(num_successors) < counts.width[:, :, None]
    ended = np.zeros(num_states, np.bool_)
    ended[counts.code[used & (counts.code >= num_states)] - num_states] = True
    terminal = ended & ~counts.visits.any(axis=1)
    used &= known[:, :, None]
    used[:, :, 0] |= ~known  # one entry stands for what is believed
    s, a, k = np.nonzero(used)
    believed, code, over = ~known[s, a], counts.code[s, a, k], terminal[s]
    count = np.where(believed, 1, counts.seen[s, a, k])
    reward = np.where(believed, unknown_value or 0.0, counts.paid[s, a, k] / count)
    starts = counts.starts if counts.starts.any() else np.ones(num_states)
    return FiniteMDP(
        num_states,
        num_actions,
        row_start=np.concatenate([[0], np.cumsum(used.sum(axis=2).ravel())]),
        next_state=np.where(believed, s, code % num_states).astype(np.int32),
        probability=count / np.where(believed, 1, counts.visits[s, a]),
        reward=np.where(over, 0.0, reward),
        terminated=np.where(believed, unknown_value is not None, code >= num_states) | over,
        initial=starts / starts.sum(),
        terminal=terminal,
        discount=float(discount),
    )
