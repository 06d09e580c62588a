"""Pooling that remembers, and the four upsamplings that undo it (notes §3.1). All double height and width.

- nearest neighbour: each value is copied into its 2 × 2 pixels;
- bed of nails: each value goes to the top left of its 2 × 2 pixels, among zeros;
- max unpooling: each value goes where the maximum was found, among zeros (Zeiler & Fergus 2014, arXiv:1311.2901);
- transposed convolution: each value times a learned kernel, summed (2 × 2 at stride 2, so that nothing overlaps, as in
  Ronneberger et al. 2015, arXiv:1505.04597).

Odd sides are pooled rounded up, so what is upsampled is cropped to the size that was pooled.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from generative.likelihoods import require

UPSAMPLINGS = ("nearest", "bed_of_nails", "max_unpooling", "transposed")
UpsamplingName = Literal["nearest", "bed_of_nails", "max_unpooling", "transposed"]


def max_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """The maximum of each 2 × 2 pixels of x [B, C, H, W], and its position within the image, h·W + w: [B, C, ⌈H/2⌉, ⌈W/2⌉]."""
    return F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)


def nearest_neighbour(x: Tensor) -> Tensor:
    """
    >>> import torch
    >>> nearest_neighbour(torch.tensor([[1, 2]])).tolist()
    [[1, 1, 2, 2], [1, 1, 2, 2]]
    """
    return x.repeat_interleave(2, -2).repeat_interleave(2, -1)


def bed_of_nails(x: Tensor) -> Tensor:
    """
    >>> import torch
    >>> bed_of_nails(torch.tensor([[1, 2]])).tolist()
    [[1, 0, 2, 0], [0, 0, 0, 0]]
    """
    made = x.new_zeros(*x.shape[:-2], 2 * x.shape[-2], 2 * x.shape[-1])
    made[..., ::2, ::2] = x
    return made


def max_unpool(x: Tensor, positions: Tensor, size: tuple[int, int]) -> Tensor:
    """x [B, C, h, w] among zeros [B, C, H, W], each value at its position of `max_pool`; `size` is (H, W)."""
    made = x.new_zeros(*x.shape[:-2], size[0] * size[1])
    return made.scatter(-1, positions.flatten(-2), x.flatten(-2)).unflatten(-1, size)


class Upsampling(nn.Module):
    """One of the four, by name: [B, C, ⌈H/2⌉, ⌈W/2⌉] → [B, C, H, W]; `positions` and `size` are those of the pooling."""

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        require(name in UPSAMPLINGS, "upsampling", repr(name), " or ".join(UPSAMPLINGS))
        self.name = name
        self.transposed = nn.ConvTranspose2d(channels, channels, 2, stride=2) if name == "transposed" else None

    def forward(self, x: Tensor, positions: Tensor, size: tuple[int, int]) -> Tensor:
        if self.name == "max_unpooling":
            return max_unpool(x, positions, size)
        if self.transposed is not None:
            made = self.transposed(x)
        else:
            made = nearest_neighbour(x) if self.name == "nearest" else bed_of_nails(x)
        return made[..., : size[0], : size[1]]
