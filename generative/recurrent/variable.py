"""A latent variable v of one time step: its prior p(v | h), its posterior q(v | x, h), and KL(q ‖ p) in closed form.

Gaussian, with diagonal covariance: v = μ + σε, reparametrised (Kingma & Welling 2013, arXiv:1312.6114). Discrete, one of K:
v is one-hot at argmaxₖ (logitₖ + gₖ), g Gumbel noise; the gradient is that of softmax(logit + g), straight through (Jang et
al. 2016, arXiv:1611.01144). So a bound is the true discrete model's, and only its gradient along a path is approximate.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.likelihoods import Gaussian, per_dimension
from generative.networks.mlp import MLP

Kind = Literal["gaussian", "discrete"]
NORMAL = Gaussian(scale=None)  # both mean and scale are a network's


class Network(nn.Module):
    """An MLP and a linear map side by side, [..., in_features] → [..., out_features]: what is linear need not be imitated."""

    def __init__(self, in_features: int, hidden_sizes: tuple[int, ...], out_features: int, activation: str) -> None:
        super().__init__()
        self.mlp = MLP(in_features, hidden_sizes, out_features, activation)
        self.linear = nn.Linear(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) + self.linear(x)


class Variable(nn.Module):
    """v [..., size] given features h [..., num_given], and x [..., num_seen] for the posterior.

    The parameters of a distribution are [..., size, 2] (mean and raw log-scale) or, discrete, logits [..., size].
    """

    def __init__(
        self, kind: Kind, size: int, num_given: int, num_seen: int, hidden_sizes: tuple[int, ...], activation: str
    ) -> None:
        super().__init__()
        self.kind, self.size = kind, size
        outputs = size if kind == "discrete" else size * NORMAL.out_features
        self.prior_network = Network(num_given, hidden_sizes, outputs, activation)
        self.posterior_network = Network(num_given + num_seen, hidden_sizes, outputs, activation)

    def prior(self, given: Tensor) -> Tensor:
        return self._shaped(self.prior_network(given))

    def posterior(self, x: Tensor, given: Tensor) -> Tensor:
        return self._shaped(self.posterior_network(torch.cat([x, given], -1)))

    def value(self, parameters: Tensor, noise: Tensor | None) -> Tensor:
        """A sample from standard normal noise [..., size]; without noise the mean, a discrete one's probabilities."""
        if self.kind == "gaussian":
            return parameters[..., 0] if noise is None else NORMAL.from_noise(parameters, noise)
        if noise is None:
            return parameters.softmax(-1)
        perturbed = parameters + gumbel_from_normal(noise)
        soft = perturbed.softmax(-1)
        return F.one_hot(perturbed.argmax(-1), self.size) + (soft - soft.detach())

    def log_prob(self, parameters: Tensor, value: Tensor) -> Tensor:
        """log p(value) [...] in nats."""
        if self.kind == "gaussian":
            return NORMAL.log_prob(parameters, value).sum(-1)
        return (parameters.log_softmax(-1) * value).sum(-1)

    def kl(self, posterior: Tensor, prior: Tensor) -> Tensor:
        """KL(q ‖ p) [...] in nats."""
        return gaussian_kl(posterior, prior) if self.kind == "gaussian" else discrete_kl(posterior, prior)

    def _shaped(self, output: Tensor) -> Tensor:
        return output if self.kind == "discrete" else per_dimension(output, NORMAL.out_features, -1)


def gumbel_from_normal(noise: Tensor) -> Tensor:
    """−log(−log Φ(ε)): Gumbel noise from normal noise, finite in both tails."""
    return -torch.log(-torch.special.log_ndtr(noise))


def gaussian_kl(posterior: Tensor, prior: Tensor) -> Tensor:
    """Σ log σ_p/σ_q + (σ_q² + (μ_q − μ_p)²)/2σ_p² − ½ over the last dimension but one of [..., L, 2].

    >>> gaussian_kl(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]]))
    tensor(0.5000)
    """
    log_q, log_p = NORMAL.log_scale(posterior), NORMAL.log_scale(prior)
    distance = (posterior[..., 0] - prior[..., 0]) ** 2
    return (log_p - log_q + 0.5 * (((2 * log_q).exp() + distance) * (-2 * log_p).exp() - 1)).sum(-1)


def discrete_kl(posterior: Tensor, prior: Tensor) -> Tensor:
    """Σₖ q(k) (log q(k) − log p(k)) from logits [..., K].

    >>> discrete_kl(torch.tensor([50.0, 0.0]), torch.tensor([0.0, 0.0]))
    tensor(0.6931)
    """
    log_q, log_p = posterior.log_softmax(-1), prior.log_softmax(-1)
    return (log_q.exp() * (log_q - log_p)).sum(-1)
