"""The β-VAE: a VAE whose KL term weighs β, or is held at or below δ nats by a multiplier.

    min E[−log p(x | z)] + β KL(q(z | x) ‖ N(0, I))                      (Higgins et al. 2017; notes §5.4)
    min E[−log p(x | z)]  subject to  KL ≤ δ                             (`max_kl` = δ)

β > 1 asks for fewer nats in the code, and for independent factors. The constrained form is the Lagrangian with β found by
ascent: after each update log β grows by `multiplier_rate` · (KL/δ − 1), bounded to ± that rate, so β rises while the
constraint is violated, falls while there is room, and stays positive (as in Rezende & Viola 2018, arXiv:1810.00597, with the
roles of the two terms exchanged). log β is a buffer: the optimiser of the weights would descend on it, to ∞ or 0. In
evaluation mode the constrained loss is E[−log p(x | z)] plus a penalty for KL above δ, which unlike the Lagrangian compares
between different β. `elbo` is the plain bound, at β = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.autoencoders.coders import check_coders
from generative.autoencoders.data_form import DataForm
from generative.autoencoders.gaussian import active_units
from generative.autoencoders.interpolation import interpolate
from generative.autoencoders.latent_gaussian import LatentGaussian
from generative.autoencoders.observation import Head, Scale, check_observation
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks.mlp import Activation

LOG_BETA_BOUNDS = (-12.0, 12.0)
PENALTY = 10.0  # nats per nat above δ, in units of max(1, β): above β, so that it is exact


@dataclass(frozen=True)
class BetaVAEConfig:
    shape: tuple[int, ...] = (64,)  # of a datum: (D,) for vectors, (H, W, C) for frames
    latent: int = 8  # dimensions of z
    hidden: tuple[int, ...] = (256,)  # widths of dense layers, from the data on; the decoder mirrors them
    channels: tuple[int, ...] = ()  # of convolutions, each of which halves the frame; none: dense layers
    activation: Activation = "relu"
    levels: int = 256  # grey levels of frames
    head: Head = "gaussian"  # p(x | z)
    scale: Scale = 1.0  # of a Gaussian or Laplace, in units of x; "calibrated" and "learned" partly undo β
    beta: float = 4.0  # β, or where it starts under `max_kl`
    max_kl: float | None = None  # δ, nats per datum; None: β is fixed
    multiplier_rate: float = 0.01  # of log β, per update

    def __post_init__(self) -> None:
        form = DataForm(self.shape, self.levels)
        check_coders(form, self.latent, self.hidden, self.channels)
        check_observation(form, self.head, self.scale)
        require(self.beta > 0, "beta", self.beta, "a positive number")
        require(self.max_kl is None or self.max_kl > 0, "max_kl", self.max_kl, "a positive number of nats, or None")
        require(self.multiplier_rate > 0, "multiplier_rate", self.multiplier_rate, "a positive number")


class BetaVAE(GenerativeModel):
    """p(x | z) and q(z | x) at a chosen rate."""

    Config = BetaVAEConfig
    config: BetaVAEConfig
    log_beta: Tensor
    last_kl: Tensor

    def __init__(self, config: BetaVAEConfig) -> None:
        super().__init__(config)
        c = config
        self.net = LatentGaussian(DataForm(c.shape, c.levels), c.latent, c.hidden, c.channels, c.activation, c.head, c.scale)
        self.register_buffer("log_beta", torch.tensor(math.log(c.beta)))
        self.register_buffer("last_kl", torch.zeros(()), persistent=False)  # of the update under way

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        likelihood, kl_per_dimension, mean = self.net.bound_terms(batch, generator)
        reconstruction, kl = -likelihood.mean(), kl_per_dimension.sum(1).mean()
        beta = self.log_beta.exp()
        metrics = {
            "reconstruction": reconstruction.detach(),
            "kl": kl.detach(),
            "beta": beta,
        }
        if not self.training:
            metrics["active_units"] = active_units(mean.detach())
        if self.config.max_kl is None:
            return reconstruction + beta * kl, metrics
        excess = kl - self.config.max_kl
        if not self.training:
            return reconstruction + PENALTY * beta.clamp(min=1) * excess.clamp(min=0), metrics
        self.last_kl.copy_(kl.detach())
        return reconstruction + beta * excess, metrics

    def after_update(self, player: str) -> None:
        if self.config.max_kl is not None:
            violation = (self.last_kl / self.config.max_kl - 1).clamp(-1, 1)
            self.log_beta.add_(self.config.multiplier_rate * violation).clamp_(*LOG_BETA_BOUNDS)

    def sample(self, n: int, cond: None = None, *, generator: torch.Generator) -> Tensor:
        """n data as recorded, noise of p(x | z) and all."""
        return self.net.sample(n, cond, generator)

    def elbo(self, x: Tensor, cond: None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """ELBO [B] in nats by one z for each x; without a generator the noise is always the same."""
        return self.net.elbo(x, cond, generator)

    def iwae(self, x: Tensor, num_samples: int, generator: torch.Generator) -> Tensor:
        """The importance-weighted bound [B] in nats (Burda et al. 2016)."""
        return self.net.importance_weighted(x, None, num_samples, generator)

    def encode(self, x: Tensor) -> Tensor:
        """The mean of q(z | x) [B, latent]."""
        return self.net.posterior(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        """E[x | z] as data are recorded, from z [B, latent]; of bits in vectors, their probabilities."""
        return self.net.decode(z, None)

    def interpolate(self, x0: Tensor, x1: Tensor, n: int) -> Tensor:
        """n data [B, n, …] from each x0 to its x1 [B, …], evenly spaced in z."""
        return interpolate(self.encode, self.decode, x0, x1, n)
