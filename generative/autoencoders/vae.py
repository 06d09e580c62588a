"""The variational autoencoder: a latent-variable model trained by maximising the ELBO.

    ELBO(x) = E_{z ~ q(z | x)} log p(x | z) − KL(q(z | x) ‖ N(0, I)) ≤ log p(x)

Kingma & Welling 2014 (arXiv:1312.6114), Rezende et al. 2014; notes §5.3. Both terms are sums over dimensions and means over
the batch, so the loss is −ELBO in nats; one z per datum, by the reparametrisation trick. Against posterior collapse there
are, in training only, KL warm-up (Sønderby et al. 2016, arXiv:1602.02282) and free bits (Kingma et al. 2016): in evaluation
mode the loss is always the plain −ELBO, so that validations compare. `iwae` is the importance-weighted bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from generative.autoencoders.coders import check_coders
from generative.autoencoders.data_form import DataForm
from generative.autoencoders.gaussian import active_units, with_free_bits
from generative.autoencoders.interpolation import interpolate
from generative.autoencoders.latent_gaussian import LatentGaussian
from generative.autoencoders.observation import Head, Scale, check_observation
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks.mlp import Activation


@dataclass(frozen=True)
class VAEConfig:
    shape: tuple[int, ...] = (64,)  # of a datum: (D,) for vectors, (H, W, C) for frames
    latent: int = 8  # dimensions of z
    hidden: tuple[int, ...] = (256,)  # widths of dense layers, from the data on; the decoder mirrors them
    channels: tuple[int, ...] = ()  # of convolutions, each of which halves the frame; none: dense layers
    activation: Activation = "relu"
    levels: int = 256  # grey levels of frames
    head: Head = "gaussian"  # p(x | z)
    scale: Scale = "calibrated"  # of a Gaussian or Laplace, in units of x (of frames: of [0, 1]); calibrated: one for all
    num_classes: int = 0  # of labels that condition the model; 0: none
    warm_up: int = 0  # updates over which the KL's weight rises to 1
    free_nats: float = 0.0  # nats that each dimension of z may use without cost, on a batch's mean

    def __post_init__(self) -> None:
        form = DataForm(self.shape, self.levels)
        check_coders(form, self.latent, self.hidden, self.channels)
        check_observation(form, self.head, self.scale)
        for name in ("num_classes", "warm_up", "free_nats"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")


class VAE(GenerativeModel):
    """p(x) = ∫ p(x | z) N(z; 0, I) dz, or p(x | label)."""

    Config = VAEConfig
    config: VAEConfig
    num_updates: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__(config)
        c = config
        form = DataForm(c.shape, c.levels)
        self.net = LatentGaussian(form, c.latent, c.hidden, c.channels, c.activation, c.head, c.scale, c.num_classes)
        if c.num_classes:
            self.conditioned_on = "label"
            self.decode = None  # type: ignore[method-assign,assignment]  # a code alone doesn't tell the class
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        likelihood, kl, mean = self.net.bound_terms(batch, generator)
        reconstruction, total_kl = -likelihood.mean(), kl.sum(1).mean()
        metrics = {"reconstruction": reconstruction.detach(), "kl": total_kl.detach()}
        if not self.training:
            return reconstruction + total_kl, metrics | {"active_units": active_units(mean.detach())}
        if self.config.free_nats:
            total_kl = with_free_bits(kl, self.config.free_nats)
        return reconstruction + (self.kl_weight() * total_kl if self.config.warm_up else total_kl), metrics

    def kl_weight(self) -> Tensor:
        """min(1, (updates done + 1) / warm_up), 0-dim."""
        return ((self.num_updates + 1) / max(1, self.config.warm_up)).clamp(max=1)

    def after_update(self, player: str) -> None:
        self.num_updates += 1

    def sample(self, n: int, cond: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """n data as recorded, noise of p(x | z) and all; `cond` are labels [n]."""
        return self.net.sample(n, cond, generator)

    def elbo(self, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """ELBO [B] in nats by one z for each x; without a generator the noise is always the same."""
        return self.net.elbo(x, cond, generator)

    def iwae(self, x: Tensor, num_samples: int, generator: torch.Generator, cond: Tensor | None = None) -> Tensor:
        """The importance-weighted bound [B] in nats: above the ELBO, and tight as `num_samples` grows (Burda et al. 2016)."""
        return self.net.importance_weighted(x, cond, num_samples, generator)

    def encode(self, x: Tensor) -> Tensor:
        """The mean of q(z | x) [B, latent]."""
        return self.net.posterior(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        """E[x | z] as data are recorded, from z [B, latent]; of bits in vectors, their probabilities. None with labels."""
        return self.reconstruct(z)

    def reconstruct(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """E[x | z, label] as `decode` has it: with another label than the datum's, the same style in another class."""
        return self.net.decode(z, cond)

    def interpolate(self, x0: Tensor, x1: Tensor, n: int, cond: Tensor | None = None) -> Tensor:
        """n data [B, n, …] from each x0 to its x1 [B, …], evenly spaced in z."""
        repeated = None if cond is None else cond.repeat_interleave(n)
        return interpolate(self.encode, lambda z: self.reconstruct(z, repeated), x0, x1, n)
