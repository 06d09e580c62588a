"""Networks that know the time: an MLP for vectors and a U-Net with attention for frames, told t and a condition.

Both are told e = MLP(sines and cosines of t) + W c at every block, as a scale and a shift of its features (Ho et al. 2020,
appendix B, arXiv:2006.11239; Perez et al. 2018, arXiv:1709.07871). The condition c is one vector: a one-hot label, or numbers
and a 1 beside them. So zeros everywhere are no condition: the null token of classifier-free guidance (notes §9.4). Output
layers start at zero.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.autoencoders.data_form import DataForm
from generative.likelihoods import require


class TimeEmbedding(nn.Module):
    """Steps t [B] of 0…T → [B, features], from sines and cosines at periods from 2π/1000 to 2π·10 of t/T."""

    def __init__(self, num_steps: int, features: int) -> None:
        super().__init__()
        self.num_steps, self.num_periods = num_steps, max(2, features // 2)
        self.dense = nn.Sequential(nn.Linear(2 * self.num_periods, features), nn.SiLU(), nn.Linear(features, features))

    def forward(self, t: Tensor) -> Tensor:
        place = torch.arange(self.num_periods, device=t.device, dtype=torch.float64) / (self.num_periods - 1)
        angle = t.double()[:, None] * (1000 / self.num_steps) * (1e-4**place)  # [B, periods]
        return self.dense(torch.cat([angle.sin(), angle.cos()], 1).to(next(self.parameters()).dtype))


class Modulation(nn.Module):
    """h (1 + a(e)) + b(e), for features h [B, C, …] and e [B, E]."""

    def __init__(self, embedding: int, channels: int) -> None:
        super().__init__()
        self.affine = nn.Linear(embedding, 2 * channels)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.affine(F.silu(e)).view(len(e), -1, *(1,) * (h.ndim - 2)).chunk(2, 1)
        return h * (1 + scale) + shift


class TimedMLP(nn.Module):
    """Vectors [B, in_features] and e [B, E] → [B, out_features]; equally wide layers after another are residual."""

    def __init__(self, in_features: int, hidden: tuple[int, ...], out_features: int, embedding: int) -> None:
        super().__init__()
        sizes = (in_features, *hidden)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))
        self.modulations = nn.ModuleList(Modulation(embedding, size) for size in hidden)
        self.output = nn.Linear(sizes[-1], out_features)

    def features(self, x: Tensor, e: Tensor, depth: int) -> Tensor:
        """The layer at `depth`, from 1 on [B, D]."""
        for place, (layer, modulation) in enumerate(list(zip(self.layers, self.modulations))[:depth]):
            h = F.silu(modulation(layer(x), e))
            x = x + h if place and x.shape == h.shape else h
        return x

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return self.output(self.features(x, e, len(self.layers)))


class ResidualBlock(nn.Module):
    """h + conv(σ(modulated norm(conv(σ(norm(h)))))) [B, C, H, W] (He et al. 2016)."""

    def __init__(self, before: int, after: int, embedding: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([normalisation(before), normalisation(after)])
        self.convolutions = nn.ModuleList([nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)])
        self.modulation = Modulation(embedding, after)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        start_at_zero(self.convolutions[1])

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.convolutions[0](F.silu(self.norms[0](x)))
        return self.skip(x) + self.convolutions[1](F.silu(self.modulation(self.norms[1](h), e)))


class Attention(nn.Module):
    """h + W softmax(q kᵀ/√d) v among all pixels of h [B, C, H, W], a head for each 32 channels (Vaswani et al. 2017)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_heads = math.gcd(channels, max(1, channels // 32))
        self.norm = normalisation(channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.output = nn.Conv2d(channels, channels, 1)
        start_at_zero(self.output)

    def forward(self, x: Tensor) -> Tensor:
        made = self.query_key_value(self.norm(x)).flatten(2).unflatten(1, (3, self.num_heads, -1))  # [B, 3, heads, d, H·W]
        query, key, value = made.transpose(3, 4).unbind(1)
        seen = F.scaled_dot_product_attention(query, key, value)  # [B, heads, H·W, d]
        return x + self.output(seen.transpose(2, 3).reshape(x.shape))


class TimedUNet(nn.Module):
    """Images [B, in_channels, H, W] and e [B, E] → [B, out_channels, H, W]; attention at the smallest scale.

    `channels` are those of each scale, from the whole image down: one halving less than channels, odd sides rounded up.
    """

    def __init__(self, in_channels: int, channels: tuple[int, ...], out_channels: int, embedding: int) -> None:
        super().__init__()
        sizes = channels[:1] + channels
        self.input = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        self.down = nn.ModuleList(ResidualBlock(before, after, embedding) for before, after in pairwise(sizes))
        self.attention = Attention(channels[-1])
        self.bottom = ResidualBlock(channels[-1], channels[-1], embedding)
        upwards = list(pairwise(channels[::-1]))
        self.up = nn.ModuleList(ResidualBlock(before + after, after, embedding) for before, after in upwards)
        self.last = ResidualBlock(2 * channels[0], channels[0], embedding)
        self.norm = normalisation(channels[0])
        self.output = nn.Conv2d(channels[0], out_channels, 3, padding=1)

    def descend(self, x: Tensor, e: Tensor, depth: int) -> list[Tensor]:
        """The input's features and those of the first `depth` scales, each at its own resolution."""
        found = [self.input(x)]
        for place, block in enumerate(self.down[:depth]):
            found.append(block(F.avg_pool2d(found[-1], 2, ceil_mode=True) if place else found[-1], e))
        if depth == len(self.down):
            found[-1] = self.bottom(self.attention(found[-1]), e)
        return found

    def features(self, x: Tensor, e: Tensor, depth: int) -> Tensor:
        """The scale at `depth`, from 1 on, flattened [B, C·H·W]."""
        return self.descend(x, e, depth)[-1].flatten(1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        first, *scales = self.descend(x, e, len(self.down))
        h = scales.pop()
        for block in self.up:
            beside = scales.pop()
            h = block(torch.cat([F.interpolate(h, size=beside.shape[-2:]), beside], 1), e)
        return self.output(F.silu(self.norm(self.last(torch.cat([h, first], 1), e))))


class TimedNetwork(nn.Module):
    """x_t [B, D] or [B, C, H, W], steps t [B] and a condition c [B, condition] → as many numbers as told.

    For vectors [B, out_features]; for frames out_features are the channels: [B, out_features, H, W].
    """

    def __init__(
        self,
        form: DataForm,
        out_features: int,
        hidden: tuple[int, ...],  # widths of the MLP, for vectors
        channels: tuple[int, ...],  # of the U-Net's scales, for frames
        embedding: int,  # numbers of e
        num_steps: int,  # T
        condition: int = 0,  # numbers of c
    ) -> None:
        super().__init__()
        self.time = TimeEmbedding(num_steps, embedding)
        self.condition = nn.Linear(condition, embedding, bias=False) if condition else None
        self.body = (
            TimedUNet(form.inner[0], channels, out_features, embedding)
            if form.is_frames
            else TimedMLP(form.size, hidden, out_features, embedding)
        )
        self.depth = len(channels if form.is_frames else hidden)
        start_at_zero(self.body.output)

    def embedding(self, t: Tensor, c: Tensor | None) -> Tensor:
        """e [B, E]; without c that of the null token."""
        e = self.time(t)
        return e if self.condition is None or c is None else e + self.condition(c)

    def features(self, x: Tensor, t: Tensor, depth: int) -> Tensor:
        """The hidden features at `depth` of 1…self.depth, flattened [B, F], without a condition."""
        return self.body.features(x, self.embedding(t, None), depth)

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        return self.body(x, self.embedding(t, c))


def check_sizes(form: DataForm, hidden: tuple[int, ...], channels: tuple[int, ...], embedding: int) -> None:
    """Of a configuration. Raises ValueError where no network can be built."""
    require(embedding >= 4, "embedding", embedding, "at least 4")
    sizes, name = (channels, "channels") if form.is_frames else (hidden, "hidden")
    require(len(sizes) >= 1 and min(sizes) >= 1, name, sizes, "at least one, of at least 1 each")
    if form.is_frames:
        fits = min(form.shape[:2]) >= 2 ** (len(channels) - 1)
        require(fits, "channels", channels, f"fewer scales: each but the first halves the sides of {form.shape}")


def normalisation(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, 8), channels)


def start_at_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
