"""The head of PixelCNN++: integer levels as bins of a mixture of logistics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.likelihoods import Likelihood, gumbel, require, soft_bound


@dataclass(frozen=True)
class DiscretisedLogisticMixture(Likelihood):
    """Levels 0 … K − 1 as bins of a mixture of logistics (PixelCNN++, Salimans et al. 2017, §2.1, arXiv:1701.05517).

    With v = 2x/(K − 1) − 1 and h = 1/(K − 1), P(x) = Σᵢ πᵢ [σ((v + h − μᵢ)/sᵢ) − σ((v − h − μᵢ)/sᵢ)], where the first term is
    1 at x = K − 1 and the second 0 at x = 0: the edges take the tails. Parameters per dimension: M logits of π, M means
    in units of v, M raw log-scales. Deviations: dimensions are independent given the parameters (no colour coupling); the
    log-scale is softly bounded where the paper's code clamps it; and σ(b) − σ(a) is computed by the identity
    log = log(1 − e^(a − b)) + log σ(b) + log σ(−a), exact also in the tails, where the paper's code turns to the density.
    """

    levels: int = 256  # K
    components: int = 5  # M
    log_scale_bounds: tuple[float, float] = (-7.0, 7.0)

    def __post_init__(self) -> None:
        require(self.levels >= 2, "levels", self.levels, "at least 2")
        require(self.components >= 1, "components", self.components, "at least 1")
        require(self.log_scale_bounds[0] < self.log_scale_bounds[1], "log_scale_bounds", self.log_scale_bounds, "low < high")

    @property
    def out_features(self) -> int:
        return 3 * self.components

    def split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(log π, μ, log s), each [*S, M]."""
        logits, means, raw = parameters.unflatten(-1, (3, self.components)).unbind(-2)
        return logits.log_softmax(-1), means, soft_bound(raw, *self.log_scale_bounds)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        self._check(parameters, x)
        log_weights, means, log_scales = self.split(parameters)  # [*S, M]
        half = 1 / (self.levels - 1)
        level = x.to(parameters.dtype)[..., None]  # [*S, 1]
        distance = level * (2 * half) - 1 - means
        rate = (-log_scales).exp()
        below = torch.where(level < self.levels - 1, F.logsigmoid((distance + half) * rate), 0)  # log σ(b)
        above = torch.where(level > 0, F.logsigmoid((half - distance) * rate), 0)  # log σ(−a)
        inner = (level > 0) & (level < self.levels - 1)
        width = torch.where(inner, torch.log(-torch.expm1(-2 * half * rate)), 0)
        return (log_weights + below + above + width).logsumexp(-1)

    def mean(self, parameters: Tensor) -> Tensor:
        """E[x] = Σₖ P(x > k) in levels, exact; a loop over the K − 1 bounds between levels spares [*S, M, K] of memory."""
        log_weights, means, log_scales = self.split(parameters)
        rate = (-log_scales).exp()
        total = torch.zeros_like(means)
        for k in range(self.levels - 1):
            total = total + ((means - ((2 * k + 1) / (self.levels - 1) - 1)) * rate).sigmoid()
        return (log_weights.exp() * total).sum(-1)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Uniform [*S, M + 1]: M to choose the component, one for the logistic."""
        return super().noise((*shape, self.components + 1), generator)

    def from_noise(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """μ + s·logit(u) of the chosen component, rounded to its level. Returns int64 levels."""
        log_weights, means, log_scales = self.split(parameters)
        chosen = (log_weights + gumbel(noise[..., :-1])).argmax(-1, keepdim=True)
        mean, log_scale = means.gather(-1, chosen)[..., 0], log_scales.gather(-1, chosen)[..., 0]
        v = (mean + log_scale.exp() * noise[..., -1].logit()).clamp(-1, 1)
        return ((v + 1) * (0.5 * (self.levels - 1))).round().long()
