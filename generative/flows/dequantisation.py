"""Levels of frames as continuous values on the whole line, where a flow's density lives, and back.

    u = (x + noise) / K,  noise ~ U[0, 1),        y = logit(α + (1 − 2α) u)
    log P(x) ≥ E_noise [ log p(y) + Σ log dy/du ] − D ln K,        dy/du = (1 − 2α) / (s (1 − s)),  s = α + (1 − 2α) u

The bound is by Jensen (Theis et al. 2016, §3.1, arXiv:1511.01844); the logit is RealNVP's (§4.1, arXiv:1605.08803). K levels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def to_line(levels: Tensor, noise: Tensor, num_levels: int, alpha: float) -> tuple[Tensor, Tensor]:
    """(y, Σ log dy/du − D ln K [B]) of levels [B, …] and noise in [0, 1) as many.

    >>> y, log_det = to_line(torch.zeros(1, 1), torch.full((1, 1), 0.5), 1, 0.25)
    >>> y.item(), round(log_det.item(), 4) == round(math.log(0.5 / 0.25), 4)
    (0.0, True)
    """
    y = torch.logit(alpha + (1 - 2 * alpha) / num_levels * (levels + noise))
    slope = math.log(1 - 2 * alpha) - math.log(num_levels) + F.softplus(y) + F.softplus(-y)  # log 1/(s (1 − s)) of logit y
    return y, slope.flatten(1).sum(1)


def to_levels(y: Tensor, num_levels: int, alpha: float) -> Tensor:
    """The level 0 … K − 1 in whose bin y lies, float; values beyond the ends belong to the last bins."""
    share = (y.sigmoid() - alpha) / (1 - 2 * alpha)
    return (share * num_levels).floor().clamp(0, num_levels - 1)
