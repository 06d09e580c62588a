"""The generative adversarial network: samples that a discriminator can't tell from data.

    min_G max_D  V(D, G) = E_{x ~ data} log D(x) + E_z log(1 − D(G(z)))

Goodfellow et al. 2014 (arXiv:1406.2661), Alg. 1; notes §8. At the best discriminator, D*(x) = p(x)/(p(x) + p_G(x)), the value
is −ln 4 + 2 JSD(p, p_G) (notes, theorems 2 and 3), so (V + ln 4)/2 is logged as an estimate of the divergence: below it for
any other D. D is kept as a logit, D(x) = sigmoid(f(x)), and all logarithms are softplus, so nothing overflows.

The generator minimises −E log D(G(z)) by default, which has a gradient where D is sure of itself; `saturating` is V as it
stands. The penalty (γ/2) E‖∇f(x)‖² on data, an option, makes the game converge (R₁, Mescheder et al. 2018, arXiv:1801.04406).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.adversarial.players import Discriminator, Generator, check_players, frozen, input_gradients, opposed, turns
from generative.autoencoders.data_form import DataForm
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks.mlp import Activation

Objective = Literal["non_saturating", "saturating"]


@dataclass(frozen=True)
class GANConfig:
    shape: tuple[int, ...] = (64,)  # of a datum: (D,) for vectors, (H, W, C) for frames
    latent: int = 16  # dimensions of z
    hidden: tuple[int, ...] = (128,)  # widths of dense layers, from the data on; the generator mirrors the discriminator
    channels: tuple[int, ...] = ()  # of convolutions, each of which halves the frame; none: dense layers
    features: int = 64  # units of the discriminator's last hidden layer, which `encode` gives
    activation: Activation = "relu"
    levels: int = 256  # of frames
    num_classes: int = 0  # of labels that condition the model; 0: none
    objective: Objective = "non_saturating"  # of the generator
    discriminator_updates: int = 1  # a step
    generator_updates: int = 1  # a step; 0: the generator stays as it is
    r1: float = 0.0  # γ, weight of the squared gradient at data

    def __post_init__(self) -> None:
        form = DataForm(self.shape, self.levels)
        check_players(form, self.latent, self.hidden, self.channels, self.features, self.num_classes)
        turns("discriminator", self.discriminator_updates, self.generator_updates)
        require(self.r1 >= 0, "r1", self.r1, "0 or more")


def value(real_logit: Tensor, fake_logit: Tensor) -> Tensor:
    """V(D, G) of logits [B] each: E log D(x) + E log(1 − D(G(z))), nats."""
    return -F.softplus(-real_logit).mean() - F.softplus(fake_logit).mean()


def generator_loss(fake_logit: Tensor, objective: Objective) -> Tensor:
    """−E log D(G(z)), or E log(1 − D(G(z))) where it saturates; of logits [B]."""
    return F.softplus(-fake_logit).mean() if objective == "non_saturating" else -F.softplus(fake_logit).mean()


def standing(real_logit: Tensor, fake_logit: Tensor) -> dict[str, Tensor]:
    """How the game stands: V, the divergence it stands for (nats, at most ln 2), and the mean D of data and of samples."""
    reached = value(real_logit, fake_logit).detach()
    return {
        "value": reached,
        "js_divergence": (reached + math.log(4)) / 2,
        "real_probability": real_logit.detach().sigmoid().mean(),
        "fake_probability": fake_logit.detach().sigmoid().mean(),
    }


class GAN(GenerativeModel):
    """A generator of data, or of data of a label, trained against a discriminator."""

    Config = GANConfig
    config: GANConfig

    def __init__(self, config: GANConfig) -> None:
        super().__init__(config)
        c = config
        self.form = DataForm(c.shape, c.levels)
        self.discriminator = Discriminator(self.form, c.hidden, c.channels, c.features, c.activation, c.num_classes)
        self.generator = Generator(self.form, c.latent, c.hidden, c.channels, c.activation, c.num_classes)
        self.schedule = turns("discriminator", c.discriminator_updates, c.generator_updates)
        self.conditioned_on = "label" if c.num_classes else None

    def loss(self, batch: Batch, player: str = "discriminator", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        """Of the discriminator, −V(D, G) and its penalty; of the generator, its objective."""
        require(player in ("discriminator", "generator"), "player", repr(player), "'discriminator' or 'generator'")
        real, fake, label = opposed(self.form, self.generator, batch, generator)
        if player == "generator":
            fake_logit = frozen(self.discriminator)(fake, label)
            return generator_loss(fake_logit, self.config.objective), {"fake_probability": fake_logit.detach().sigmoid().mean()}
        real_logit, fake_logit = self.discriminator(real, label), self.discriminator(fake.detach(), label)
        loss, metrics = -value(real_logit, fake_logit), standing(real_logit, fake_logit)
        if self.config.r1:
            squared_norm = input_gradients(self.discriminator, real, label).square().sum(1).mean()
            loss = loss + self.config.r1 / 2 * squared_norm
            metrics["squared_input_gradient"] = squared_norm.detach()
        return loss, metrics

    def sample(self, n: int, cond: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """n data as recorded; `cond` are labels [n]."""
        return self.form.recorded(self.generator.draw(n, cond, generator))

    def generate(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """G(z) as data are recorded, from z [B, latent]. (No `decode`: `encode` doesn't give z.)"""
        return self.form.recorded(self.generator(z, cond))

    def logit(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """The logit of D(x) [B]; at the best discriminator log p(x)/p_G(x)."""
        return self.discriminator(self.form.inputs(x, self.discriminator.output.weight.dtype), cond)

    def encode(self, x: Tensor) -> Tensor:
        """The discriminator's last hidden layer [B, features]."""
        return self.discriminator.features(self.form.inputs(x, self.discriminator.output.weight.dtype))
