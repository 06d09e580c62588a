"""Samplers: from noise x_T to data, by any ε-function. They know nothing of models; exact ε* of a mixture serves as well.

A noise predictor is ε̂(x_t, t), of x_t [B, …] and steps t int64 [B], the same for all of a batch. The three samplers:

- ancestral (Ho et al. 2020, Alg. 2; notes' Algorithm 3): x_{t−1} = (x_t − β_t/√(1−ᾱ_t) ε̂)/√α_t + σ_t z, z = 0 at t = 1;
- DDIM (Song et al. 2021, eq. 12, arXiv:2010.02502): any subsequence of steps; η = 0 is deterministic, η = 1 on all steps is
  the ancestral sampler with σ² = β̃;
- the probability-flow ODE (Song et al. 2021, arXiv:2011.13456) by Heun's second-order method. By the angle φ = arccos √ᾱ it
  reads dx/dφ = v̂ = √ᾱ ε̂ − √(1−ᾱ) x̂_0 (Salimans & Ho 2022, appendix D, arXiv:2202.00512), which is 0 for data N(0, I) and
  stays small where ᾱ vanishes. DDIM with η = 0 follows the same ODE to first order.

With `clip` (pixels in [−1, 1]) the x̂_0 that ε̂ implies is clipped at each step, and ε̂ is the one that then fits. Coefficients
are computed in float64. All noise comes from the generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from generative.autoencoders.gaussian import standard_normal
from generative.diffusion.schedules import Schedule

NoisePredictor: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def predicted(noise_of: NoisePredictor, x: Tensor, t: int, schedule: Schedule, clip: bool) -> tuple[Tensor, Tensor]:
    """(x̂_0, ε̂) at step t of x_t [B, …], each [B, …], so that x_t = √ᾱ x̂_0 + √(1−ᾱ) ε̂."""
    kept = schedule.alpha_bar[t].item()
    noise = noise_of(x, torch.full((len(x),), t, device=x.device))
    clean = (x - math.sqrt(1 - kept) * noise) / math.sqrt(kept)
    if not clip:
        return clean, noise
    clean = clean.clamp(-1, 1)
    return clean, (x - math.sqrt(kept) * clean) / math.sqrt(1 - kept)


def ancestral_step(x: Tensor, noise: Tensor, t: int, schedule: Schedule, variance: Tensor, z: Tensor | None) -> Tensor:
    """x_{t−1} = μ + σ_t z of x_t and ε̂, with σ² of `variance` [T + 1]; z None: the mean, as at the last step.

    The mean is that of the notes' Algorithm 3. Its §9.3 misprints μ: the fraction bar swallows x_t.
    """
    beta, kept = schedule.beta[t].item(), schedule.alpha_bar[t].item()
    mean = (x - beta / math.sqrt(1 - kept) * noise) / math.sqrt(1 - beta)
    return mean if z is None else mean + math.sqrt(variance[t].item()) * z


@torch.no_grad()
def ancestral(
    noise_of: NoisePredictor,
    x: Tensor,  # x_T ~ N(0, I) [B, …]
    schedule: Schedule,
    *,
    generator: torch.Generator,
    variance: Literal["beta", "posterior"] = "beta",
    clip: bool = False,
) -> Tensor:
    """x_0 by all T steps."""
    variances = schedule.variance(variance)
    for t in range(schedule.num_steps, 0, -1):
        noise = predicted(noise_of, x, t, schedule, clip)[1]
        z = standard_normal(tuple(x.shape), generator, x) if t > 1 else None
        x = ancestral_step(x, noise, t, schedule, variances, z)
    return x


@torch.no_grad()
def ddim(
    noise_of: NoisePredictor,
    x: Tensor,  # x_T ~ N(0, I) [B, …]
    schedule: Schedule,
    *,
    times: list[int],  # T … 0, descending
    generator: torch.Generator | None = None,  # needed where η > 0
    eta: float = 0.0,  # η
    clip: bool = False,
) -> Tensor:
    """x_0 by the steps between `times`: x_s = √ᾱ_s x̂_0 + √(1−ᾱ_s−σ²) ε̂ + σ z, σ = η √((1−ᾱ_s)/(1−ᾱ_t)) √(1−ᾱ_t/ᾱ_s)."""
    for now, then in pairwise(times):
        clean, noise = predicted(noise_of, x, now, schedule, clip)
        kept, kept_then = schedule.alpha_bar[now].item(), schedule.alpha_bar[then].item()
        std = eta * math.sqrt((1 - kept_then) / (1 - kept) * (1 - kept / kept_then))
        x = math.sqrt(kept_then) * clean + math.sqrt(max(0.0, 1 - kept_then - std**2)) * noise
        if std > 0:
            assert generator is not None
            x = x + std * standard_normal(tuple(x.shape), generator, x)
    return x


@torch.no_grad()
def heun(
    noise_of: NoisePredictor,
    x: Tensor,  # x_T ~ N(0, I) [B, …]
    schedule: Schedule,
    *,
    times: list[int],  # T … 0, descending
    clip: bool = False,
) -> Tensor:
    """x_0 by the probability-flow ODE; each step asks for ε̂ twice. No ε̂ is known at t = 0: the end is x̂_0 at t = 1."""
    times = times if times[-2] == 1 else [*times[:-1], 1, 0]
    for now, then in pairwise(times[:-1]):
        step = angle(schedule, then) - angle(schedule, now)
        slope = velocity(noise_of, x, now, schedule, clip)
        ahead = velocity(noise_of, x + step * slope, then, schedule, clip)
        x = x + 0.5 * step * (slope + ahead)
    return predicted(noise_of, x, 1, schedule, clip)[0]


def angle(schedule: Schedule, t: int) -> float:
    """φ_t = arccos √ᾱ_t, from 0 at t = 0 to nearly ½π."""
    kept = schedule.alpha_bar[t].item()
    return math.atan2(math.sqrt(1 - kept), math.sqrt(kept))


def velocity(noise_of: NoisePredictor, x: Tensor, t: int, schedule: Schedule, clip: bool = False) -> Tensor:
    """v̂ = √ᾱ ε̂ − √(1−ᾱ) x̂_0 at step t of x_t [B, …]."""
    clean, noise = predicted(noise_of, x, t, schedule, clip)
    kept = schedule.alpha_bar[t].item()
    return math.sqrt(kept) * noise - math.sqrt(1 - kept) * clean
