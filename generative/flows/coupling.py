"""Coupling layers: one part of x is moved by what a network, which need not be invertible, says of the part that is kept.

    y_B = x_B,        y_A = x_A ⊙ exp(s(x_B)) + t(x_B),        log |det ∂y/∂x| = Σ s(x_B)

and back by x_A = (y_A − t(y_B)) ⊙ exp(−s(y_B)); the additive law has s = 0. Dinh et al. 2014 (NICE, arXiv:1410.8516), 2016
(RealNVP, arXiv:1605.08803); notes §7.2. s is within ±`bound`, so that one step neither bursts nor vanishes.

Every transformation of this folder has the same two methods: `forward(x, condition)` → (y, log |det ∂y/∂x| [B]) leads
from data towards noise, and `inverse(y, condition)` → x back. `condition` is [B, K] or None.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def bounded(raw: Tensor, bound: float) -> Tensor:
    """raw near 0, never beyond ±bound, with a gradient everywhere.

    >>> bounded(torch.tensor([0.0, 1e6]), 2.0)
    tensor([0., 2.])
    """
    return bound * torch.tanh(raw / bound)


class Coupling(nn.Module):
    """Over halves of dimension 1, of vectors [B, D] or images [B, C, H, W]; the first half is the greater of an odd number.

    `network(kept, condition)` gives t, or with the affine law t and raw s beside each other in dimension 1. `swap`: the first
    half is moved and the second one kept.
    """

    def __init__(self, network: nn.Module, *, affine: bool, swap: bool, bound: float = 2.0) -> None:
        super().__init__()
        self.network, self.affine, self.swap, self.bound = network, affine, swap, bound

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, moved = self._parts(x)
        shift, log_scale = shift_and_log_scale(self.network(kept, condition), self.affine, self.bound)
        if log_scale is None:
            return self._whole(kept, moved + shift), x.new_zeros(len(x))
        return self._whole(kept, moved * log_scale.exp() + shift), log_scale.flatten(1).sum(1)

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        kept, moved = self._parts(y)
        shift, log_scale = shift_and_log_scale(self.network(kept, condition), self.affine, self.bound)
        moved = moved - shift
        return self._whole(kept, moved if log_scale is None else moved * (-log_scale).exp())

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(kept, moved)."""
        first, second = x.chunk(2, 1)
        return (second, first) if self.swap else (first, second)

    def _whole(self, kept: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([moved, kept] if self.swap else [kept, moved], 1)


class CheckerboardCoupling(nn.Module):
    """Over the fields of a checkerboard in images [B, C, H, W], by the affine law (RealNVP, §3.4).

    The network sees the image with the moved fields set to 0; at fields where row + column is even for `parity` 0, odd for 1,
    values are kept.
    """

    def __init__(self, network: nn.Module, *, parity: int, bound: float = 2.0) -> None:
        super().__init__()
        self.network, self.parity, self.bound = network, parity, bound

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._law(x, condition)
        return x * log_scale.exp() + shift, log_scale.flatten(1).sum(1)

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        shift, log_scale = self._law(y, condition)
        return (y - shift) * (-log_scale).exp()

    def _law(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """(t, s), both 0 where x is kept, and hence the same for x and y."""
        kept = checkerboard(x.shape[2], x.shape[3], self.parity, x)
        shift, log_scale = shift_and_log_scale(self.network(x * kept, condition), True, self.bound)
        assert log_scale is not None
        return shift * (1 - kept), log_scale * (1 - kept)


def shift_and_log_scale(output: Tensor, affine: bool, bound: float) -> tuple[Tensor, Tensor | None]:
    """(t, s) of a network's output; s is None under the additive law."""
    if not affine:
        return output, None
    shift, raw = output.chunk(2, 1)
    return shift, bounded(raw, bound)


def checkerboard(height: int, width: int, parity: int, like: Tensor) -> Tensor:
    """[H, W] of 1 where (row + column + parity) is even, else 0.

    >>> checkerboard(2, 3, 0, torch.zeros(1)).tolist()
    [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    row, column = (torch.arange(size, device=like.device) for size in (height, width))
    return ((row[:, None] + column + parity) % 2 == 0).to(like)
