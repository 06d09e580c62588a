"""Where a running trial stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Progress:
    """Where a trial stands; part of its checkpoints."""

    step: int = 0
    logged: int = 0
    evaluated: int = 0
    saved: int = 0
    pictured: int = 0
    best_step: int | None = None
    best_reward: float | None = None
    seconds: float = 0.0
    stepped: bool = False  # whether the environment has been used: simulated trials never touch theirs

    def due(self, done: int, every: int, total: int) -> bool:
        """Whether a mark (a multiple of `every`, or the end) lies in (done, step]."""
        return self.step // every > done // every or (self.step >= total and done < self.step)
