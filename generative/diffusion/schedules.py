"""Noise schedules: how fast data turn into noise, q(x_t | x_0) = N(√ᾱ_t x_0, (1 − ᾱ_t) I).

    α_t = 1 − β_t,   ᾱ_t = Π_{i ≤ t} α_i,   x_t = √α_t x_{t−1} + √β_t ε        (Ho et al. 2020, arXiv:2006.11239; notes §9.1)

The notes' §9.1 prints √ᾱ_t before x_{t−1}, where √α_t is right: the product is what accumulates from x_0. Everything is
float64, for 1 − ᾱ_1 is 1e-4 and less, and a product of a thousand factors. β ≤ 0.999 (Nichol & Dhariwal 2021,
arXiv:2102.09672), or the cosine's last step would forget all and divide by 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from generative.likelihoods import require

MAX_BETA = 0.999
OFFSET = 0.008  # s of the cosine schedule: keeps β_1 from vanishing
ScheduleName = Literal["linear", "cosine"]


def linear_betas(num_steps: int) -> Tensor:
    """From 1e-4 to 0.02 in 1,000 steps; with fewer, larger ones, so that about as much noise is added in all. float64 [T]."""
    scale = 1000 / num_steps
    return torch.linspace(1e-4 * scale, 0.02 * scale, num_steps, dtype=torch.float64).clamp(max=MAX_BETA)


def cosine_betas(num_steps: int) -> Tensor:
    """β_t = 1 − f(t)/f(t − 1) with f(t) = cos²(½π (t/T + s)/(1 + s)). float64 [T]."""
    share = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    kept = torch.cos(0.5 * math.pi * (share + OFFSET) / (1 + OFFSET)) ** 2
    return (1 - kept[1:] / kept[:-1]).clamp(max=MAX_BETA)


@dataclass(frozen=True)
class Schedule:
    """β_t and what follows from it, by the step t = 0…T: float64 [T + 1] each, where t = 0 is the data."""

    name: ScheduleName = "cosine"
    num_steps: int = 1000  # T

    def __post_init__(self) -> None:
        require(self.name in ("linear", "cosine"), "schedule", repr(self.name), "linear or cosine")
        require(self.num_steps >= 2, "num_steps", self.num_steps, "at least 2")

    @cached_property
    def beta(self) -> Tensor:
        """β_t; β_0 = 0."""
        made = linear_betas if self.name == "linear" else cosine_betas
        return torch.cat([torch.zeros(1, dtype=torch.float64), made(self.num_steps)])

    @cached_property
    def alpha_bar(self) -> Tensor:
        """ᾱ_t; ᾱ_0 = 1."""
        return (1 - self.beta).cumprod(0)

    @cached_property
    def posterior_variance(self) -> Tensor:
        """β̃_t = β_t (1 − ᾱ_{t−1})/(1 − ᾱ_t), of q(x_{t−1} | x_t, x_0). β̃_1 is 0, so its logarithm is clipped to that of β̃_2."""
        before = torch.cat([self.alpha_bar[:1], self.alpha_bar[:-1]])
        exact = self.beta * (1 - before) / (1 - self.alpha_bar).clamp(min=torch.finfo(torch.float64).tiny)
        return torch.cat([exact[:1], exact[2:3], exact[2:]])

    def variance(self, name: Literal["beta", "posterior"]) -> Tensor:
        """σ_t² of the reverse step: β_t, right for x_0 ~ N(0, I), or β̃_t, right for a single datum (Ho et al. 2020, §3.2)."""
        return self.beta if name == "beta" else self.posterior_variance

    def times(self, num_steps: int | None = None) -> list[int]:
        """T = t_1 > … > 0: as many steps as told, evenly spaced; None: all T.

        >>> Schedule(num_steps=10).times(4)
        [10, 8, 5, 2, 0]
        """
        n = self.num_steps if num_steps is None else num_steps
        require(1 <= n <= self.num_steps, "num_steps", n, f"from 1 to the schedule's {self.num_steps}")
        return [round(self.num_steps * (n - place) / n) for place in range(n + 1)]


def at(values: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """values [T + 1] at the steps t [B], shaped to multiply `like` [B, …] and of its dtype."""
    return values.to(t.device)[t].to(like.dtype).view(-1, *(1,) * (like.ndim - 1))


def diffused(x0: Tensor, t: Tensor, noise: Tensor, schedule: Schedule) -> Tensor:
    """x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε [B, …], for steps t [B]."""
    return at(schedule.alpha_bar.sqrt(), t, x0) * x0 + at((1 - schedule.alpha_bar).sqrt(), t, x0) * noise
