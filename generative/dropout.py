"""Dropout by a generator that is passed in: `torch.nn.Dropout` draws from torch's global one."""

from __future__ import annotations

import torch
from torch import Tensor


def dropped(x: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
    """Entries set to 0 with `probability`, the others scaled by 1/(1 − probability) (Srivastava et al. 2014); x itself without
    a generator."""
    if generator is None or probability == 0:
        return x
    kept = torch.rand(x.shape, generator=generator, device=generator.device) >= probability
    return x * kept.to(x) / (1 - probability)
