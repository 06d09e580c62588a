"""Eligibility traces: how much of a temporal-difference error each entry of a table is due (Sutton and Barto 2018, ch. 12).

    e ← γλ e,    then for the entry just visited e ← e + 1 (accumulating) or e ← 1 (replacing);    value ← value + α δ e

Only the entries whose trace isn't 0 are kept, in a list: a step costs time for those, not for the table.
Deviation: a trace below 1e-8 is 0, else the list would hold all of a long episode.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mpagents.tabular.compiled import kernel
from mpagents.tabular.updates import step_size

NEGLIGIBLE = 1e-8


class Traces(NamedTuple):
    eligibility: np.ndarray  # float64 [N], 0 for entries that aren't active
    active: np.ndarray  # int64 [N], of which the first `num_active` are meant
    num_active: np.ndarray  # int64 [1]


def no_traces(num_entries: int) -> Traces:
    return Traces(np.zeros(num_entries), np.zeros(num_entries, np.int64), np.zeros(1, np.int64))


@kernel
def clear(traces):
    """e ← 0, at the start of an episode."""
    for j in range(traces.num_active[0]):
        traces.eligibility[traces.active[j]] = 0.0
    traces.num_active[0] = 0


@kernel
def fade(traces, factor):
    """e ← factor · e, the factor being γλ."""
    kept = 0
    for j in range(traces.num_active[0]):
        i = traces.active[j]
        traces.eligibility[i] *= factor
        if traces.eligibility[i] < NEGLIGIBLE:
            traces.eligibility[i] = 0.0
        else:
            traces.active[kept] = i
            kept += 1
    traces.num_active[0] = kept


@kernel
def mark(traces, i, replacing):
    """Entry i has been visited."""
    if traces.eligibility[i] == 0.0:
        traces.active[traces.num_active[0]] = i
        traces.num_active[0] += 1
    traces.eligibility[i] = 1.0 if replacing else traces.eligibility[i] + 1.0


@kernel
def credit(traces, values, visits, rates, error):
    """value ← value + α δ e for all entries; `values` and `visits` [N] tell each entry's own step size α."""
    for j in range(traces.num_active[0]):
        i = traces.active[j]
        values[i] += step_size(rates, visits[i]) * (error * traces.eligibility[i])


def trace_state(traces: Traces) -> dict:
    """For a checkpoint: the active entries and their traces."""
    active = traces.active[: traces.num_active[0]].copy()
    return {"active": active, "eligibility": traces.eligibility[active]}


def restore_traces(traces: Traces, state: dict) -> None:
    traces.eligibility[:] = 0.0
    traces.num_active[0] = len(state["active"])
    traces.active[: traces.num_active[0]] = state["active"]
    traces.eligibility[state["active"]] = state["eligibility"]
