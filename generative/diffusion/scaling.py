"""Data between what is recorded and what a diffusion sees: about as large as the noise, frames in [−1, 1], channels first."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.autoencoders.data_form import DataForm
from generative.likelihoods import require


@dataclass(frozen=True)
class Scaling:
    """Vectors are divided by `std`, frames' levels become numbers in [−1, 1]."""

    form: DataForm
    std: float = 1.0  # in the data's units

    def __post_init__(self) -> None:
        require(0 < self.std < math.inf, "std", self.std, "a number above 0: the data's standard deviation")

    def inner(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """x as recorded → x_0 [B, D] or [B, C, H, W]. Raises ValueError for other data."""
        made = self.form.inputs(x, dtype)
        return 2 * made - 1 if self.form.is_frames else made / self.std

    def recorded(self, x0: Tensor) -> Tensor:
        return self.form.recorded(0.5 * (x0 + 1) if self.form.is_frames else x0 * self.std)

    @property
    def log_volume(self) -> float:
        """log of what a density of x_0 is multiplied by for x's, or for the probability of a frame's levels; nats."""
        return self.form.size * (math.log(2 / (self.form.levels - 1)) if self.form.is_frames else -math.log(self.std))


def spread_times(n: int, num_steps: int, generator: torch.Generator) -> Tensor:
    """Steps of 1…T [n], each uniform, and together spread evenly (Kingma et al. 2021, appendix I.1, arXiv:2107.00630)."""
    offset = torch.rand((), generator=generator, device=generator.device, dtype=torch.float64)
    share = (offset + torch.arange(n, device=generator.device) / n) % 1
    return (share * num_steps).long().clamp(max=num_steps - 1) + 1
