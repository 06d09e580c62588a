"""The rows of `benchmarks/optima.py`: a file for each family of models, with its list ROWS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A model on a source whose optimum is known."""

    model: str
    task: str
    optimum: str  # what theory gives, with its unit
    target: str
    measure: Callable[
        [], tuple[str, str, bool | None]
    ]  # from scratch: (reached, gap to the optimum, target met; None: it has none)
