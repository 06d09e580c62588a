"""Mode collapse, measured: which components of a known mixture a model's samples are of (as in Metz et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.continuous import GaussianMixture

NEAR = 3.0  # standard deviations; of a plane's samples 98.9 % are so near
SHARE = 0.2  # of a component's own weight, in the samples: below, it counts as dropped


def modes_covered(x: Tensor, mixture: GaussianMixture, *, near: float = NEAR, share: float = SHARE) -> tuple[int, float]:
    """(components covered, share of samples near one) of samples x [N, D].

    A sample belongs to its nearest component, and is near it within `near` of that component's standard deviations. A
    component k is covered where at least share · w_k of all samples are near it.

    >>> two = GaussianMixture((0.5, 0.5), ((-4.0,), (4.0,)), (1.0, 1.0))
    >>> modes_covered(torch.tensor([[-4.0], [-3.0], [-5.0], [0.0]]), two)
    (1, 0.75)
    """
    means, stds = x.new_tensor(mixture.means), x.new_tensor(mixture.stds)
    distance, nearest = (torch.cdist(x, means) / stds).min(1)  # [N], in standard deviations
    counts = torch.bincount(nearest[distance <= near], minlength=len(means)).to(x)
    covered = counts >= share * x.new_tensor(mixture.weights) * len(x)
    return int((covered & (counts > 0)).sum()), float(counts.sum() / len(x))
