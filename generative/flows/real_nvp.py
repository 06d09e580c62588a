"""RealNVP: a flow of affine couplings, over vectors or over frames at several scales.

    y_A = x_A ⊙ exp(s(x_B)) + t(x_B),  y_B = x_B,        log p(x) = log N(z; 0, I) + Σ over couplings of Σ s

Dinh et al. 2016 (arXiv:1605.08803); notes §7.5. Vectors: halves in turn, in a new fixed order after each pair. Frames, at each
scale: checkerboard couplings of alternating colour, a squeeze, couplings over halves of the channels, and half of the channels
leave; the last scale has one more checkerboard coupling and no squeeze. Deviations: activation norm (Glow) in place of batch
norm, which would make a datum's density depend on its batch; s is bounded by a fixed tanh.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generative.autoencoders.data_form import DataForm
from generative.flows.act_norm import ActNorm
from generative.flows.coupling import CheckerboardCoupling, Coupling
from generative.flows.density import FlowDensity, check_flow
from generative.flows.inner_networks import ConvNetwork, DenseNetwork
from generative.flows.multi_scale import Chain, Flat, Permutation, Split, Squeeze, num_halvings
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks.mlp import Activation


@dataclass(frozen=True)
class RealNVPConfig:
    shape: tuple[int, ...] = (64,)  # of a datum: (D,) for vectors, (H, W, C) for frames
    num_couplings: int | None = None  # of vectors in all, default 8; of frames for each kind of mask and scale, default 3
    hidden_sizes: tuple[int, ...] = (64, 64)  # vectors: units of the network in each coupling
    hidden: int = 32  # frames: features of the convolutional network in each coupling
    num_blocks: int = 2  # frames: residual blocks of it
    num_scales: int | None = None  # frames: default 3, or as many as halve both sides evenly
    activation: Activation = "silu"
    log_scale_bound: float = 2.0  # |s| of one coupling stays below, nats
    levels: int = 256  # of frames, which hold 0 … levels − 1
    alpha: float = 0.05  # margin of the frames' logit, a share of [0, 1]
    num_classes: int = 0  # of labels that condition the model; 0: none

    def __post_init__(self) -> None:
        form = DataForm(self.shape, self.levels)
        check_flow(form, self.num_classes, self.alpha, self.log_scale_bound)
        require(self.couplings >= 2, "num_couplings", self.num_couplings, "at least 2, so that each half is moved")
        if form.is_frames:
            require(self.hidden >= 1 and self.num_blocks >= 0, "hidden, num_blocks", (self.hidden, self.num_blocks), "≥ 1, ≥ 0")
            most = num_halvings(self.shape[:2]) + 1
            require(1 <= self.scales <= most, "num_scales", self.num_scales, f"1 to {most}, as often as the sides halve evenly")

    @property
    def couplings(self) -> int:
        return self.num_couplings or (3 if len(self.shape) == 3 else 8)

    @property
    def scales(self) -> int:
        """Of frames."""
        return min(3, num_halvings(self.shape[:2]) + 1) if self.num_scales is None else self.num_scales


def vector_couplings(config: RealNVPConfig) -> nn.Module:
    """The transformation of vectors [B, D]."""
    size = config.shape[0]
    layers: list[nn.Module] = []
    for place in range(config.couplings):
        swap = place % 2 == 1
        moved = size - size // 2 if swap else size // 2
        network = DenseNetwork(size - moved, config.hidden_sizes, 2 * moved, config.activation, config.num_classes)
        if size > 2 and place and not swap:
            layers.append(Permutation(torch.randperm(size)))
        layers += [ActNorm(size), Coupling(network, affine=True, swap=swap, bound=config.log_scale_bound)]
    return Chain(*layers, ActNorm(size))


def scale(config: RealNVPConfig, shape: tuple[int, int, int], number: int) -> nn.Module:
    """The transformation of images [B, *shape] from scale `number`, counted from 0, to the last; to z [B, D]."""
    channels, height, width = shape

    def network(inputs: int, outputs: int) -> nn.Module:
        return ConvNetwork(inputs, config.hidden, config.num_blocks, outputs, config.activation, config.num_classes)

    last = number == config.scales - 1
    layers: list[nn.Module] = []
    for place in range(config.couplings + last):
        board = CheckerboardCoupling(network(channels, 2 * channels), parity=place % 2, bound=config.log_scale_bound)
        layers += [ActNorm(channels), board]
    if last:
        return Chain(*layers, ActNorm(channels), Flat(shape))
    half = 2 * channels  # of the squeezed channels
    layers.append(Squeeze())
    for place in range(config.couplings):
        halves = Coupling(network(half, 2 * half), affine=True, swap=place % 2 == 1, bound=config.log_scale_bound)
        layers += [ActNorm(2 * half), halves]
    smaller = (half, height // 2, width // 2)
    return Chain(*layers, ActNorm(2 * half), Split(smaller, scale(config, smaller, number + 1)))


class RealNVP(GenerativeModel):
    """p(x) or p(x | label); with labels `to_latent` and `from_latent` stand for `encode` and `decode`."""

    Config = RealNVPConfig
    config: RealNVPConfig

    def __init__(self, config: RealNVPConfig) -> None:
        super().__init__(config)
        form = DataForm(config.shape, config.levels)
        made = scale(config, form.inner, 0) if form.is_frames else vector_couplings(config)  # type: ignore[arg-type]
        self.flow = FlowDensity(form, made, config.num_classes, config.alpha)
        self.flow.settle_capabilities(self)

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        return self.flow.loss(batch, generator)

    def log_prob(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """log p(x) of vectors [B] in nats, exact. None over frames."""
        return self.flow.log_prob(x, cond)

    def elbo(self, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """A bound of log P(x) of frames [B] in nats, by one noise each, the same without a generator. None over vectors."""
        return self.flow.log_prob(x, cond, generator)

    def sample(self, n: int, cond: Tensor | None = None, *, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """n data as recorded; `cond` are labels [n]. Below 1 the temperature keeps nearer to the middle."""
        return self.flow.sample(n, cond, generator, temperature)

    def encode(self, x: Tensor) -> Tensor:
        """z [B, D], as many dimensions as x has; frames at the middle of their levels. None with labels."""
        return self.flow.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """x as recorded, from z [B, D]: the inverse of `encode`. None with labels."""
        return self.flow.decode(z)

    def to_latent(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """`encode` beside labels [B]."""
        return self.flow.encode(x, cond)

    def from_latent(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """`decode` beside labels [B]; with another label than the datum's, the same style in another class."""
        return self.flow.decode(z, cond)
