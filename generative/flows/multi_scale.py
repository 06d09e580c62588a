"""How layers are put together: chains, rearrangements, and splits that let half of the dimensions leave early.

    log p(x) = log p_Z(z) + Σ_k log |det of layer k|

(notes §7.3–7.4; RealNVP §3.6, arXiv:1605.08803). What has left a split is given a Gaussian whose mean and scale depend on what
stays (Glow), or a standard one (RealNVP). Gaussians are standardised within the transformation, ε = (z − μ) ⊙ exp(−s), so that
at the end all of z [B, D] is N(0, I), and a temperature applies to every part alike.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.flows.coupling import bounded
from generative.flows.inner_networks import zeroed


def num_halvings(sides: tuple[int, ...]) -> int:
    """How often every side can be halved without a rest.

    >>> num_halvings((12, 32)), num_halvings((7, 8))
    (2, 0)
    """
    return min((side & -side).bit_length() - 1 for side in sides)


class Chain(nn.Module):
    """One transformation after the other."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(len(x))
        for layer in self.layers:
            x, of_layer = layer(x, condition)
            log_det = log_det + of_layer
        return x, log_det

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        for layer in reversed(self.layers):
            y = layer.inverse(y, condition)  # type: ignore[operator]
        return y


class Squeeze(nn.Module):
    """[B, C, H, W] → [B, 4C, H/2, W/2]: the four pixels of a 2 × 2 block become channels, those of a colour side by side."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        return F.pixel_shuffle(y, 2)


class Permutation(nn.Module):
    """Dimensions of [B, D] in a fixed order: y_i = x_order(i)."""

    order: Tensor

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x[:, self.order], x.new_zeros(len(x))

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        return y[:, self.order.argsort()]


class Flat(nn.Module):
    """The end: data of one shape [B, *shape] as z [B, D]."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.flatten(1), x.new_zeros(len(x))

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        return y.unflatten(1, self.shape)


class Split(nn.Module):
    """Half of the channels of images leave, `shape` (C, H, W) those that stay, which `rest` leads on; all end as z [B, D]."""

    def __init__(self, shape: tuple[int, int, int], rest: nn.Module, prior: nn.Module | None = None) -> None:
        super().__init__()
        self.shape, self.rest, self.prior = shape, rest, prior

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        staying, leaving = x.chunk(2, 1)
        z, log_det = self.rest(staying, condition)
        if self.prior is not None:
            mean, log_scale = self.prior(staying, condition)
            leaving = (leaving - mean) * (-log_scale).exp()
            log_det = log_det - log_scale.flatten(1).sum(1)
        return torch.cat([z, leaving.flatten(1)], 1), log_det

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        z, flat = y.chunk(2, 1)
        staying, leaving = self.rest.inverse(z, condition), flat.unflatten(1, self.shape)  # type: ignore[operator]
        if self.prior is not None:
            mean, log_scale = self.prior(staying, condition)
            leaving = leaving * log_scale.exp() + mean
        return torch.cat([staying, leaving], 1)


class SplitPrior(nn.Module):
    """(μ, s) of what leaves a split, each [B, C, H, W] as what stays, by a convolution that starts at zero (Glow, §3.6)."""

    def __init__(self, channels: int, condition: int, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.convolution = zeroed(nn.Conv2d(channels, 2 * channels, 3, padding=1))
        self.condition = zeroed(nn.Linear(condition, 2 * channels, bias=False)) if condition else None

    def forward(self, staying: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        output = self.convolution(staying)
        if self.condition is not None:
            output = output + self.condition(condition)[:, :, None, None]
        mean, raw = output.chunk(2, 1)
        return mean, bounded(raw, self.bound)


class ConditionalPrior(nn.Module):
    """ε = (z − μ(y)) ⊙ exp(−s(y)) for z [B, D]: at the end, a Gaussian for each condition y, standard at first."""

    def __init__(self, size: int, condition: int, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.condition = zeroed(nn.Linear(condition, 2 * size, bias=False))

    def forward(self, z: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = self._law(condition)
        return (z - mean) * (-log_scale).exp(), -log_scale.sum(1)

    def inverse(self, y: Tensor, condition: Tensor) -> Tensor:
        mean, log_scale = self._law(condition)
        return y * log_scale.exp() + mean

    def _law(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.condition(condition).chunk(2, 1)
        return mean, bounded(raw, self.bound)
