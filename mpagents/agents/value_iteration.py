"""Value iteration (Bellman 1957; notes §10, Algorithm 4): apply the Bellman optimality operator until it changes little.

    v ← Tv,   (Tv)(s) = max_a r(s, a) + γ Σ_s′ P(s′ | s, a) v(s′)

Stops at ‖Tv − v‖∞ < ε(1−γ)/2γ: then ‖v − v*‖∞ < ε/2 and the greedy policy is ε-optimal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mpagents.configuration import Positive, PositiveInt
from mpagents.tabular.planner import Planner
from mpagents.tabular.planning import Sweep, value_iteration_sweeps


class ValueIteration(Planner):
    """Value iteration, synchronous or Gauss–Seidel."""

    @dataclass(frozen=True)
    class Config:
        epsilon: Positive = 1e-6  # the values end within ε/2 of the optimum
        gauss_seidel: bool = False  # use new values within a sweep: fewer sweeps, one thread
        max_sweeps: PositiveInt | None = None  # None: as many as contraction needs

    def sweeps(self) -> Iterator[Sweep]:
        config = self.config
        return value_iteration_sweeps(
            self.mdp, epsilon=config.epsilon, gauss_seidel=config.gauss_seidel, max_sweeps=config.max_sweeps
        )
