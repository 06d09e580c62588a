"""Anti-aliased shapes as coverages in [0, 1], by array operations on batches.

A pixel's coverage is clamp(½ − d), d the signed distance in pixels from its centre to the shape's edge (negative inside). For
an axis-parallel bar that is the exact share of the pixel's side. For a disc d is taken to first order, (ρ² − r²)/2r at a
distance ρ from the centre: no square root, and ∫ clamp(½ − d) = π r². So coverage sums to the area: of bars exactly, of discs
on average over places, and within 1 % at each place for the discs of these worlds at 32×32.

All lengths are in pixels; pixel i has its centre at i + ½.
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMINANCE = (0.299, 0.587, 0.114)  # what a grey frame shows of red, green and blue (ITU-R BT.601)
Colour = tuple[float, ...]  # 0 … 255 each, of three channels or of one


def centres(size: int, like: Tensor) -> Tensor:
    """The centres of a row of pixels [size], as `like` in type and device.

    >>> centres(3, torch.zeros(1)).tolist()
    [0.5, 1.5, 2.5]
    """
    return torch.arange(size, dtype=like.dtype, device=like.device) + 0.5


def bar(at: Tensor, centre: Tensor, half: float | Tensor) -> Tensor:
    """Share of each pixel side around `at` within centre ± half; the product of two is a rectangle.

    >>> bar(centres(4, torch.zeros(1)), torch.tensor(1.75), 1.0).tolist()
    [0.25, 1.0, 0.75, 0.0]
    """
    most = (2 * half).clamp(max=1.0) if isinstance(half, Tensor) else min(1.0, 2 * half)  # a hair covers no whole pixel
    return (at - centre).abs_().neg_().add_(half + 0.5).clamp_(max=most).clamp_(min=0.0)


def disc(x: Tensor, y: Tensor, radius: float, size: int) -> Tensor:
    """Coverage [n, size, size] of discs around (x, y) [n]; on average of the right area from a radius of 1 on."""
    at = centres(size, x)
    across, down = (at - x[:, None]).square_().div_(2 * radius), (at - y[:, None]).square_().div_(-2 * radius)
    return (down.add_(0.5 + radius / 2)[:, :, None] - across[:, None, :]).clamp_(0.0, 1.0)


def rounded(shades: Tensor) -> Tensor:
    """uint8 of shades in 0 … 255, which are overwritten; through int16, which is four times as fast as straight."""
    return shades.add_(0.5).to(torch.int16).to(torch.uint8)


def to_frames(shades: Tensor) -> Tensor:
    """uint8 [n, H, W, C] of shades [n, C, H, W] in 0 … 255, which are overwritten."""
    return torch.stack(rounded(shades).unbind(1), dim=-1)  # channel by channel: permuting at once takes twice as long


def in_channels(colour: Colour, channels: int) -> Colour:
    """A colour as it is seen in 3 channels, or in 1 by its luminance.

    >>> in_channels((0, 200, 0), 1)
    (117.4,)
    """
    return colour if channels == 3 else (round(sum(weight * part for weight, part in zip(LUMINANCE, colour)), 6),)
