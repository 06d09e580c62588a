"""The diagonal Gaussian of a variational posterior: pure functions of its mean and log σ, each [B, L], in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def kl_to_standard_normal(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) = ½(μ² + σ² − 1) − log σ, for each dimension [B, L] (notes §5.3).

    >>> kl_to_standard_normal(torch.tensor([[2.0]]), torch.tensor([[0.0]])).item()
    2.0
    """
    return 0.5 * (mean.square() + torch.expm1(2 * log_std)) - log_std


def reparametrise(mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    """z = μ + σ ε, differentiable in μ and σ (Kingma & Welling 2014, §2.4, arXiv:1312.6114; notes §5.3)."""
    return mean + log_std.exp() * noise


def normal_log_prob(z: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(z; μ, σ²) summed over the last dimension [B]."""
    standard = (z - mean) * (-log_std).exp()
    return (-0.5 * standard**2 - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)


def with_free_bits(kl: Tensor, free_nats: float) -> Tensor:
    """Σ_j max(λ, mean over the batch of KL_j), 0-dim, of kl [B, L] (Kingma et al. 2016, eq. 15, arXiv:1606.04934).

    A dimension that costs less than λ = `free_nats` gets no gradient from the KL term, so none is switched off early.

    >>> with_free_bits(torch.tensor([[0.1, 1.0], [0.3, 3.0]]), 0.5).item()
    2.5
    """
    return kl.mean(0).clamp(min=free_nats).sum()


def active_units(mean: Tensor, threshold: float = 0.01) -> Tensor:
    """How many of the posterior means [B, L] vary over the data by more than `threshold`, 0-dim (Burda et al. 2016, §5.2).

    >>> active_units(torch.tensor([[0.0, 1.0], [0.01, -1.0]])).item()
    1
    """
    return (mean.var(0, correction=0) > threshold).sum()


def standard_normal(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Noise of `like`'s type and device; drawn as float32, so that a model kept in float64 sees the same."""
    return torch.randn(shape, generator=generator, device=generator.device).to(like)
