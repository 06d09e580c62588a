"""Heads: what a network's outputs say about data, p(x | parameters), one dimension at a time, in nats.

Minimising the mean of −log p(x | f(…)) is maximum likelihood (notes §1.2). With a Bernoulli it is binary cross-entropy, with
a Gaussian of fixed variance the squared error, with a Laplace of fixed scale the absolute error, each up to a constant and a
factor. Weight decay (λ/2)‖θ‖² added to Σ −log p is a prior θ ~ N(0, 1/λ): it makes the estimate the maximum a posteriori
(MAP; ridge regression where f is linear). Optimisers decay against the mean loss, so there λ is per datum; AdamW's decoupled
decay is only near it. The decoders of autoencoders (notes §5) and the outputs of autoregressive models are such heads.

Every head has the same form. `parameters` are [*S, P] for data x of shape S, P = `out_features`; `per_dimension` brings a
network's output there. `log_prob` sums over nothing: [*S]. `sample` takes noise that `noise(shape, generator)` drew, or a
generator; with a tensor it is a pure function and can be compiled.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def per_dimension(output: Tensor, out_features: int, dim: int = 1) -> Tensor:
    """Parameters from a network's output: [B, C·P, H, W] → [B, C, H, W, P] at `dim` 1, [B, D·P] → [B, D, P] likewise.

    >>> per_dimension(torch.zeros(2, 6, 4, 4), 3).shape
    torch.Size([2, 2, 4, 4, 3])
    """
    if out_features == 1:
        return output.unsqueeze(-1)
    dim = dim % output.ndim
    return output.unflatten(dim, (-1, out_features)).movedim(dim + 1, -1)


def soft_bound(x: Tensor, low: float, high: float) -> Tensor:
    """x kept within (low, high), almost unchanged inside, with a gradient on all sides (Chua et al. 2018, arXiv:1805.12114).

    A clamp would give no gradient outside, so that a scale once too small could never grow again.
    """
    above_low = (high - low) - F.softplus(high - x)
    return low + F.softplus(above_low)


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise −log(−log u) from uniform noise in [0, 1); u = 0 gives −∞, which is never the greatest."""
    return -torch.log(-torch.log(uniform))


