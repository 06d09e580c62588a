"""The invertible 1 × 1 convolution of Glow: a learned mixing of channels that generalises a permutation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.flows.act_norm import LOG_SCALE_BOUND
from generative.flows.coupling import bounded


class InvertibleConvolution(nn.Module):
    """y = W x at every pixel of [B, C, H, W], or of vectors [B, C] (Kingma & Dhariwal 2018, §3.2, arXiv:1807.03039).

        W = P L (U + diag(σ ⊙ exp(s))),        log |det| = H·W·Σ s

    P a permutation and σ signs, both fixed; L unit lower and U strictly upper triangular. W starts as a random rotation. The
    inverse solves two triangular systems.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels)).Q
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.raw_log_scale = nn.Parameter(LOG_SCALE_BOUND * torch.atanh(diagonal.abs().log() / LOG_SCALE_BOUND))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper, log_scale = self._factors()
        log_det = x[0, 0].numel() * log_scale.sum()
        return apply(self.permutation @ lower @ upper, x), log_det.expand(len(x))

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        lower, upper, _ = self._factors()
        x = apply(self.permutation.T, y).transpose(0, 1)  # [C, B] or [C, B, H, W]
        flat = torch.linalg.solve_triangular(lower, x.flatten(1), upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, flat, upper=True).view(x.shape).transpose(0, 1)

    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """(L, U with its diagonal, s)."""
        log_scale = bounded(self.raw_log_scale, LOG_SCALE_BOUND)
        lower = self.lower.tril(-1) + torch.eye(len(self.lower)).to(self.lower)
        return lower, self.upper.triu(1) + torch.diag(self.sign * log_scale.exp()), log_scale


def apply(weight: Tensor, x: Tensor) -> Tensor:
    """weight [C, C] times the channels of [B, C] or [B, C, H, W]."""
    return F.linear(x, weight) if x.ndim == 2 else F.conv2d(x, weight[:, :, None, None])
