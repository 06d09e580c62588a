"""Losses of policies and values: pure functions of tensors of one shape, averaged with weights (0: a row doesn't count)."""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_mean(x: Tensor, weight: Tensor) -> Tensor:
    """Σ w x / Σ w, and 0 where no row counts."""
    return (weight * x).sum() / weight.sum().clamp(min=1.0)


def normalised(x: Tensor, weight: Tensor) -> Tensor:
    """(x − mean) / standard deviation over the rows that count; unchanged where fewer than two do."""
    mean = weighted_mean(x, weight)
    deviation = weighted_mean((x - mean) ** 2, weight).sqrt()
    return torch.where(weight.sum() > 1, (x - mean) / (deviation + 1e-8), x)


def policy_gradient(log_prob: Tensor, advantage: Tensor, weight: Tensor) -> Tensor:
    """−mean log π(a | s) A, whose descent is ascent on log π · A (Williams 1992; notes §10.3). A must be detached."""
    return -weighted_mean(log_prob * advantage, weight)


def clipped_ratio(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, weight: Tensor, clip: float) -> Tensor:
    """−mean min(ρA, clip(ρ, 1 − c, 1 + c) A), ρ = π/π_old (Schulman et al. 2017, eq. 7, arXiv:1707.06347)."""
    ratio = (log_prob - old_log_prob).exp()
    return -weighted_mean(torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage), weight)


def value_loss(value: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """mean (V(s) − target)² / 2; its gradient is the TD error's."""
    return 0.5 * weighted_mean((value - target) ** 2, weight)


def explained_variance(value: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """1 − Var(target − V) / Var(target): 1 is perfect, 0 is no better than a constant."""
    error, spread = target - value, target - weighted_mean(target, weight)
    error = error - weighted_mean(error, weight)
    return 1 - weighted_mean(error**2, weight) / (weighted_mean(spread**2, weight) + 1e-8)
