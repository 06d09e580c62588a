"""Frames of coloured shapes with a class for every pixel: a source for segmenters and image-to-image models.

Each tile holds a disc, a square, a triangle or nothing, of random size, place and colour over a dark ground, under noise. The
class is the kind, not the colour, so a pixel inside says nothing: its surroundings must be seen. Shapes don't overlap and
their edges are sharp, so every pixel's class can be known.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from generative.model import Batch

KINDS = ("ground", "disc", "square", "triangle")  # classes 0…3


@dataclass(frozen=True)
class ColouredShapes:
    """x uint8 [B, H, W, 3]; label int64 [B, H, W] of `KINDS`; target uint8 [B, H, W, 3], x without its noise."""

    tiles: int = 2  # each way
    tile: int = 16  # pixels each way
    noise: int = 20  # levels by which a pixel's channels are off at most

    def __post_init__(self) -> None:
        if self.tiles < 1 or self.tile < 8 or not 0 <= self.noise <= 40:
            raise ValueError(f"tiles, tile, noise are {self.tiles}, {self.tile}, {self.noise}; expected ≥ 1, ≥ 8 and 0…40")

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        count = (n, self.tiles, self.tiles)
        kind = self._uniform(0, len(KINDS), count, generator)
        radius = self._uniform(self.tile // 4, (self.tile - 1) // 2, (*count, 1, 1), generator)
        label = kind[..., None, None] * inside(kind, self._offsets(radius, generator), radius)  # [B, t, t, tile, tile]
        ground = self._uniform(40, 80, (n, 1, 1, 1, 1, 3), generator)
        colour = self._uniform(60, 216, (*count, 1, 1, 3), generator)
        brightest = torch.nn.functional.one_hot(self._uniform(0, 3, (*count, 1, 1), generator), 3).bool()
        colour = torch.where(brightest, 215, colour)
        target = self._frames(torch.where(label[..., None] > 0, colour, ground))
        noise = self._uniform(-self.noise, self.noise + 1, tuple(target.shape), generator)
        label = self._frames(label[..., None])[..., 0]
        return {"x": (target + noise).to(torch.uint8), "label": label, "target": target.to(torch.uint8)}

    def _offsets(self, radius: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(rows below, columns right of) the shape's centre [B, t, t, tile, 1] and [B, t, t, 1, tile]; it fits in its tile."""
        free = self.tile - 2 * radius
        places = torch.rand((2, *radius.shape), generator=generator, device=generator.device)
        centre = radius + (places * free).long()  # from radius to tile − 1 − radius
        pixels = torch.arange(self.tile, device=generator.device)
        return pixels[:, None] - centre[0], pixels - centre[1]

    def _frames(self, tiles: Tensor) -> Tensor:
        """[B, t, t, tile, tile, C] → [B, H, W, C]."""
        return tiles.movedim(3, 2).flatten(3, 4).flatten(1, 2)

    def _uniform(self, low: int, high: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randint(low, high, shape, generator=generator, device=generator.device)


def inside(kind: Tensor, offsets: tuple[Tensor, Tensor], radius: Tensor) -> Tensor:
    """Which pixels the tile's shape covers, bool [B, t, t, tile, tile]; of kind 0 all of a square, which is ground too."""
    rows, columns = offsets
    square = (rows.abs() <= radius) & (columns.abs() <= radius)
    disc = rows**2 + columns**2 <= radius**2
    triangle = square & (2 * columns.abs() <= rows + radius)  # its tip is up
    kind = kind[..., None, None]
    return torch.where(kind == 1, disc, torch.where(kind == 3, triangle, square))
