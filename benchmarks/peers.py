"""Flows and diffusion beside zuko, normflows and diffusers: training steps and sampling, same sizes, in turn in one process.

The rows of `benchmarks/generative.py --only flows` and `--only diffusion`. Where a library takes any network in its couplings
it is given ours, so that what is compared is the flow around it. diffusers' own U-Net has more blocks than ours for the same
channels, so its blocks, time embedding and attention are put together in our order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import normflows
import torch
import zuko
from diffusers import DDIMScheduler
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F

import generative
from generative.flows.inner_networks import ConvNetwork

BATCH, DRAWN = 64, 64


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    model: nn.Module
    loss: Callable[[], Tensor]  # of one batch
    sample: Callable[[], Any]  # DRAWN data


@dataclass(frozen=True)
class Peer:
    name: str
    sides: Callable[[], tuple[Side, Side]]  # ours, theirs


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ours(name: str, x: Tensor, **config: Any) -> Side:
    model, generator = generative.build(name, **config), seeded()
    with torch.no_grad():
        model.loss({"x": x}, generator=generator)  # activation norms measure their first batch
    return Side(model, lambda: model.loss({"x": x}, generator=generator)[0], lambda: model.sample(DRAWN, generator=generator))


def vectors(size: int = 16) -> Tensor:
    return torch.randn(BATCH, size, generator=seeded())


def by_zuko() -> tuple[Side, Side]:
    x = vectors()
    flow = zuko.flows.RealNVP(16, transforms=8, hidden_features=(64, 64))
    own = ours("real_nvp", x, shape=(16,), num_couplings=8, hidden_sizes=(64, 64), activation="relu")
    return own, Side(flow, lambda: -flow().log_prob(x).mean(), lambda: flow().sample((DRAWN,)))


def by_normflows(name: str, affine: bool) -> Callable[[], tuple[Side, Side]]:
    def sides() -> tuple[Side, Side]:
        x = vectors()
        layers: list[nn.Module] = []
        for _ in range(8):
            network = normflows.nets.MLP([8, 64, 64, 16 if affine else 8], init_zeros=True)
            coupling = normflows.flows.AffineCouplingBlock(network, scale=affine)
            layers += [*([normflows.flows.ActNorm(16)] if affine else []), coupling, normflows.flows.Permute(16)]
        flow = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(16, trainable=False), layers)
        own = ours(name, x, shape=(16,), num_couplings=8, hidden_sizes=(64, 64), activation="relu")
        return own, Side(flow, lambda: flow.forward_kld(x), lambda: flow.sample(DRAWN))

    return sides


def glow_of_normflows() -> tuple[Side, Side]:
    """16 × 16 × 3, two scales of four steps; our convolutional network in both."""
    frames = torch.randint(256, (BATCH, 16, 16, 3), generator=seeded(), dtype=torch.uint8)
    images = frames.movedim(3, 1) / 256
    bases, blocks, merges = [], [], []
    for channels, side in ((24, 4), (12, 8)):  # from the latent's side
        steps: list[nn.Module] = []
        for _ in range(4):
            block = normflows.flows.GlowBlock(channels, 32, scale_map="exp", use_lu=True)
            network = ConvNetwork(channels // 2, 32, 1, channels, "silu")
            block.flows[0] = normflows.flows.AffineCouplingBlock(network, scale_map="exp")
            steps.append(block)
        blocks.append([*steps, normflows.flows.Squeeze()])
        bases.append(normflows.distributions.DiagGaussian((channels if channels == 24 else 6, side, side), trainable=False))
    merges.append(normflows.flows.Merge())
    flow = normflows.MultiscaleFlow(bases, blocks, merges)
    own = ours("glow", frames, shape=(16, 16, 3), num_steps=4, num_scales=2, hidden=32, num_blocks=1)
    noise = seeded()
    dequantised = lambda: images + torch.rand(images.shape, generator=noise) / 256  # noqa: E731
    return own, Side(flow, lambda: -flow.log_prob(dequantised(), None).mean(), lambda: flow.sample(DRAWN))


class UNetOfDiffusers(nn.Module):
    """Our U-Net of two scales in diffusers' parts."""

    def __init__(self, channels: int, first: int, second: int, embedding: int) -> None:
        super().__init__()

        def block(before: int, after: int) -> nn.Module:
            settings = {"temb_channels": embedding, "groups": 8, "time_embedding_norm": "scale_shift"}
            return ResnetBlock2D(in_channels=before, out_channels=after, **settings)

        self.periods = Timesteps(embedding, True, 0)
        self.time = TimestepEmbedding(embedding, embedding)
        self.input, self.output = nn.Conv2d(channels, first, 3, padding=1), nn.Conv2d(first, channels, 3, padding=1)
        self.down = nn.ModuleList([block(first, first), block(first, second)])
        self.attention = Attention(
            second, heads=second // 32, dim_head=32, norm_num_groups=8, residual_connection=True, bias=True
        )
        self.bottom, self.up, self.last = block(second, second), block(second + first, first), block(2 * first, first)
        self.norm = nn.GroupNorm(8, first)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        e = self.time(self.periods(t))
        h0 = self.input(x)
        h1 = self.down[0](h0, e)
        h2 = self.bottom(self.attention(self.down[1](F.avg_pool2d(h1, 2), e)), e)
        h = self.up(torch.cat([F.interpolate(h2, scale_factor=2), h1], 1), e)
        return self.output(F.silu(self.norm(self.last(torch.cat([h, h0], 1), e))))


def diffusion_of_diffusers() -> tuple[Side, Side]:
    frames = torch.randint(256, (BATCH, 16, 16, 3), generator=seeded(), dtype=torch.uint8)
    x, noise = frames.movedim(3, 1) / 127.5 - 1, seeded()
    net = UNetOfDiffusers(3, 32, 64, 64)
    scheduler = DDIMScheduler(1000, beta_schedule="squaredcos_cap_v2")

    def loss() -> Tensor:
        epsilon, t = torch.randn(x.shape, generator=noise), torch.randint(1000, (BATCH,), generator=noise)
        return F.mse_loss(net(scheduler.add_noise(x, epsilon, t), t), epsilon)

    def sample() -> Tensor:
        scheduler.set_timesteps(50)
        drawn = torch.randn((DRAWN, 3, 16, 16), generator=noise)
        for t in scheduler.timesteps:
            drawn = scheduler.step(net(drawn, t.expand(DRAWN)), int(t), drawn).prev_sample
        return ((drawn + 1) * 127.5).clamp(0, 255).byte()

    own = ours("diffusion", frames, shape=(16, 16, 3), channels=(32, 64), prediction="epsilon", sample_steps=50)
    return own, Side(net, loss, sample)


FLOWS = [
    Peer("NICE, 16 dimensions, 8 couplings of 64-64; normflows", by_normflows("nice", affine=False)),
    Peer("RealNVP, the same; normflows", by_normflows("real_nvp", affine=True)),
    Peer("RealNVP, the same; zuko", by_zuko),
    Peer("Glow, 16 × 16 × 3, 2 scales of 4 steps, 32 channels; normflows", glow_of_normflows),
]
DIFFUSION = [
    Peer("diffusion, 16 × 16 × 3, 32 and 64 channels, attention at 8 × 8, 50 steps; diffusers", diffusion_of_diffusers)
]
