"""Scales and shifts of each dimension or channel, learned, the same for all data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from generative.flows.coupling import bounded

LOG_SCALE_BOUND = 10.0  # of a learned scale
LEAST_STD = 1e-4  # of data, in their unit, that a start divides by


class ActNorm(nn.Module):
    """y = (x + b) ⊙ exp(s) for each channel, log |det| = H·W·Σ s (Kingma & Dhariwal 2018, §3.1, arXiv:1807.03039).

    The first batch of a training sets b and s such that y has mean 0 and variance 1 (`start_activation_norms`); from then on
    they are parameters like others. Whether that has happened is saved with the model.
    """

    started: Tensor
    starting = False  # whether the next forward pass sets b and s

    def __init__(self, size: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(size))
        self.raw_log_scale = nn.Parameter(torch.zeros(size))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.starting:
            self._start(x)
        log_scale = bounded(self.raw_log_scale, LOG_SCALE_BOUND)
        log_det = x[0, 0].numel() * log_scale.sum()
        return (x + like_channels(self.shift, x)) * like_channels(log_scale.exp(), x), log_det.expand(len(x))

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        log_scale = bounded(self.raw_log_scale, LOG_SCALE_BOUND)
        return y * like_channels((-log_scale).exp(), y) - like_channels(self.shift, y)

    @torch.no_grad()
    def _start(self, x: Tensor) -> None:
        std, mean = torch.std_mean(x.transpose(0, 1).flatten(1), 1, correction=0)
        log_scale = -std.clamp(LEAST_STD, 1 / LEAST_STD).log()
        self.shift.copy_(-mean)
        self.raw_log_scale.copy_(LOG_SCALE_BOUND * torch.atanh(log_scale / LOG_SCALE_BOUND))
        self.started.fill_(True)


class DiagonalScaling(nn.Module):
    """y = x ⊙ exp(s), log |det| = Σ s: the last layer of NICE (Dinh et al. 2014, §3.3), of vectors [B, D]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.raw_log_scale = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale = bounded(self.raw_log_scale, LOG_SCALE_BOUND)
        return x * log_scale.exp(), log_scale.sum().expand(len(x))

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        return y * (-bounded(self.raw_log_scale, LOG_SCALE_BOUND)).exp()


def like_channels(values: Tensor, x: Tensor) -> Tensor:
    """[C] beside x [B, C] or [B, C, H, W]."""
    return values.view(1, -1, *(1,) * (x.ndim - 2))


@torch.compiler.disable  # it looks at a flag, once a batch
@torch.no_grad()
def start_activation_norms(transformation: nn.Module, x: Tensor, condition: Tensor | None) -> None:
    """Set every `ActNorm` by the batch x, one after another, where that is still to be done; one datum tells of no spread."""
    norms = [module for module in transformation.modules() if isinstance(module, ActNorm)]
    if len(x) < 2 or all(bool(norm.started) for norm in norms[:1]):
        return
    for norm in norms:
        norm.starting = True
    try:
        transformation(x, condition)
    finally:
        for norm in norms:
            norm.starting = False
