"""Exponential moving averages of a model's parameters, θ̄ ← d θ̄ + (1 − d) θ (Polyak & Juditsky 1992; as in Ho et al. 2020)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Average:
    """The average of `model`'s parameters; its buffers aren't averaged."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters: list[Tensor] = list(model.parameters())
        self.weights = [parameter.detach().clone() for parameter in self.parameters]
        self.num_updates = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the present weights; early averages forget faster, d_t = min(d, (1 + t)/(10 + t))."""
        self.num_updates += 1
        t = int(self.num_updates)
        decay = min(self.decay, (1 + t) / (10 + t))
        torch._foreach_lerp_(self.weights, self.parameters, 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the model has the averaged weights."""
        own = [parameter.detach().clone() for parameter in self.parameters]
        self.assign()
        try:
            yield
        finally:
            self._set(own)

    def assign(self) -> None:
        """Leave the averaged weights in the model."""
        self._set(self.weights)

    def state(self) -> list[Tensor]:
        return [self.num_updates, *self.weights]

    def load(self, state: list[Tensor]) -> None:
        self.num_updates = state[0].clone()
        for kept, loaded in zip(self.weights, state[1:], strict=True):
            kept.copy_(loaded)

    @torch.no_grad()
    def _set(self, weights: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, weights, strict=True):
            parameter.copy_(value)
