"""Numbers brought to mean 0 and standard deviation 1, by moments that are measured on data and kept with the model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CONSTANT = 1e-6  # a standard deviation below which a number is taken for a constant, and only shifted


class Standardiser(nn.Module):
    """x [..., D] ↦ (x − mean) / std; as x is before anything was measured.

    >>> scale = Standardiser(1)
    >>> scale.measure(torch.tensor([[1.0], [3.0]]))
    >>> scale(torch.tensor([[3.0]])), scale.inverse(torch.tensor([[-1.0]]))
    (tensor([[1.]]), tensor([[1.]]))
    """

    mean: Tensor
    std: Tensor
    measured: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("measured", torch.tensor(False))

    @torch.no_grad()
    def measure(self, rows: Tensor) -> None:
        """Take the moments of rows [N, D]."""
        variance, mean = torch.var_mean(rows.double(), 0, correction=0)
        std = variance.sqrt()
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std < CONSTANT, 1.0, std))
        self.measured.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def inverse(self, z: Tensor) -> Tensor:
        return torch.addcmul(self.mean, z, self.std)
