"""The convolutional network, as modules and as a model of a target given a frame.

    z^ℓ = max-pool(σ(W^ℓ ∗ z^{ℓ−1} + b^ℓ)) for ℓ = 1…L,        f(x) = MLP(z^L),        p(target | x) = head(target | f(x))

LeCun et al. 1989; notes §2. Pooling halves the sides, rounded down, so a level needs at least two pixels each way.

`ConvEncoder` and `ConvDecoder` are the pair for autoencoders: strided convolutions down and transposed ones up, for any
height and width that are at least 2^levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics, Picture
from generative.networks import targets
from generative.networks.inputs import images, require_shape
from generative.networks.mlp import MLP, Activation, activation_of
from generative.pictures import grid


class CNN(nn.Module):
    """Images [B, C, H, W] → [B, out_features]: convolution 3 × 3, σ and max pooling a level, then an MLP (notes §2.2).

    >>> CNN((1, 9, 8), (4, 8), (16,), 10)(torch.zeros(2, 1, 9, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        shape: tuple[int, int, int],  # (C, H, W)
        channels: tuple[int, ...],  # of each level
        hidden_sizes: tuple[int, ...],  # of the dense layers
        out_features: int,
        activation: str = "relu",
        dropout: float = 0.0,  # probability, in the dense layers
        convolutions: int = 1,  # a level, before it is pooled
    ) -> None:
        super().__init__()
        sides = _sides(shape, len(channels))
        layers: list[nn.Module] = []
        before = shape[0]
        for after in channels:
            for _ in range(convolutions):
                layers += [nn.Conv2d(before, after, 3, padding=1), activation_of(activation)]
                before = after
            layers.append(nn.MaxPool2d(2))
        self.convolutions = nn.Sequential(*layers)
        self.dense = MLP(before * sides[-1][0] * sides[-1][1], hidden_sizes, out_features, activation, dropout)

    def features(self, images: Tensor) -> Tensor:
        """The last hidden layer; the flattened last level where there are no dense ones [B, D]."""
        return self.dense.features(self.convolutions(images).flatten(1))

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.dense(self.convolutions(images).flatten(1), generator)


class ConvEncoder(nn.Module):
    """Images [B, C, H, W] → [B, out_features]: a convolution 4 × 4 of stride 2 a level, then an affine map.

    >>> ConvEncoder((3, 32, 32), (16, 32), 8)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 8])
    """

    def __init__(
        self, shape: tuple[int, int, int], channels: tuple[int, ...], out_features: int, activation: str = "relu"
    ) -> None:
        super().__init__()
        sides = _sides(shape, len(channels))
        layers: list[nn.Module] = []
        for before, after in zip((shape[0], *channels), channels):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), activation_of(activation)]
        self.convolutions = nn.Sequential(*layers)
        self.output = nn.Linear((*shape[:1], *channels)[-1] * sides[-1][0] * sides[-1][1], out_features)

    def forward(self, images: Tensor) -> Tensor:
        return self.output(self.convolutions(images).flatten(1))


class ConvDecoder(nn.Module):
    """Codes [B, in_features] → [B, C, H, W], the mirror of an encoder with `channels` reversed: the widest come first.

    The outputs are raw, for a head: C is then the frame's channels times the head's parameters.

    >>> ConvDecoder(8, (32, 16), (3, 7, 9))(torch.zeros(2, 8)).shape
    torch.Size([2, 3, 7, 9])
    """

    def __init__(
        self, in_features: int, channels: tuple[int, ...], shape: tuple[int, int, int], activation: str = "relu"
    ) -> None:
        super().__init__()
        sides = _sides(shape, len(channels))[::-1]  # from the smallest
        self.first = ((*channels, shape[0])[0], *sides[0])
        self.input = nn.Linear(in_features, self.first[0] * self.first[1] * self.first[2])
        layers: list[nn.Module] = []
        for before, after, (height, width) in zip(channels, (*channels[1:], shape[0]), sides[1:]):
            odd = (height % 2, width % 2)  # what the encoder's rounding down left out
            layers += [activation_of(activation), nn.ConvTranspose2d(before, after, 4, 2, padding=1, output_padding=odd)]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, codes: Tensor) -> Tensor:
        return self.convolutions(self.input(codes).unflatten(1, self.first))


