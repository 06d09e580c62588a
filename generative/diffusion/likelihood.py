"""What a diffusion says of data: the variational bound of its chain, and the exact likelihood of its probability-flow ODE.

    log p(x_0) ≥ E log p(x_0 | x_1) − Σ_{t=2}^T E KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)) − KL(q(x_T | x_0) ‖ N(0, I))

(Ho et al. 2020, eq. 5; notes §9.3, whose derivation writes log p_θ(x_{0:T}) for the first term.) p(x_{t−1} | x_t) has the mean
of the notes' Algorithm 3 and the variance σ_t². p(x_0 | x_1) is that Gaussian too: a density of vectors; of frames its mass on
each level's bin, where the outermost levels take the tails. There the chain may end before t = 1, and x_0 be drawn from x_t at
a first step t at which noise does not hide the levels yet: finer noise tells nothing new, but a network that does not know the
grid of levels pays for it at each halving of σ. In nats, of x_0 as the chain sees it. A chain and an ODE of the
same ε̂ are two models of data, whose likelihoods differ a little.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from generative.autoencoders.gaussian import standard_normal
from generative.diffusion.samplers import NoisePredictor, angle, velocity
from generative.diffusion.schedules import Schedule, at, diffused


@dataclass(frozen=True)
class Chain:
    """The reverse process of an ε-function: what the ancestral sampler draws from."""

    schedule: Schedule
    variance: Literal["beta", "posterior"] = "beta"  # σ_t²
    levels: int | None = None  # of frames in [−1, 1], whose x̂_0 is clipped; None: vectors
    first: int = 1  # step from which x_0 is drawn

    def clean(self, noise_of: NoisePredictor, x_t: Tensor, t: Tensor) -> Tensor:
        """x̂_0 of x_t [B, …] at steps t [B]."""
        kept = self.schedule.alpha_bar
        made = (x_t - at((1 - kept).sqrt(), t, x_t) * noise_of(x_t, t)) / at(kept.sqrt(), t, x_t)
        return made.clamp(-1, 1) if self.levels else made

    def divergence(self, x0: Tensor, clean: Tensor, t: Tensor) -> Tensor:
        """KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)) [B], t > first: both Gaussian, of means that differ as x̂_0 does."""
        s = self.schedule
        before = torch.cat([s.alpha_bar[:1], s.alpha_bar[:-1]])
        variance = s.variance(self.variance)
        ratio = s.posterior_variance / variance
        weight = before * (s.beta / (1 - s.alpha_bar)) ** 2 / (2 * variance)
        return (0.5 * at(ratio - 1 - ratio.log(), t, x0) + at(weight, t, x0) * (x0 - clean) ** 2).flatten(1).sum(1)

    def drawn(self, x0: Tensor, clean: Tensor) -> Tensor:
        """log p(x_0 | x_t) [B] at the first step, whose mean is x̂_0; σ² has the share of 1 − ᾱ_t that it has at t = 1."""
        s = self.schedule
        std = math.sqrt((s.variance(self.variance)[1] / s.beta[1] * (1 - s.alpha_bar[self.first])).item())
        if self.levels is None:
            density = -0.5 * ((x0 - clean) / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)
            return density.flatten(1).sum(1)
        return binned_log_prob(x0, clean, std, 1 / (self.levels - 1)).flatten(1).sum(1)

    def prior(self, x0: Tensor) -> Tensor:
        """KL(q(x_T | x_0) ‖ N(0, I)) [B]."""
        kept = self.schedule.alpha_bar[-1].item()
        return 0.5 * (kept * x0**2 - kept - math.log1p(-kept)).flatten(1).sum(1)

    def proposal(self) -> Tensor:
        """q(t) for t = first + 1…T, float64: half of it as the KL terms weigh ‖ε − ε̂‖², half even."""
        kept = self.schedule.alpha_bar[self.first :]
        gain = (kept[:-1] / (1 - kept[:-1])) / (kept[1:] / (1 - kept[1:])) - 1
        return 0.5 * gain / gain.sum() + 0.5 / len(gain)


def binned_log_prob(x: Tensor, mean: Tensor, std: float, half: float) -> Tensor:
    """log of N(mean, std²)'s mass on [x − half, x + half], of x in [−1, 1]; the bins at −1 and 1 reach to infinity.

    Taken on the side of the mean where both tails are small, so that nothing cancels; at least about −700 in float64.
    """
    distance = (x - mean).double()
    side = distance.sign() + (distance == 0)
    low, high = (side * distance - half) / std, (side * distance + half) / std  # the mean is at 0, x at or right of it
    low = torch.where(side * x < -1 + half, -torch.inf, low)
    high = torch.where(side * x > 1 - half, torch.inf, high)
    mass = 0.5 * (torch.erfc(low / math.sqrt(2)) - torch.erfc(high / math.sqrt(2)))
    return mass.clamp(min=torch.finfo(torch.float64).tiny).log().to(x.dtype)


@torch.no_grad()
def variational_bound(
    noise_of: NoisePredictor, x0: Tensor, chain: Chain, *, generator: torch.Generator, num_times: int | None = None
) -> Tensor:
    """The bound [B] in nats, with one noise for each x_0 and term; its mean over noise is a lower bound of log p(x_0).

    num_times: KL terms computed for each datum, drawn in strata of `Chain.proposal` and weighted so that the mean stays the
    same; None, or as many as there are: all of them.
    """
    schedule, first = chain.schedule, chain.first

    def clean(t: Tensor) -> Tensor:
        noise = standard_normal(tuple(x0.shape), generator, x0)
        return chain.clean(noise_of, diffused(x0, t, noise, schedule), t)

    steps = torch.ones(len(x0), dtype=torch.int64, device=x0.device)
    bound = chain.drawn(x0, clean(first * steps)) - chain.prior(x0)
    if num_times is None or num_times >= schedule.num_steps - first:
        for t in range(first + 1, schedule.num_steps + 1):
            bound = bound - chain.divergence(x0, clean(t * steps), t * steps)
        return bound
    share = chain.proposal().to(x0.device)
    offset = torch.rand(len(x0), generator=generator, device=generator.device).to(x0.device).double()
    for stratum in range(num_times):
        place = torch.searchsorted(share.cumsum(0), (stratum + offset) / num_times).clamp(max=len(share) - 1)
        weight = (1 / (num_times * share[place])).to(x0.dtype)
        times = place + first + 1
        bound = bound - weight * chain.divergence(x0, clean(times), times)
    return bound


def ode_log_prob(
    noise_of: NoisePredictor, x0: Tensor, schedule: Schedule, *, times: list[int], probe: Tensor | None = None
) -> Tensor:
    """log p(x_0) [B] in nats under the probability-flow ODE dx/dφ = v̂, by Heun's method through `times` (T … 0, as samplers).

        log p(x_0) = log N(x_T; 0, I) + ∫ div v̂(x_t, t) dφ

    (Song et al. 2021, appendix D.2, arXiv:2011.13456; φ and v̂ as in `samplers`.) At t = 0, where no ε̂ is learned, v̂ is 0, as
    of any smooth density. The divergence is exact, by D backward passes; with `probe`, ±1 at random [B, …], it is
    Hutchinson's estimate of it.
    """
    x, slope, total, before = x0, torch.zeros_like(x0), x0.new_zeros(len(x0)), x0.new_zeros(len(x0))
    for now, then in pairwise(times[::-1]):
        step = angle(schedule, then) - angle(schedule, now)
        with torch.no_grad():
            ahead = velocity(noise_of, x + step * slope, then, schedule)
        x = x + 0.5 * step * (slope + ahead)
        slope, divergence = with_divergence(partial(velocity, noise_of, t=then, schedule=schedule, clip=False), x, probe)
        total, before = total + 0.5 * step * (before + divergence), divergence
    return total - 0.5 * (x**2 + math.log(2 * math.pi)).flatten(1).sum(1)


@torch.enable_grad()
def with_divergence(field: Callable[[Tensor], Tensor], x: Tensor, probe: Tensor | None) -> tuple[Tensor, Tensor]:
    """(v [B, …], div v [B]) of a vector field at x, both detached."""
    seen = x.detach().requires_grad_()
    made = field(seen)
    if probe is not None:
        (product,) = torch.autograd.grad((made * probe).sum(), seen)
        return made.detach(), (product * probe).flatten(1).sum(1)
    flat, rows = made.flatten(1), []
    for place in range(flat.shape[1]):
        (gradient,) = torch.autograd.grad(flat[:, place].sum(), seen, retain_graph=True)
        rows.append(gradient.flatten(1)[:, place])
    return made.detach(), torch.stack(rows).sum(0)
