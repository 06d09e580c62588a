"""What a decoder says of data: p(x | z) with one of the shared heads, over vectors and frames alike.

The variance decides how much a VAE keeps: too large and codes collapse, too small and the prior is ignored. It can be fixed,
learned per dimension and datum, or calibrated: one σ for all, learned by maximum likelihood (σ-VAE, Rybkin et al. 2021,
arXiv:2006.13202; its optimum is the root mean squared error).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from generative.autoencoders.data_form import DataForm
from generative.discretised_logistic import DiscretisedLogisticMixture
from generative.likelihoods import Bernoulli, CategoricalHead, Gaussian, Laplace, Likelihood, per_dimension, require

Head = Literal["bernoulli", "gaussian", "laplace", "categorical", "logistic_mixture"]
Scale = float | Literal["calibrated", "learned"]
LOG_SCALE_RATE = 10.0  # log σ = 10 θ: optimisers like Adam move any θ by about the learning rate, and log σ has far to go


def check_observation(form: DataForm, head: Head, scale: Scale) -> None:
    """Of a configuration. Raises ValueError where the head doesn't suit the data."""
    if head in ("categorical", "logistic_mixture"):
        require(form.is_frames, "shape", form.shape, f"(H, W, C): the {head} head is over the levels of frames")
    if head == "bernoulli" and form.is_frames:
        require(
            form.levels == 2,
            "levels",
            form.levels,
            "2 with the bernoulli head; for grey levels take gaussian or logistic_mixture",
        )
    require(isinstance(scale, str) or scale > 0, "scale", scale, "a positive number, 'calibrated' or 'learned'")


class Observation(nn.Module):
    """p(x | output) for a decoder's raw output [B, D·P] or [B, C·P, H, W], P = `out_features`.

    x is inner data [B, D] or [B, C, H, W], frames in [0, 1]. Gaussian and Laplace heads are densities in those units, the
    others probabilities of levels.
    """

    def __init__(self, form: DataForm, head: Head, scale: Scale) -> None:
        super().__init__()
        self.levels = form.levels
        self.discrete = head in ("categorical", "logistic_mixture")
        self.binary = head == "bernoulli"
        self.likelihood = _likelihood(head, scale, form.levels)
        calibrated = scale == "calibrated" and head in ("gaussian", "laplace")
        self.raw_log_scale = nn.Parameter(torch.zeros(())) if calibrated else None
        self.out_features = self.likelihood.out_features - calibrated

    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        """log p of each dimension, [B, D] or [B, C, H, W]; nats. Raises ValueError for what no bit can be."""
        if self.binary and not torch.compiler.is_compiling():
            low, high = (bound.item() for bound in x.aminmax())
            if math.isnan(low):
                raise ValueError("x is not finite everywhere; expected numbers: drop such data, or replace what is missing")
            if low < 0 or high > 1:
                raise ValueError(
                    f"x is from {low:g} to {high:g}; expected 0 to 1 for the bernoulli head: rescale x, or take gaussian"
                )
        target = (x * (self.levels - 1)).round() if self.discrete else x
        return self.likelihood.log_prob(self._for_head(output), target)

    def mean(self, output: Tensor) -> Tensor:
        """E[x], [B, D] or [B, C, H, W]."""
        return self._inner(self.likelihood.mean(self._for_head(output)))

    def sample(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """x ~ p, [B, D] or [B, C, H, W]."""
        return self._inner(self.likelihood.sample(self._for_head(output), generator)).to(output.dtype)

    def _for_head(self, output: Tensor) -> Tensor:
        """[B, D, P] or [B, C, H, W, P]."""
        parameters = per_dimension(output, self.out_features)
        if self.raw_log_scale is None:
            return parameters
        raw = LOG_SCALE_RATE * self.raw_log_scale
        return torch.cat([parameters, raw.expand(parameters.shape)], -1)

    def _inner(self, x: Tensor) -> Tensor:
        return x / (self.levels - 1) if self.discrete else x


def _likelihood(head: Head, scale: Scale, levels: int) -> Likelihood:
    if head == "bernoulli":
        return Bernoulli()
    if head == "categorical":
        return CategoricalHead(levels)
    if head == "logistic_mixture":
        return DiscretisedLogisticMixture(levels)
    return {"gaussian": Gaussian, "laplace": Laplace}[head](None if isinstance(scale, str) else float(scale))
