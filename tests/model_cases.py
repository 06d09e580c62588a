"""Small configurations of every registered model with data for each: what the law test runs over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from generative.model import Batch
from generative.sources import source


@dataclass(frozen=True)
class Case:
    """One model at one tiny configuration."""

    model: str  # registered name
    config: dict[str, Any]
    source: str  # of the data, by its registered name
    settings: dict[str, Any] = field(default_factory=dict)  # of the source
    every: torch.Tensor | None = None  # all data there can be, where they can be listed: Σ p = 1 over them
    untrained: tuple[str, ...] = ()  # parameters that no loss reaches, by design
    refused: tuple[tuple[str, torch.Tensor, str], ...] = ()  # (what, x, message): x of a wrong shape or range, and its refusal

    def batch(self, n: int, generator: torch.Generator) -> Batch:
        return source(self.source, **self.settings).sample(n, generator)


CASES: list[Case] = []
