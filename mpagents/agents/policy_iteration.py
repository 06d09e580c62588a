"""Policy iteration (Howard 1960; notes §10, Algorithm 5): evaluate the policy, act greedily on its values, repeat.

    v^π = r_π + γ P_π v^π,   π(s) ← argmax_a r(s, a) + γ Σ_s′ P(s′ | s, a) v^π(s′)

An action is changed only if another is better by a tolerance: ties would let it cycle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mpagents.configuration import Positive, PositiveInt
from mpagents.tabular.planner import Planner
from mpagents.tabular.planning import Sweep, policy_iteration_sweeps


class PolicyIteration(Planner):
    """Policy iteration with exact (sparse solve) or iterative evaluation."""

    @dataclass(frozen=True)
    class Config:
        evaluation: Literal["exact", "iterative"] = "exact"
        tolerance: Positive = 1e-10  # by which a better action must be better, relative to max(1, |q|)
        max_sweeps: PositiveInt = 10_000  # improvements

    def sweeps(self) -> Iterator[Sweep]:
        config = self.config
        return policy_iteration_sweeps(
            self.mdp, evaluation=config.evaluation, tolerance=config.tolerance, max_sweeps=config.max_sweeps
        )
