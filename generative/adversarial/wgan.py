"""The Wasserstein GAN: the generator moves along the slope of a 1-Lipschitz critic.

    W₁(p, p_G) = max over 1-Lipschitz f of  E_{x ~ data} f(x) − E_z f(G(z)),        min_G W₁

Arjovsky et al. 2017 (arXiv:1701.07875); notes §8.2: unlike the Jensen–Shannon divergence, it has a slope where supports are
disjoint. Three ways to keep the critic's slope:

- one_sided (default): loss + λ E max(0, ‖∇f(x̂)‖ − 1)², x̂ uniform between a datum and a sample (Gulrajani et al. 2017,
  arXiv:1704.00028, §4; as one-sided in Petzka et al. 2018, arXiv:1709.08894);
- two_sided: loss + λ E (‖∇f(x̂)‖ − 1)². It also forbids slopes below 1, so a critic that starts with the wrong sign is
  trapped: the way to the right one leads over slope 0;
- clipping: every weight of the critic within ± `clip` after each update, as in the first paper. The slope is then bounded by
  some number that isn't 1, and the figure is W₁ up to that factor.

With the penalty the best critic is steeper than 1 where samples are rare between the two: its figure is
W₁ + (1/2λ) ∫ (F_p − F_G)²/ρ in one dimension (F the distribution functions, ρ the density of x̂).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from generative.adversarial.players import (
    Discriminator,
    Generator,
    Judge,
    check_players,
    frozen,
    input_gradients,
    opposed,
    turns,
)
from generative.autoencoders.data_form import DataForm
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks.mlp import Activation


@dataclass(frozen=True)
class WGANConfig:
    shape: tuple[int, ...] = (64,)  # of a datum: (D,) for vectors, (H, W, C) for frames
    latent: int = 16  # dimensions of z
    hidden: tuple[int, ...] = (128,)  # widths of dense layers, from the data on; the generator mirrors the critic
    channels: tuple[int, ...] = ()  # of convolutions, each of which halves the frame; none: dense layers
    features: int = 64  # units of the critic's last hidden layer, which `encode` gives
    activation: Activation = "relu"
    levels: int = 256  # of frames
    num_classes: int = 0  # of labels that condition the model; 0: none
    lipschitz: Literal["one_sided", "two_sided", "clipping"] = "one_sided"
    penalty_weight: float = 10.0  # λ
    clip: float = 0.01  # bound of the critic's weights, where they are clipped
    critic_updates: int = 5  # a step
    generator_updates: int = 1  # a step; 0: the generator stays as it is

    def __post_init__(self) -> None:
        form = DataForm(self.shape, self.levels)
        check_players(form, self.latent, self.hidden, self.channels, self.features, self.num_classes)
        turns("critic", self.critic_updates, self.generator_updates)
        require(self.penalty_weight > 0, "penalty_weight", self.penalty_weight, "a positive weight")
        require(self.clip > 0, "clip", self.clip, "a positive bound")


def between(real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    """x̂ = u x + (1 − u) G(z), one u ~ U(0, 1) a datum."""
    u = torch.rand(len(real), generator=generator, device=generator.device).to(real)
    return torch.lerp(fake, real, u.view(-1, *(1,) * (real.ndim - 1)))


def slope_penalty(slope: Tensor, *, one_sided: bool) -> Tensor:
    """E max(0, ‖∇f‖ − 1)² of slopes ‖∇f‖ [B], or E (‖∇f‖ − 1)².

    >>> slopes = torch.tensor([0.0, 1.0, 3.0, 3.0])
    >>> float(slope_penalty(slopes, one_sided=True)), float(slope_penalty(slopes, one_sided=False))
    (2.0, 2.25)
    """
    excess = slope - 1
    return (excess.clamp(min=0) if one_sided else excess).square().mean()


class WGAN(GenerativeModel):
    """A generator of data, or of data of a label, trained against a critic."""

    Config = WGANConfig
    config: WGANConfig

    def __init__(self, config: WGANConfig) -> None:
        super().__init__(config)
        c = config
        self.form = DataForm(c.shape, c.levels)
        self.critic = Discriminator(self.form, c.hidden, c.channels, c.features, c.activation, c.num_classes, bias=False)
        self.generator = Generator(self.form, c.latent, c.hidden, c.channels, c.activation, c.num_classes)
        self.schedule = turns("critic", c.critic_updates, c.generator_updates)
        self.conditioned_on = "label" if c.num_classes else None

    def loss(self, batch: Batch, player: str = "critic", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        """Of the critic, E f(G(z)) − E f(x) and its penalty; of the generator, −E f(G(z)). In units of f, not in nats."""
        require(player in ("critic", "generator"), "player", repr(player), "'critic' or 'generator'")
        real, fake, label = opposed(self.form, self.generator, batch, generator)
        if player == "generator":
            loss = -frozen(self.critic)(fake, label).mean()
            return loss, {"fake_value": -loss.detach()}
        fake = fake.detach()
        distance = self.critic(real, label).mean() - self.critic(fake, label).mean()
        if self.config.lipschitz == "clipping":
            return -distance, {"distance": distance.detach()}
        slope = self.slope(self.critic, between(real, fake, generator), label)
        penalty = slope_penalty(slope, one_sided=self.config.lipschitz == "one_sided")
        metrics = {"distance": distance, "penalty": penalty, "slope": slope.mean(), "steepest": slope.max()}
        return self.config.penalty_weight * penalty - distance, {key: figure.detach() for key, figure in metrics.items()}

    @staticmethod
    def slope(critic: Judge, x: Tensor, label: Tensor | None) -> Tensor:
        """‖∇_x f(x)‖ [B], over all dimensions of a datum."""
        return (input_gradients(critic, x, label).square().sum(1) + 1e-12).sqrt()  # the root has no gradient at 0

    @torch.no_grad()
    def after_update(self, player: str) -> None:
        """Clip the critic's weights, where they are to be."""
        if player == "critic" and self.config.lipschitz == "clipping":
            for weight in self.critic.parameters():
                weight.clamp_(-self.config.clip, self.config.clip)

    def sample(self, n: int, cond: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """n data as recorded; `cond` are labels [n]."""
        return self.form.recorded(self.generator.draw(n, cond, generator))

    def generate(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """G(z) as data are recorded, from z [B, latent]. (No `decode`: `encode` doesn't give z.)"""
        return self.form.recorded(self.generator(z, cond))

    def value(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """f(x) [B]."""
        return self.critic(self.form.inputs(x, self.critic.output.weight.dtype), cond)

    def encode(self, x: Tensor) -> Tensor:
        """The critic's last hidden layer [B, features]."""
        return self.critic.features(self.form.inputs(x, self.critic.output.weight.dtype))
