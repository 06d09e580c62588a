"""Transitions as flat arrays: checked, merged and normalised, and the states that they lead to.

Those of the pair (s, a) are the entries `row_start[s·A + a] : row_start[s·A + a + 1]` of the others, N in all.
"""

from __future__ import annotations

import numpy as np

from mpagents.tabular.compiled import jit

ROW_SUM_TOLERANCE = 1e-8  # rows within it are renormalised, others are refused


@jit
def merge_duplicates(row_start, next_state, probability, reward, terminated):
    """Merge equal (s, a, s′, terminated) entries in place: p adds up, r is the p-weighted mean; returns new row starts."""
    new_start = np.zeros_like(row_start)
    end = 0
    for row in range(row_start.size - 1):
        first = end
        for k in range(row_start[row], row_start[row + 1]):
            if probability[k] == 0.0:
                continue
            j = first
            while j < end and not (next_state[j] == next_state[k] and terminated[j] == terminated[k]):
                j += 1
            if j < end:
                total = probability[j] + probability[k]
                reward[j] = (probability[j] * reward[j] + probability[k] * reward[k]) / total
                probability[j] = total
            else:
                next_state[end], probability[end] = next_state[k], probability[k]
                reward[end], terminated[end] = reward[k], terminated[k]
                end += 1
        new_start[row + 1] = end
    return new_start


@jit
def reach(row_start, next_state, terminated, num_actions, start):
    """Mark the states that can be reached from `start` [S] by transitions that don't terminate."""
    reached = start.copy()
    stack = np.flatnonzero(start)
    stack = np.concatenate((stack, np.zeros(start.size - stack.size, stack.dtype)))
    top = int(np.sum(start))
    while top > 0:
        top -= 1
        s = stack[top]
        for k in range(row_start[s * num_actions], row_start[(s + 1) * num_actions]):
            if not terminated[k] and not reached[next_state[k]]:
                reached[next_state[k]] = True
                stack[top] = next_state[k]
                top += 1
    return reached


def check_entries(num_states, num_actions, row_start, next_state, probability, reward) -> None:
    """Raises ValueError naming state and action of the first entry whose numbers can't be."""

    def refuse(k, problem):
        row = int(np.searchsorted(row_start, k, side="right")) - 1
        raise ValueError(f"state {row // num_actions}, action {row % num_actions}: {problem}")

    if row_start.shape != (num_states * num_actions + 1,):
        raise ValueError(f"row_start has shape {row_start.shape}; expected ({num_states * num_actions + 1},)")
    for name, ok in (
        ("next state", (next_state >= 0) & (next_state < num_states)),
        ("probability", (probability >= 0) & (probability <= 1 + ROW_SUM_TOLERANCE)),
        ("reward", np.isfinite(reward)),
    ):
        if not ok.all():
            k = int(np.argmin(ok))
            values = {"next state": next_state, "probability": probability, "reward": reward}[name]
            expected = {"next state": f"0 … {num_states - 1}", "probability": "0 … 1", "reward": "a finite number"}[name]
            refuse(k, f"{name} is {values[k]}; expected {expected}")


def normalise_rows(num_actions, row_start, probability) -> None:
    """Let every row sum to 1, in place. Raises ValueError naming state and action where one is further off than rounding."""
    counts = np.diff(row_start)
    empty = counts == 0
    sums = np.zeros(counts.size)
    if probability.size:
        sums[~empty] = np.add.reduceat(probability, row_start[:-1][~empty])
    wrong = np.abs(sums - 1.0) > ROW_SUM_TOLERANCE
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"state {row // num_actions}, action {row % num_actions}: probabilities sum to {sums[row]:.10g}; expected 1"
        )
    probability /= np.repeat(sums, counts)
