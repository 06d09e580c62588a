"""Modified policy iteration (Puterman & Shin 1978): between improvements, a few sweeps of evaluation instead of a solve.

    π ← greedy(v),   v ← T_π^m T v

Stops by the span of a sweep's changes (MacQueen's bounds around v*), long before their norm is small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mpagents.configuration import NonNegativeInt, Positive, PositiveInt
from mpagents.tabular.planner import Planner
from mpagents.tabular.planning import Sweep, modified_policy_iteration_sweeps


class ModifiedPolicyIteration(Planner):
    """Modified policy iteration: usually the fastest planner on large problems."""

    @dataclass(frozen=True)
    class Config:
        epsilon: Positive = 1e-6  # the values end within ε/2 of the optimum
        evaluation_sweeps: NonNegativeInt = 20  # at most, between improvements
        max_sweeps: PositiveInt | None = None  # None: as many as contraction needs

    def sweeps(self) -> Iterator[Sweep]:
        config = self.config
        return modified_policy_iteration_sweeps(
            self.mdp, epsilon=config.epsilon, evaluation_sweeps=config.evaluation_sweeps, max_sweeps=config.max_sweeps
        )
