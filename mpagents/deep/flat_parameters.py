"""All parameters of a module as one vector: one tensor to clip, to update, to differentiate by, to copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class FlatParameters:
    """A module's parameters in one vector [P]; the module's own become views of it, so it follows every update.

    Called with another vector, it is the module with that one's parameters: a pure function, as `torch.func.functional_call`
    is, at a tenth of the overhead. The module must hold no buffers that change: compiled code would take them as they were.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.places = [(part, name) for part in module.modules() for name, _ in part.named_parameters(recurse=False)]
        own: list[Tensor] = [getattr(part, name) for part, name in self.places]
        self.shapes, self.sizes = [p.shape for p in own], [p.numel() for p in own]
        self.vector = torch.cat([p.detach().reshape(-1) for p in own])
        self._put(self.vector)

    def _put(self, vector: Tensor) -> None:
        for (part, name), values, shape in zip(self.places, vector.split(self.sizes), self.shapes):
            part._parameters[name] = values.view(shape)  # as functional_call does

    def __call__(self, vector: Tensor, *arguments: Any) -> Any:
        return self.call(self.module, vector, *arguments)

    def call(self, function: Callable[..., Any], vector: Tensor, *arguments: Any) -> Any:
        """`function(*arguments)`, a method of the module, with the parameters of a vector."""
        if vector is self.vector:
            return function(*arguments)
        self._put(vector)
        try:
            return function(*arguments)
        finally:
            self._put(self.vector)
