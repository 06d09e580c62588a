"""Conditions of a diffusion as one vector c [B, C]: one-hot labels, or numbers with a 1 beside them; zeros: the null token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.likelihoods import require
from generative.networks import targets


@dataclass(frozen=True)
class Condition:
    """What `cond` is: labels int64 [B], vectors `cond` [B, C], or actions [B, A] or [B, T, A], which are flattened."""

    num_classes: int = 0
    cond_size: int = 0  # C
    action_size: int = 0  # numbers of an action, or of the T actions

    def __post_init__(self) -> None:
        sizes = (self.num_classes, self.cond_size, self.action_size)
        fits = min(sizes) >= 0 and sum(size > 0 for size in sizes) <= 1
        require(fits, "num_classes, cond_size and action_size", sizes, "at most one above 0: a model has one condition")

    @property
    def key(self) -> str | None:
        """The batch's key."""
        return "label" if self.num_classes else "cond" if self.cond_size else "action" if self.action_size else None

    @property
    def size(self) -> int:
        """Numbers in c."""
        return self.num_classes or (self.cond_size or self.action_size) + (self.key is not None)

    def vector(self, cond: Tensor | None, n: int, like: Tensor) -> Tensor | None:
        """c [n, size] of `like`'s type. Raises ValueError for a condition that is missing, not wanted or of another form."""
        if self.key is None:
            if cond is not None:
                raise ValueError("got cond for a model without condition: leave it out, or set num_classes or cond_size")
            return None
        if cond is None:
            raise ValueError(f"cond is missing: this model is conditioned on the batch's {self.key!r}; give that as cond")
        if self.key == "label":
            return F.one_hot(targets.labels(cond, (n,), self.num_classes), self.num_classes).to(like)
        flat = cond.flatten(1) if cond.ndim > 1 else cond
        if flat.shape != (n, self.size - 1):
            raise ValueError(f"{self.key} is {list(cond.shape)}; expected {n} rows of {self.size - 1} numbers")
        return torch.cat([flat.to(like), like.new_ones(n, 1)], 1)


def forgotten(c: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """c [B, C] with a random `share` of its rows replaced by the null token."""
    known = torch.rand((len(c), 1), generator=generator, device=generator.device).to(c.device) >= share
    return c * known
