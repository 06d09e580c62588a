"""Networks of deep agents: a torso for vectors and images, and orthogonal initialisation.

Orthogonal weights with gain √2 inside, zero biases; the heads' gains are their agents' (0.01 for a policy, 1 for a value), as
in the implementations whose results the field compares with (Engstrom et al. 2020, arXiv:2005.12729; Huang et al. 2022).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mpagents.deep.observations import Observation, ObservationCodec

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU, "gelu": nn.GELU, "elu": nn.ELU}


def quietly(layer: Callable[..., nn.Module], *sizes: int) -> Any:
    """A layer whose own initialisation, to be overwritten, leaves torch's global generator as it was.

    (`torch.nn.utils.skip_init` does so too, but its first use imports SymPy: 0.7 s.)
    """
    with torch.random.fork_rng(devices=[]):
        return layer(*sizes)


def linear(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    """A linear layer with orthogonal weights and zero biases, drawn from `generator`."""
    layer = quietly(nn.Linear, inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(sizes: Sequence[int], activation: str, generator: torch.Generator) -> nn.Sequential:
    """Layers of `sizes`, an activation after each."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [linear(inputs, outputs, math.sqrt(2), generator), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


def cnn(image_shape: tuple[int, int, int], features: int, generator: torch.Generator) -> nn.Sequential:
    """The convolutions of Mnih et al. 2015 for [C, H, W] of 36 and more, smaller kernels below; ends in `features` units."""
    channels, height, width = image_shape
    kernels = [(32, 8, 4), (64, 4, 2), (64, 3, 1)] if min(height, width) >= 36 else [(32, 3, 2), (64, 3, 2), (64, 3, 1)]
    layers: list[nn.Module] = []
    for outputs, size, stride in kernels:
        size = min(size, height, width)
        layer = quietly(nn.Conv2d, channels, outputs, size, stride)
        nn.init.orthogonal_(layer.weight, math.sqrt(2), generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
        channels, height, width = outputs, (height - size) // stride + 1, (width - size) // stride + 1
    flat = channels * height * width
    return nn.Sequential(*layers, nn.Flatten(), linear(flat, features, math.sqrt(2), generator), nn.ReLU())


class Torso(nn.Module):
    """Observation → features [B, out_features]: images through a CNN, joined with vectors, then an MLP."""

    IMAGE_FEATURES = 512

    def __init__(
        self, codec: ObservationCodec, hidden_sizes: Sequence[int], activation: str, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.codec = codec
        inputs = codec.vector_size
        self.cnn = None
        if codec.image_shape is not None:
            self.cnn = cnn(codec.image_shape, self.IMAGE_FEATURES, generator)
            inputs += self.IMAGE_FEATURES
        self.mlp = mlp([inputs, *hidden_sizes], activation, generator)
        self.out_features = hidden_sizes[-1] if hidden_sizes else inputs

    def forward(self, observation: Observation) -> Tensor:
        return self.features(*self.codec.prepare(observation))

    def features(self, vector: Tensor | None, image: Tensor | None) -> Tensor:
        """The same of a prepared observation."""
        if self.cnn is not None and image is not None:
            seen = self.cnn(image)
            vector = seen if vector is None else torch.cat([seen, vector], dim=1)
        return self.mlp(vector)
