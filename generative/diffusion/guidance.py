"""Guidance: ε-functions that steer a sampler towards a condition y, by a scale w.

    classifier-free:  ε̂ = (1 − w) ε̂(x; t) + w ε̂(x, y; t)                      (Ho & Salimans 2022, arXiv:2207.12598)
    classifier:       ε̂ = ε̂(x; t) − w √(1 − ᾱ_t) ∇ log p(y | x_t)              (Dhariwal & Nichol 2021, arXiv:2105.05233)

w = 0 samples p(x), w = 1 p(x | y), and above it p(x) p(y | x)^w at each noise level, so to speak: sharper, less diverse. With
ρ of the notes' §9.4, (1 + ρ) ε̂(x, y; t) − ρ ε̂(x; t), w = 1 + ρ. The classifier must have been trained on noised inputs, as
that of `noised_classifier.py`: it is asked at every noise level.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from generative.diffusion.samplers import NoisePredictor
from generative.diffusion.schedules import Schedule, at


def classifier_free(conditional: NoisePredictor, unconditional: NoisePredictor, scale: float) -> NoisePredictor:
    """(1 − w) ε̂(x; t) + w ε̂(x, y; t); at w = 0 and w = 1 one of them alone, asked for once."""
    if scale == 0:
        return unconditional
    if scale == 1:
        return conditional
    return lambda x, t: (1 - scale) * unconditional(x, t) + scale * conditional(x, t)


def classifier_guided(
    noise_of: NoisePredictor, log_prob: Callable[[Tensor, Tensor], Tensor], schedule: Schedule, scale: float
) -> NoisePredictor:
    """ε̂ − w √(1−ᾱ_t) ∇ log p(y | x_t), where `log_prob` gives log p(y | x_t) [B] of x_t and t."""

    def guided(x: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            seen = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(log_prob(seen, t).sum(), seen)
        return noise_of(x, t) - scale * at((1 - schedule.alpha_bar).sqrt(), t, x) * slope

    return guided if scale else noise_of
