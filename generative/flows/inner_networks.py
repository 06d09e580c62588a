"""The networks within coupling layers: dense and convolutional, conditioned or not.

Their last layers start at zero, so that every coupling starts as the identity.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from generative.networks.mlp import MLP, activation_of

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def zeroed(layer: Layer) -> Layer:
    """The layer with weights and biases 0."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class DenseNetwork(nn.Module):
    """Vectors [B, in_features], with a condition [B, K] where there is one, → [B, out_features]."""

    def __init__(
        self, in_features: int, hidden_sizes: tuple[int, ...], out_features: int, activation: str, condition: int = 0
    ) -> None:
        super().__init__()
        self.mlp = MLP(in_features + condition, hidden_sizes, out_features, activation)
        zeroed(self.mlp.output)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.mlp(x if condition is None else torch.cat([x, condition], 1))


class ConvNetwork(nn.Module):
    """Images [B, in_channels, H, W] → [B, out_channels, H, W]: 3 × 3 convolutions around residual blocks (He et al. 2016).

    A condition [B, K] shifts the features after the first convolution, which is to be K constant planes beside the image.
    """

    def __init__(
        self, in_channels: int, hidden: int, num_blocks: int, out_channels: int, activation: str, condition: int = 0
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, hidden, 3, padding=1)
        self.condition = nn.Linear(condition, hidden, bias=False) if condition else None
        self.blocks = nn.ModuleList(
            nn.Sequential(
                activation_of(activation),
                nn.Conv2d(hidden, hidden, 3, padding=1),
                activation_of(activation),
                nn.Conv2d(hidden, hidden, 1),
            )
            for _ in range(num_blocks)
        )
        self.activation = activation_of(activation)
        self.last = zeroed(nn.Conv2d(hidden, out_channels, 3, padding=1))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        features = self.first(x)
        if self.condition is not None:
            features = features + self.condition(condition)[:, :, None, None]
        for block in self.blocks:
            features = features + block(features)
        return self.last(self.activation(features))
