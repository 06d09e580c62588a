"""The latent variable z of one step of a world model: a diagonal Gaussian, or several categoricals side by side.

Both have one form. `parameters` are a network's raw output [..., num_parameters], z is [..., size], noise is uniform in [0, 1)
[..., num_noise]. The temperature scales the noise: it multiplies a Gaussian's standard deviation and divides a categorical's
logits; at 0 there is only the most probable value.

Categoricals (Hafner et al. 2021, arXiv:2010.02193): z is one-hot in each group, drawn by inverting the distribution function;
its gradient is that of the probabilities, straight through (Bengio et al. 2013, arXiv:1308.3432). A share of the uniform
distribution is mixed in (Hafner et al. 2023, arXiv:2301.04104), so that no KL is infinite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.likelihoods import per_dimension, require
from generative.recurrent.variable import NORMAL, gaussian_kl
from generative.world.protocol import standard_normal


@dataclass(frozen=True)
class Gaussians:
    """N(μ, diag σ²) of `size` dimensions."""

    size: int

    @property
    def num_parameters(self) -> int:
        return self.size * NORMAL.out_features

    @property
    def num_noise(self) -> int:
        return self.size

    def sample(self, parameters: Tensor, noise: Tensor, temperature: float = 1.0) -> Tensor:
        return NORMAL.from_noise(self._shaped(parameters), temperature * standard_normal(noise))

    def mode(self, parameters: Tensor) -> Tensor:
        return self._shaped(parameters)[..., 0]

    def kl(self, posterior: Tensor, prior: Tensor) -> Tensor:
        """KL(q ‖ p) [...] in nats."""
        return gaussian_kl(self._shaped(posterior), self._shaped(prior))

    def _shaped(self, parameters: Tensor) -> Tensor:
        return per_dimension(parameters, NORMAL.out_features, -1)


@dataclass(frozen=True)
class Categoricals:
    """`groups` independent variables, each one of `classes`."""

    groups: int
    classes: int
    uniform: float = 0.01  # share of the uniform distribution in each

    def __post_init__(self) -> None:
        require(self.groups >= 1 and self.classes >= 2, "groups and classes", (self.groups, self.classes), "≥ 1 and ≥ 2")
        require(0 <= self.uniform < 1, "uniform", self.uniform, "a share below 1")

    @property
    def size(self) -> int:
        return self.groups * self.classes

    @property
    def num_parameters(self) -> int:
        return self.size

    @property
    def num_noise(self) -> int:
        return self.groups

    def log_probabilities(self, parameters: Tensor) -> Tensor:
        """[..., groups, classes]."""
        found = parameters.unflatten(-1, (self.groups, self.classes)).log_softmax(-1)
        if not self.uniform:
            return found
        share = found.new_full((), math.log(self.uniform / self.classes))
        return torch.logaddexp(found + math.log1p(-self.uniform), share)

    def sample(self, parameters: Tensor, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """One-hot in each group; the index is how many values of the distribution function don't exceed the noise."""
        if temperature == 0:
            return self.mode(parameters)
        log_p = self.log_probabilities(parameters)
        p = log_p.exp() if temperature == 1 else (log_p / temperature).softmax(-1)
        index = (noise[..., None] >= p.detach().cumsum(-1)[..., :-1]).sum(-1)
        return self._straight_through(F.one_hot(index, self.classes), p)

    def mode(self, parameters: Tensor) -> Tensor:
        p = self.log_probabilities(parameters).exp()
        return self._straight_through(F.one_hot(p.argmax(-1), self.classes), p)

    def kl(self, posterior: Tensor, prior: Tensor) -> Tensor:
        """KL(q ‖ p) [...] in nats, summed over the groups."""
        log_q, log_p = self.log_probabilities(posterior), self.log_probabilities(prior)
        return (log_q.exp() * (log_q - log_p)).sum((-2, -1))

    @staticmethod
    def _straight_through(one_hot: Tensor, p: Tensor) -> Tensor:
        return (one_hot.to(p.dtype) + (p - p.detach())).flatten(-2)


Latent = Gaussians | Categoricals


def balanced_kl(latent: Latent, posterior: Tensor, prior: Tensor, balance: float | None, free_nats: float) -> Tensor:
    """KL(q ‖ p) [...] with the gradient shared out: `balance` of it goes to the prior, the rest to the posterior.

    max(λ, b KL(sg q ‖ p) + (1 − b) KL(q ‖ sg p)), sg without gradient (Hafner et al. 2021, Alg. 2): the value stays that of the
    KL, and the prior learns faster than the posterior gives way. balance None: the plain KL. Steps that cost less than
    λ = `free_nats` get no gradient.

    >>> balanced_kl(Categoricals(1, 2, 0.0), torch.tensor([50.0, 0.0]), torch.tensor([0.0, 0.0]), 0.8, 0.0)
    tensor(0.6931)
    """
    if balance is None:
        kl = latent.kl(posterior, prior)
    else:
        kl = balance * latent.kl(posterior.detach(), prior) + (1 - balance) * latent.kl(posterior, prior.detach())
    return kl.clamp(min=free_nats) if free_nats else kl
