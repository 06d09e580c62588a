"""Glow: steps of activation norm, invertible 1 × 1 convolution and affine coupling, at several scales.

    step = coupling ∘ (W ·) ∘ act norm,        log |det| = Σ s(x_B) + H·W·(log |det W| + Σ s_norm)

Kingma & Dhariwal 2018 (arXiv:1807.03039); notes §7.5. Frames: L scales, each a squeeze, K steps, and half of the channels leave
under a Gaussian that depends on those that stay. With labels a Gaussian of their own stands at the end. Vectors: K steps, W a
matrix. The temperature of `sample` scales the noise of every scale. Deviations: the coupling's network is a convolution around
residual blocks (the paper's is 3 × 3, 1 × 1, 3 × 3 with 512 features); labels enter it too; s = a tanh, not log-sigmoid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generative.autoencoders.data_form import DataForm
from generative.flows.act_norm import ActNorm
from generative.flows.coupling import Coupling
from generative.flows.density import FlowDensity, check_flow
from generative.flows.inner_networks import ConvNetwork, DenseNetwork
from generative.flows.invertible_convolution import InvertibleConvolution
from generative.flows.multi_scale import Chain, ConditionalPrior, Flat, Split, SplitPrior, Squeeze, num_halvings
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks.mlp import Activation


@dataclass(frozen=True)
class GlowConfig:
    shape: tuple[int, ...] = (64,)  # of a datum: (D,) for vectors, (H, W, C) for frames
    num_steps: int = 8  # K, of each scale
    num_scales: int | None = None  # L, of frames: default 3, or as many as halve both sides evenly
    hidden_sizes: tuple[int, ...] = (64, 64)  # vectors: units of the network in each coupling
    hidden: int = 64  # frames: features of the convolutional network in each coupling
    num_blocks: int = 1  # frames: residual blocks of it
    activation: Activation = "silu"
    log_scale_bound: float = 2.0  # |s| of one coupling stays below, nats
    levels: int = 256  # of frames, which hold 0 … levels − 1
    alpha: float = 0.05  # margin of the frames' logit, a share of [0, 1]
    num_classes: int = 0  # of labels that condition the model; 0: none

    def __post_init__(self) -> None:
        form = DataForm(self.shape, self.levels)
        check_flow(form, self.num_classes, self.alpha, self.log_scale_bound)
        require(self.num_steps >= 1, "num_steps", self.num_steps, "at least 1")
        if form.is_frames:
            require(self.hidden >= 1 and self.num_blocks >= 0, "hidden, num_blocks", (self.hidden, self.num_blocks), "≥ 1, ≥ 0")
            most = num_halvings(self.shape[:2])
            require(most >= 1, "shape", self.shape, "frames with even sides: crop or resize them")
            require(1 <= self.scales <= most, "num_scales", self.num_scales, f"1 to {most}, as often as the sides halve evenly")

    @property
    def scales(self) -> int:
        """L, of frames."""
        return min(3, num_halvings(self.shape[:2])) if self.num_scales is None else self.num_scales


def step(config: GlowConfig, channels: int) -> list[nn.Module]:
    """One step of vectors [B, channels] or images [B, channels, H, W]."""
    moved = channels // 2
    if len(config.shape) == 3:
        network: nn.Module = ConvNetwork(
            moved, config.hidden, config.num_blocks, 2 * moved, config.activation, config.num_classes
        )
    else:
        network = DenseNetwork(channels - moved, config.hidden_sizes, 2 * moved, config.activation, config.num_classes)
    coupling = Coupling(network, affine=True, swap=False, bound=config.log_scale_bound)
    return [ActNorm(channels), InvertibleConvolution(channels), coupling]


def scale(config: GlowConfig, shape: tuple[int, int, int], number: int) -> nn.Module:
    """The transformation of images [B, *shape] from scale `number`, counted from 0, to the last; to z [B, D]."""
    channels, height, width = 4 * shape[0], shape[1] // 2, shape[2] // 2
    layers: list[nn.Module] = [Squeeze()]
    for _ in range(config.num_steps):
        layers += step(config, channels)
    if number == config.scales - 1:
        return Chain(*layers, ActNorm(channels), Flat((channels, height, width)))
    staying = (channels // 2, height, width)
    prior = SplitPrior(channels // 2, config.num_classes, config.log_scale_bound)
    return Chain(*layers, Split(staying, scale(config, staying, number + 1), prior))


class Glow(GenerativeModel):
    """p(x) or p(x | label); with labels `to_latent` and `from_latent` stand for `encode` and `decode`."""

    Config = GlowConfig
    config: GlowConfig

    def __init__(self, config: GlowConfig) -> None:
        super().__init__(config)
        form = DataForm(config.shape, config.levels)
        if form.is_frames:
            made = scale(config, form.inner, 0)  # type: ignore[arg-type]
        else:
            steps = [layer for _ in range(config.num_steps) for layer in step(config, form.size)]
            made = Chain(*steps, ActNorm(form.size))
        if config.num_classes:
            made = Chain(made, ConditionalPrior(form.size, config.num_classes, config.log_scale_bound))
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