def require(holds: bool, name: str, got: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {got}; expected {expected}")


class Likelihood(ABC):
    """The common form of the heads.

    `out_features`: parameters per dimension of x. `log_prob`: log p(x) [*S] in nats; that levels are within 0 … K − 1 isn't
    checked. `mean`: E[x] [*S]. `from_noise`: a sample [*S], a pure function of the noise.
    """

    @property
    @abstractmethod
    def out_features(self) -> int: ...

    @abstractmethod
    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor: ...

    @abstractmethod
    def mean(self, parameters: Tensor) -> Tensor: ...

    @abstractmethod
    def from_noise(self, parameters: Tensor, noise: Tensor) -> Tensor: ...

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """What `from_noise` takes for samples of `shape`, on the generator's device; by default uniform in [0, 1) [*S]."""
        return torch.rand(shape, generator=generator, device=generator.device)

    def sample(self, parameters: Tensor, noise: Tensor | torch.Generator) -> Tensor:
        """x ~ p [*S], from a generator or from noise that `noise` drew."""
        if isinstance(noise, torch.Generator):
            noise = self.noise(tuple(parameters.shape[:-1]), noise).to(parameters.device)
        return self.from_noise(parameters, noise)

    def _check(self, parameters: Tensor, x: Tensor) -> None:
        """Refuses shapes that would broadcast in silence."""
        expected = (*x.shape, self.out_features)
        if parameters.shape != expected:
            raise ValueError(
                f"{type(self).__name__} got parameters {list(parameters.shape)} for x {list(x.shape)}; "
                f"expected {list(expected)} (per_dimension brings a network's output to that form)"
            )


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """p(x = 1) = σ(logit), so log p = x·logit − softplus(logit) (notes §1.2).

    For x between 0 and 1 this is the cross-entropy that image models minimise, no density over [0, 1] (Loaiza-Ganem &
    Cunningham 2019, arXiv:1907.06845).

    >>> Bernoulli().log_prob(torch.tensor([[0.0]]), torch.tensor([1.0]))
    tensor([-0.6931])
    """

    @property
    def out_features(self) -> int:
        return 1

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        self._check(parameters, x)
        return -F.binary_cross_entropy_with_logits(parameters.squeeze(-1), x.to(parameters.dtype), reduction="none")

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters[..., 0].sigmoid()

    def from_noise(self, parameters: Tensor, noise: Tensor) -> Tensor:
        return (noise < self.mean(parameters)).to(parameters.dtype)


@dataclass(frozen=True)
class CategoricalHead(Likelihood):
    """p(x = k) = softmax(logits)ₖ over the levels 0 … K − 1, of which x is one (van den Oord et al. 2016, arXiv:1601.06759)."""

    levels: int  # K

    def __post_init__(self) -> None:
        require(self.levels >= 2, "levels", self.levels, "at least 2")

    @property
    def out_features(self) -> int:
        return self.levels

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        self._check(parameters, x)
        return parameters.log_softmax(-1).gather(-1, x.long()[..., None])[..., 0]

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters.softmax(-1) @ torch.arange(self.levels, device=parameters.device, dtype=parameters.dtype)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return super().noise((*shape, self.levels), generator)

    def from_noise(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """argmaxₖ logitₖ + gₖ with gₖ standard Gumbel, which is exact also where logits are −∞. Returns int64 levels."""
        return (parameters + gumbel(noise)).argmax(-1)


@dataclass(frozen=True)
class LocationScale:
    """What `Gaussian` and `Laplace` share: parameters (location,), or (location, raw log-scale) where the scale is learned."""

    scale: float | None = 1.0  # in units of x; None: learned
    log_scale_bounds: tuple[float, float] = (-7.0, 7.0)  # of a learned scale

    def __post_init__(self) -> None:
        require(self.scale is None or 0 < self.scale < math.inf, "scale", self.scale, "a positive number, or None to learn it")
        require(self.log_scale_bounds[0] < self.log_scale_bounds[1], "log_scale_bounds", self.log_scale_bounds, "low < high")

    @property
    def out_features(self) -> int:
        return 1 if self.scale is not None else 2

    def log_scale(self, parameters: Tensor) -> Tensor:
        """log σ [*S]."""
        if self.scale is not None:
            return torch.full_like(parameters[..., 0], math.log(self.scale))
        return soft_bound(parameters[..., 1], *self.log_scale_bounds)

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters[..., 0]


class Gaussian(LocationScale, Likelihood):
    """log p = −(x − μ)²/2σ² − log σ − ½ log 2π (notes §1.2). A density: above 1 where σ is small.

    >>> Gaussian().log_prob(torch.tensor([[0.0]]), torch.tensor([1.0]))
    tensor([-1.4189])
    """

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        self._check(parameters, x)
        log_scale = self.log_scale(parameters)
        standard = (x - parameters[..., 0]) * (-log_scale).exp()
        return -0.5 * standard**2 - log_scale - 0.5 * math.log(2 * math.pi)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Standard normal [*S]."""
        return torch.randn(shape, generator=generator, device=generator.device)

    def from_noise(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """μ + σε: differentiable in the parameters (the reparametrisation trick, notes §5.3)."""
        return parameters[..., 0] + self.log_scale(parameters).exp() * noise


class Laplace(LocationScale, Likelihood):
    """log p = −|x − μ|/b − log 2b (notes §1.2).

    >>> Laplace().log_prob(torch.tensor([[0.0]]), torch.tensor([1.0]))
    tensor([-1.6931])
    """

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        self._check(parameters, x)
        log_scale = self.log_scale(parameters)
        return -(x - parameters[..., 0]).abs() * (-log_scale).exp() - log_scale - math.log(2)

    def from_noise(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """μ − b sign(v) log(1 − 2|v|), v = u − ½: the inverse of the distribution function, differentiable too."""
        v = noise - 0.5
        magnitude = -torch.log1p(-(2 * v.abs()).clamp(max=1 - torch.finfo(v.dtype).eps))  # u = 0 would give −∞
        return parameters[..., 0] + self.log_scale(parameters).exp() * v.sign() * magnitude
