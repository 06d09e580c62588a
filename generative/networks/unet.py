"""The fully convolutional network and the U-Net, as a module and as a model of an image given an image.

    down:  s_ℓ = block_ℓ(z_{ℓ−1}),  z_ℓ = max-pool(s_ℓ)        up:  u_ℓ = block(upsample(σ(W ∗ u_{ℓ+1})), s_ℓ)

The way down sees ever more of the image at ever lower resolution, the way up brings it back to every pixel; skip connections
hand over s_ℓ, the fine detail that pooling loses (Long et al. 2015, arXiv:1411.4038; Ronneberger et al. 2015,
arXiv:1505.04597; notes §3). Unlike the latter's, convolutions are padded, so the output is as large as the input, and the
channels are narrowed before they are upsampled, so that max unpooling finds as many as were pooled.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from generative.likelihoods import Bernoulli, require
from generative.model import Batch, GenerativeModel, Metrics, Picture
from generative.networks import targets
from generative.networks.cnn import filters
from generative.networks.inputs import images, require_shape
from generative.networks.mlp import Activation, activation_of
from generative.networks.upsampling import Upsampling, UpsamplingName, max_pool


class UNet(nn.Module):
    """Images [B, in_channels, H, W] → [B, out_channels, H, W], any H and W; fully convolutional: `skips=False`.

    `channels` are those of each scale, from the whole image to the smallest: one halving less than channels.

    >>> UNet(3, 2, (4, 8, 8), "max_unpooling")(torch.zeros(1, 3, 9, 10)).shape
    torch.Size([1, 2, 9, 10])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: tuple[int, ...] = (16, 32, 64),
        upsampling: str = "nearest",
        skips: bool = True,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        require(len(channels) >= 1 and min(channels) >= 1, "channels", channels, "at least one scale of at least 1 each")
        wide, up = 2 if skips else 1, channels[::-1]
        self.skips = skips
        self.down = nn.ModuleList(block(before, after, activation) for before, after in pairwise((in_channels, *channels)))
        self.narrow = nn.ModuleList(convolution(before, after, activation) for before, after in pairwise(up))
        self.upsample = nn.ModuleList(Upsampling(upsampling, after) for after in up[1:])
        self.up = nn.ModuleList(block(wide * after, after, activation) for after in up[1:])
        self.output = nn.Conv2d(channels[0], out_channels, 1)

    def bottom(self, images: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The smallest scale's features, and of each larger scale its own and the positions of its maxima."""
        pooled = []
        for found in self.down[:-1]:
            features = found(images)
            images, positions = max_pool(features)
            pooled.append((features, positions))
        return self.down[-1](images), pooled

    def forward(self, images: Tensor) -> Tensor:
        x, pooled = self.bottom(images)
        for narrow, upsample, up, (features, positions) in zip(self.narrow, self.upsample, self.up, reversed(pooled)):
            x = upsample(narrow(x), positions, features.shape[-2:])
            x = up(torch.cat([x, features], 1) if self.skips else x)
        return self.output(x)


def convolution(before: int, after: int, activation: str) -> nn.Sequential:
    """3 × 3 and σ. Weights start so that a ReLU keeps the signal's size (He et al. 2015, arXiv:1502.01852): with torch's own
    start a dozen layers shrink it until training stalls."""
    made = nn.Conv2d(before, after, 3, padding=1)
    nn.init.kaiming_normal_(made.weight, nonlinearity="relu")
    nn.init.zeros_(made.bias)  # type: ignore[arg-type]
    return nn.Sequential(made, activation_of(activation))


def block(before: int, after: int, activation: str) -> nn.Sequential:
    return nn.Sequential(*convolution(before, after, activation), *convolution(after, after, activation))


@dataclass(frozen=True)
class UNetConfig:
    shape: tuple[int, int, int]  # (H, W, C) of frames as recorded
    out_channels: int = 1  # of the target image
    channels: tuple[int, ...] = (16, 32, 64)  # of each scale, from the whole image down
    upsampling: UpsamplingName = "nearest"
    skips: bool = True  # False: a fully convolutional network without them
    activation: Activation = "relu"
    levels: int = 256  # of a pixel: 0…levels − 1, in x and in a target of bytes
    head: Literal["gaussian", "laplace", "bernoulli"] = "gaussian"
    scale: float | None = 1.0  # of a Gaussian or Laplace target, in its units; None: learned, per pixel

    def __post_init__(self) -> None:
        require_shape(self.shape, self.levels, len(self.channels) - 1)
        require(self.head != "categorical", "head", repr(self.head), "gaussian, laplace or bernoulli (a segmenter has classes)")
        targets.check(self.head, self.out_channels)


class UNetModel(GenerativeModel):
    """p(target | x) of an image given an image: reads `target` [B, H, W, out_channels].

    A target of bytes holds levels, which count as fractions of levels − 1; floats are taken as they are.
    """

    Config = UNetConfig
    config: UNetConfig

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.likelihood = targets.likelihood(config.head, config.out_channels, config.scale)
        outputs = targets.num_outputs(self.likelihood, config.head, config.out_channels)
        self.network = UNet(config.shape[-1], outputs, config.channels, config.upsampling, config.skips, config.activation)

    def forward(self, x: Tensor) -> Tensor:
        """The head's raw parameters [B, out_channels, H, W, P] of frames x [B, H, W, C]."""
        return targets.parameters(self.likelihood, self.config.head, self.network(self._images(x)))

    def label_log_prob(self, x: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """log p(target | x) [B] in nats, summed over channels and pixels, or those pixels where mask [B, H, W] is true."""
        made = self(x)
        log_prob = self.likelihood.log_prob(made, self._target(target, made)).sum(1)  # [B, H, W]
        return (log_prob if mask is None else log_prob * mask).flatten(1).sum(1)

    def predict(self, x: Tensor) -> Tensor:
        """The target's mean [B, H, W, out_channels], in its units (bytes: fractions of levels − 1)."""
        return self.likelihood.mean(self(x)).movedim(1, -1)

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        return targets.loss(self.label_log_prob(batch["x"], targets.target_of(batch, self.config.head), batch.get("mask")))

    def encode(self, x: Tensor) -> Tensor:
        """The smallest scale's features, flattened [B, D]."""
        return self.network.bottom(self._images(x))[0].flatten(1)

    def pictures(self) -> dict[str, Picture]:
        return filters(self.network)

    def _images(self, x: Tensor) -> Tensor:
        return images(x, self.config.shape, self.config.levels, self.network.output.weight.dtype)

    def _target(self, target: Tensor, made: Tensor) -> Tensor:
        """Channels first [B, out_channels, H, W], floats."""
        shape = (*self.config.shape[:2], self.config.out_channels)
        if target.dtype == torch.uint8:
            return images(target, shape, self.config.levels, made.dtype)
        if tuple(target.shape[1:]) != shape:
            raise ValueError(f"target is {list(target.shape)}; expected an image of [B, {', '.join(map(str, shape))}]")
        if isinstance(self.likelihood, Bernoulli) and ((target < 0) | (target > 1)).any():
            raise ValueError("the target of a Bernoulli head should be within [0, 1]; got other values")
        return target.movedim(-1, 1).to(made.dtype)
