"""The unrolled GAN: its generator is judged by the discriminator that would answer it, K steps ahead.

    θ⁰ = θ_D,    θ^{k+1} = θ^k + η ∇_θ V(D_{θ^k}, G)  for k < K,        G minimises its loss at D_{θ^K}

Metz et al. 2017 (arXiv:1611.02163), eq. 7–9; notes §8.2 (which speak of the last k discriminators: it is the next K). The
gradient runs through all K steps, by which G sees how D reacts to it: a generator that drops modes is answered at once, so it
covers them. The steps are plain ascent on the update's own minibatch, and leave the discriminator as it is; then it is
trained like any other.

The generator's loss is V(D_{θ^K}, G) by default, its first term too since θ^K depends on G: that is the paper's.
`non_saturating` is −E log D_{θ^K}(G(z)).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generative.adversarial.gan import Objective, generator_loss, standing, value
from generative.adversarial.players import Discriminator, Generator, Judge, check_players, opposed, turns, with_weights
from generative.autoencoders.data_form import DataForm
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks.mlp import Activation


@dataclass(frozen=True)
class UnrolledGANConfig:
    shape: tuple[int, ...] = (64,)  # of a datum: (D,) for vectors, (H, W, C) for frames
    latent: int = 16  # dimensions of z
    hidden: tuple[int, ...] = (128,)  # widths of dense layers, from the data on; the generator mirrors the discriminator
    channels: tuple[int, ...] = ()  # of convolutions, each of which halves the frame; none: dense layers
    features: int = 64  # units of the discriminator's last hidden layer, which `encode` gives
    activation: Activation = "relu"
    levels: int = 256  # of frames
    num_classes: int = 0  # of labels that condition the model; 0: none
    objective: Objective = "saturating"  # of the generator
    unrolled_steps: int = 5  # K; 0: a plain GAN
    unrolled_rate: float = 0.1  # η
    discriminator_updates: int = 1  # a step
    generator_updates: int = 1  # a step; 0: the generator stays as it is

    def __post_init__(self) -> None:
        form = DataForm(self.shape, self.levels)
        check_players(form, self.latent, self.hidden, self.channels, self.features, self.num_classes)
        turns("discriminator", self.discriminator_updates, self.generator_updates)
        require(self.unrolled_steps >= 0, "unrolled_steps", self.unrolled_steps, "0 or more")
        require(self.unrolled_rate > 0, "unrolled_rate", self.unrolled_rate, "a positive step size")


@torch.compiler.disable  # torch.compile has no second derivatives
def unrolled(discriminator: nn.Module, real: Tensor, fake: Tensor, label: Tensor | None, num_steps: int, rate: float) -> Judge:
    """D_{θ^K}, a function of `fake` through its weights too; `discriminator` stays as it is, to the bit."""
    with torch.enable_grad():
        weights = {name: weight.detach().requires_grad_() for name, weight in discriminator.named_parameters()}
        for _ in range(num_steps):
            judge = with_weights(discriminator, weights)
            reached = value(judge(real, label), judge(fake, label))
            gradients = torch.autograd.grad(reached, list(weights.values()), create_graph=True)
            weights = {name: weight + rate * ascent for (name, weight), ascent in zip(weights.items(), gradients)}
    return with_weights(discriminator, weights)


class UnrolledGAN(GenerativeModel):
    """A GAN whose generator looks K steps of the discriminator ahead."""

    Config = UnrolledGANConfig
    config: UnrolledGANConfig

    def __init__(self, config: UnrolledGANConfig) -> None:
        super().__init__(config)
        c = config
        self.form = DataForm(c.shape, c.levels)
        self.discriminator = Discriminator(self.form, c.hidden, c.channels, c.features, c.activation, c.num_classes)
        self.generator = Generator(self.form, c.latent, c.hidden, c.channels, c.activation, c.num_classes)
        self.schedule = turns("discriminator", c.discriminator_updates, c.generator_updates)
        self.conditioned_on = "label" if c.num_classes else None

    def loss(self, batch: Batch, player: str = "discriminator", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        """Of the discriminator, −V(D, G); of the generator, its objective at the unrolled discriminator."""
        require(player in ("discriminator", "generator"), "player", repr(player), "'discriminator' or 'generator'")
        real, fake, label = opposed(self.form, self.generator, batch, generator)
        if player == "generator":
            return self._generator_loss(real, fake, label)
        real_logit, fake_logit = self.discriminator(real, label), self.discriminator(fake.detach(), label)
        return -value(real_logit, fake_logit), standing(real_logit, fake_logit)

    def _generator_loss(self, real: Tensor, fake: Tensor, label: Tensor | None) -> tuple[Tensor, Metrics]:
        c = self.config
        ahead = unrolled(self.discriminator, real, fake, label, c.unrolled_steps, c.unrolled_rate)
        real_logit, fake_logit = ahead(real, label), ahead(fake, label)
        saturating = c.objective == "saturating"
        loss = value(real_logit, fake_logit) if saturating else generator_loss(fake_logit, c.objective)
        return loss, {f"unrolled_{key}": figure for key, figure in standing(real_logit, fake_logit).items()}

    def sample(self, n: int, cond: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """n data as recorded; `cond` are labels [n]."""
        return self.form.recorded(self.generator.draw(n, cond, generator))

    def generate(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """G(z) as data are recorded, from z [B, latent]. (No `decode`: `encode` doesn't give z.)"""
        return self.form.recorded(self.generator(z, cond))

    def logit(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """The logit of D(x) [B]."""
        return self.discriminator(self.form.inputs(x, self.discriminator.output.weight.dtype), cond)

    def encode(self, x: Tensor) -> Tensor:
        """The discriminator's last hidden layer [B, features]."""
        return self.discriminator.features(self.form.inputs(x, self.discriminator.output.weight.dtype))
