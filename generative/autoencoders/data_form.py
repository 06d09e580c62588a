"""The two forms of data that autoencoders take, and the way between what is recorded and what a network computes with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.likelihoods import require
from generative.model import Batch
from generative.networks.inputs import images


@dataclass(frozen=True)
class DataForm:
    """Vectors float [B, D] of `shape` (D,), taken as they are; or frames uint8 [B, H, W, C] of `shape` (H, W, C).

    Inside, frames are floats in [0, 1], channels first [B, C, H, W].
    """

    shape: tuple[int, ...]
    levels: int = 256  # of frames, which hold 0 … levels − 1

    def __post_init__(self) -> None:
        fits = len(self.shape) in (1, 3) and min(self.shape) >= 1
        require(fits, "shape", self.shape, "(D,) for vectors or (height, width, channels) for frames, at least 1 each")
        require(2 <= self.levels <= 256, "levels", self.levels, "2 to 256, as a frame's bytes hold")

    @property
    def is_frames(self) -> bool:
        return len(self.shape) == 3

    @property
    def size(self) -> int:
        """D: numbers in a datum."""
        return math.prod(self.shape)

    @property
    def inner(self) -> tuple[int, ...]:
        """(D,) or (C, H, W)."""
        return (self.shape[2], *self.shape[:2]) if self.is_frames else self.shape

    def inputs(self, x: Tensor, dtype: torch.dtype, finite: bool = True) -> Tensor:
        """x as recorded → [B, D] or [B, C, H, W] of `dtype`. Raises ValueError for other shapes, types and levels, and
        with `finite` for vectors that aren't."""
        if self.is_frames:
            return images(x, self.shape, self.levels, dtype)  # type: ignore[arg-type]
        if x.ndim != 2 or x.shape[1] != self.size:
            raise ValueError(f"x is {list(x.shape)}; expected vectors [B, {self.size}]: set shape to the data's")
        if not x.is_floating_point():
            raise ValueError(f"x is {x.dtype}; expected float vectors: convert them, or set shape to (H, W, C) for frames")
        if finite and not torch.compiler.is_compiling() and not all_finite(x):
            raise ValueError("x is not finite everywhere; expected numbers: drop such data, or replace what is missing")
        return x.to(dtype)

    def recorded(self, values: Tensor) -> Tensor:
        """[B, D] or [B, C, H, W] (frames also flat) → data as recorded; frames are rounded to their levels."""
        if not self.is_frames:
            return values
        levels = (values.unflatten(1, self.inner) if values.ndim == 2 else values).movedim(1, -1) * (self.levels - 1)
        return levels.round().clamp(0, self.levels - 1).to(torch.uint8)

    def mask_of(self, batch: Batch, *, flat: bool = False) -> Tensor | None:
        """batch["mask"], if there is one, beside inputs: [B, D], or [B, 1 or C, H, W] from [B, H, W] or [B, H, W, C]."""
        mask = batch.get("mask")
        if mask is None:
            return None
        inner = mask if not self.is_frames else mask[:, None] if mask.ndim == 3 else mask.movedim(-1, 1)
        return inner.expand(-1, *self.inner).flatten(1) if flat else inner


def all_finite(x: Tensor) -> bool:
    """Whether every number is; one sum tells it, but for one that overflows."""
    return math.isfinite(x.sum().item()) or bool(x.isfinite().all())


def scored_sum(values: Tensor, mask: Tensor | None) -> Tensor:
    """Sums over all but the first dimension [B], of the entries that `mask` (true: scored) leaves."""
    return (values if mask is None else values * mask).flatten(1).sum(1)
