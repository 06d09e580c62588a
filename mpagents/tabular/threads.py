"""Kernels over the states of a finite MDP, on as many threads as the work is worth.

From half a million transitions up, a sweep is cut into ranges of states, one a thread. Every state is computed by the same
machine code either way, and what is joined are minima and maxima: results are equal to the bit for any number of threads.

These are Python threads that release the lock, not `numba.prange`: the spinning threads of OpenMP were seen to share one core
while the other idled (8 ms for a sweep of 3.2 million transitions instead of 3), a process that has used them can't fork, and
every kernel would be compiled twice.
"""

from __future__ import annotations

import functools
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numba.core import config as numba_config

TRANSITIONS_PER_THREAD = 250_000


class Backups(NamedTuple):
    """What a backup reads: state s has the rows `state_start[s] : state_start[s + 1]`, one for each action it may still take.

    The transitions of a row are `row_start[row] : row_start[row + 1]`.
    """

    state_start: np.ndarray  # int64 [S + 1]
    row_start: np.ndarray  # uint64 [R + 1]; unsigned, as successors, for then no index can be negative: 30 % less time
    successor: np.ndarray  # uint32 [N], S where the episode ends
    probability: np.ndarray  # float64 [N]
    reward: np.ndarray  # float64 [R], expected


@functools.cache
def _pool(process: int, num_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads, thread_name_prefix=f"bellman-{process}")


def num_threads(backups: Backups) -> int:
    """One thread per quarter of a million transitions, up to NUMBA_NUM_THREADS (by default the cores this process may use)."""
    return max(1, min(numba_config.NUMBA_NUM_THREADS, backups.successor.size // TRANSITIONS_PER_THREAD))


def over_states(kernel, backups: Backups, *arguments: Any) -> tuple[float, float]:
    """Run a kernel over all states and join its (minimum, maximum)."""
    num_states, threads = backups.state_start.size - 1, num_threads(backups)
    if threads == 1:
        return kernel(backups, *arguments, 0, num_states)
    edges = np.linspace(0, num_states, threads + 1).astype(int).tolist()
    pool = _pool(os.getpid(), threads - 1)  # by process, for a fork takes no threads along
    futures = [pool.submit(kernel, backups, *arguments, *edge) for edge in itertools.pairwise(edges[1:])]
    own = kernel(backups, *arguments, *edges[:2])
    lows, highs = zip(own, *(future.result() for future in futures))
    return min(lows), max(highs)