def _sides(shape: tuple[int, int, int], levels: int) -> list[tuple[int, int]]:
    """Height and width of each level, from the whole image on. Raises ValueError where they vanish."""
    height, width = shape[1:]
    require(
        min(height, width) >> levels >= 1,
        "the image (channels, height, width)", shape, f"at least {2**levels} pixels each way for {levels} levels of channels",
    )  # fmt: skip
    return [(height >> level, width >> level) for level in range(levels + 1)]


@dataclass(frozen=True)
class CNNConfig:
    shape: tuple[int, int, int]  # (H, W, C) of frames as recorded
    out_features: int = 1  # classes of a categorical target, else dimensions of the target
    channels: tuple[int, ...] = (32, 64)  # of each level; a level halves height and width
    convolutions: int = 1  # a level
    hidden_sizes: tuple[int, ...] = (128,)  # units of the dense layers
    activation: Activation = "relu"
    dropout: float = 0.0  # probability, in the dense layers
    levels: int = 256  # of a pixel: 0…levels − 1
    head: targets.Head = "categorical"
    scale: float | None = 1.0  # of a Gaussian or Laplace target, in its units; None: learned, per datum

    def __post_init__(self) -> None:
        require_shape(self.shape, self.levels, len(self.channels))
        require(self.convolutions >= 1, "convolutions", self.convolutions, "at least 1 a level")
        targets.check(self.head, self.out_features)


class CNNModel(GenerativeModel):
    """p(target | x) of frames x: reads `label`, or `target` where it is no class, see `targets`."""

    Config = CNNConfig
    config: CNNConfig

    def __init__(self, config: CNNConfig) -> None:
        super().__init__(config)
        self.likelihood = targets.likelihood(config.head, config.out_features, config.scale)
        outputs = targets.num_outputs(self.likelihood, config.head, config.out_features)
        height, width, channels = config.shape
        self.network = CNN(
            (channels, height, width), config.channels, config.hidden_sizes, outputs,
            config.activation, config.dropout, config.convolutions,
        )  # fmt: skip

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The head's raw parameters [B, out] of frames x [B, H, W, C]; with dropout where a generator is given."""
        return self.network(self._images(x), generator)

    def label_log_prob(self, x: Tensor, target: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """log p(target | x) [B] in nats, summed over the target's dimensions."""
        return targets.log_prob(self.likelihood, self.config.head, self(x, generator), target)

    def predict(self, x: Tensor) -> Tensor:
        """The most probable class [B], or the target's mean [B, out_features] (of bits: their probability)."""
        return targets.prediction(self.likelihood, self.config.head, self(x))

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        noise = generator if self.training else None
        return targets.loss(self.label_log_prob(batch["x"], targets.target_of(batch, self.config.head), noise))

    def encode(self, x: Tensor) -> Tensor:
        """The last hidden layer [B, hidden_sizes[-1]]."""
        return self.network.features(self._images(x))

    def pictures(self) -> dict[str, Picture]:
        return filters(self.network)

    def _images(self, x: Tensor) -> Tensor:
        return images(x, self.config.shape, self.config.levels, self.network.dense.output.weight.dtype)


def filters(network: nn.Module) -> dict[str, Picture]:
    """The kernels of a network's first convolution, each from its least weight in black to its greatest in white."""
    first = next((layer.weight.detach() for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None:  # [out, in, k, k]
        return {}
    shown = first.movedim(1, -1) if first.shape[1] in (1, 3) else first.mean(1, keepdim=True).movedim(1, -1)
    low, high = shown.amin((1, 2, 3), keepdim=True), shown.amax((1, 2, 3), keepdim=True)
    levels = (shown - low) / (high - low).clamp_min(torch.finfo(shown.dtype).tiny) * 255
    return {"filters": grid(levels.round().to(torch.uint8), columns=8, like=torch.full((1, 1, 1, 1), 255))}
