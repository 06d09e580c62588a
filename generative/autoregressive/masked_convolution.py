"""Convolutions that see only what comes before a pixel, over a whole frame or as the frame is filled.

    y(i, j) = b + Σ over a ≤ above, −left ≤ d ≤ right of W(a, d) x(i − a, j + d)

Nothing below row i is ever in the kernel. In row i itself a mask leaves out what lies right of the pixel and, at the pixel,
colours: channels belong to groups, one for each colour in the order R → G → B, and with mask A a group sees those of earlier
colours only, with mask B its own too (van den Oord et al. 2016, §3.4, arXiv:1601.06759; notes §6.4). Mask A belongs to the
first layer, whose inputs are the colours to be predicted; later layers hold features that exclude them already.

`Incremental` gives the same values one pixel (or one row) at a time: every convolution remembers the inputs it was given,
and only the window of the kernel is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def colour_groups(width: int, channels: int) -> Tensor:
    """The colour that each of `width` features belongs to, int64 [width], in equal shares.

    >>> colour_groups(6, 3).tolist()
    [0, 0, 1, 1, 2, 2]
    """
    return torch.arange(width) * channels // width


class MaskedConvolution(nn.Module):
    """One convolution from features of the colours `inputs` [I] to features of the colours `outputs` [O].

    `mask` None is for inputs that are known in full: rows above, where nothing need be hidden.
    """

    visible: Tensor

    def __init__(
        self,
        inputs: Tensor,
        outputs: Tensor,
        *,
        mask: Literal["A", "B"] | None,
        above: int = 0,
        left: int = 0,
        right: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.mask, self.above, self.left, self.right = mask, above, left, right
        visible = torch.ones(len(outputs), len(inputs), above + 1, left + 1 + right)
        if mask is not None:
            visible[:, :, above, left + 1 :] = 0
            earlier = inputs[None] < outputs[:, None]  # [O, I]
            visible[:, :, above, left] = (earlier if mask == "A" else earlier | (inputs[None] == outputs[:, None])).float()
        fan_in = visible.sum((1, 2, 3), keepdim=True).clamp_min(1)
        self.weight = nn.Parameter(torch.randn_like(visible) * fan_in**-0.5)
        self.bias = nn.Parameter(torch.zeros(len(outputs))) if bias else None
        self.register_buffer("visible", visible, persistent=False)

    @property
    def is_pointwise(self) -> bool:
        return not (self.above or self.left or self.right)

    @property
    def kernel(self) -> Tensor:
        """[O, I, above + 1, left + 1 + right], zero where the mask hides."""
        return self.weight * self.visible

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H, W]; outside the frame everything is 0."""
        return F.conv2d(F.pad(x, (self.left, self.right, self.above, 0)), self.kernel, self.bias)


Apply: TypeAlias = Callable[[MaskedConvolution, Tensor], Tensor]  # a convolution to features, of a frame or a part of it


def whole(convolution: MaskedConvolution, x: Tensor) -> Tensor:
    """The convolution over whole frames [B, I, H, W]."""
    return convolution(x)


class Incremental:
    """Convolutions at one place of frames that are filled in raster order; each keeps the inputs it was given so far.

    Used in place of `whole`, with x the part [B, I, 1, w] of the features that starts at (`row`, `column`): a pixel, or a
    whole row. A place may be visited again, with more of its colours known. A convolution with mask A is given the frames
    themselves, since its input at the place is not there yet. Weights are taken as they are at the first call.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.row = self.column = 0
        self.kernels: dict[MaskedConvolution, tuple[Tensor, Tensor]] = {}  # ([I · rows · columns, O], bias [O])
        self.seen: dict[MaskedConvolution, Tensor] = {}  # inputs within a margin of zeros

    def __call__(self, convolution: MaskedConvolution, x: Tensor) -> Tensor:
        """[B, I, 1, w] -> [B, O, 1, w]; with mask A [B, I, H, W] -> [B, O, 1, 1]."""
        if convolution not in self.kernels:
            bias = x.new_zeros(len(convolution.weight)) if convolution.bias is None else convolution.bias
            self.kernels[convolution] = convolution.kernel.flatten(1).t().contiguous(), bias
        width = 1 if convolution.mask == "A" else x.shape[3]
        if convolution.mask == "A":
            x = self._of_frames(convolution, x)
        elif not convolution.is_pointwise:
            x = self._remembered(convolution, x)
        if width > 1:
            return F.conv2d(x, convolution.kernel, convolution.bias)
        kernel, bias = self.kernels[convolution]
        return torch.addmm(bias, x.flatten(1), kernel).view(len(x), -1, 1, 1)

    def _remembered(self, convolution: MaskedConvolution, x: Tensor) -> Tensor:
        """The window over what was given so far, x included: [B, I, above + 1, left + w + right]."""
        above, left, right = convolution.above, convolution.left, convolution.right
        if convolution not in self.seen:
            self.seen[convolution] = x.new_zeros(*x.shape[:2], self.height + above, left + self.width + right)
        seen, row, column, width = self.seen[convolution], self.row, self.column, x.shape[3]
        seen[:, :, row + above, column + left : column + left + width] = x[:, :, 0]
        return seen[:, :, row : row + above + 1, column : column + left + width + right]

    def _of_frames(self, convolution: MaskedConvolution, x: Tensor) -> Tensor:
        """The window over frames [B, I, H, W] at the place, zero outside them: [B, I, above + 1, left + 1 + right]."""
        top, first, end = self.row - convolution.above, self.column - convolution.left, self.column + convolution.right + 1
        window = x[:, :, max(top, 0) : self.row + 1, max(first, 0) : end]
        return F.pad(window, (max(-first, 0), max(end - self.width, 0), max(-top, 0), 0))
