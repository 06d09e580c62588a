"""A class for every pixel of a frame: p(label | x) = Π over pixels of softmax(f(x))[label], f a U-Net (notes §3).

With `skips=False` f is the fully convolutional network without skip connections. How good a segmentation is says the mean
over the classes of intersection over union, |predicted ∩ true| / |predicted ∪ true|.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics, Picture
from generative.networks import targets
from generative.networks.cnn import filters
from generative.networks.inputs import images, require_shape
from generative.networks.mlp import Activation
from generative.networks.unet import UNet
from generative.networks.upsampling import UpsamplingName


def mean_iou(predicted: Tensor, label: Tensor, num_classes: int) -> float:
    """The mean over the classes that occur in either of the two of intersection over union; of all pixels together.

    >>> mean_iou(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1]), 3)  # 1/2 and 2/3
    0.583...
    """
    pairs = torch.bincount(label.flatten().long() * num_classes + predicted.flatten(), minlength=num_classes**2)
    confusion = pairs.view(num_classes, num_classes).double()  # [true, predicted]
    intersection = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - intersection
    return (intersection / union)[union > 0].mean().item()


@dataclass(frozen=True)
class SegmenterConfig:
    shape: tuple[int, int, int]  # (H, W, C) of frames as recorded
    num_classes: int
    channels: tuple[int, ...] = (16, 32, 64)  # of each scale, from the whole image down
    upsampling: UpsamplingName = "nearest"
    skips: bool = True  # False: a fully convolutional network without them
    activation: Activation = "relu"
    levels: int = 256  # of a pixel: 0…levels − 1
    code: Literal["features", "logits"] = "features"  # of `encode`: of the smallest scale, or of each pixel

    def __post_init__(self) -> None:
        require_shape(self.shape, self.levels, len(self.channels) - 1)
        require(self.num_classes >= 2, "num_classes", self.num_classes, "at least 2")
        require(self.code in ("features", "logits"), "code", repr(self.code), "'features' or 'logits'")


class Segmenter(GenerativeModel):
    """Reads `label`, int64 [B, H, W]; `mask` [B, H, W], where it is there, says which pixels are scored."""

    Config = SegmenterConfig
    config: SegmenterConfig

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__(config)
        self.network = UNet(
            config.shape[-1], config.num_classes, config.channels, config.upsampling, config.skips, config.activation
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, num_classes, H, W] of frames x [B, H, W, C]."""
        return self.network(self._images(x))

    def label_log_prob(self, x: Tensor, label: Tensor, mask: Tensor | None = None) -> Tensor:
        """log p(label | x) [B] in nats, summed over the pixels, or those where mask is true."""
        return self._log_prob(self(x), label, mask)

    def predict(self, x: Tensor) -> Tensor:
        """The most probable class of each pixel [B, H, W]."""
        return self(x).argmax(1)

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        logits = self(batch["x"])
        label, mask = targets.target_of(batch), batch.get("mask")
        loss = -self._log_prob(logits, label, mask).mean()
        right = (logits.argmax(1) == label).to(loss.dtype)
        accuracy = right.mean() if mask is None else (right * mask).sum() / mask.sum().clamp_min(1)
        return loss, {"accuracy": accuracy}

    def encode(self, x: Tensor) -> Tensor:
        """The smallest scale's features, or the logits, as `code` says: flattened [B, D]."""
        if self.config.code == "logits":
            return self(x).flatten(1)
        return self.network.bottom(self._images(x))[0].flatten(1)

    def pictures(self) -> dict[str, Picture]:
        return filters(self.network)

    def _log_prob(self, logits: Tensor, label: Tensor, mask: Tensor | None) -> Tensor:
        label = targets.labels(label, (len(logits), *logits.shape[-2:]), self.config.num_classes)
        log_prob = -F.cross_entropy(logits, label, reduction="none")  # [B, H, W]
        return (log_prob if mask is None else log_prob * mask).flatten(1).sum(1)

    def _images(self, x: Tensor) -> Tensor:
        return images(x, self.config.shape, self.config.levels, self.network.output.weight.dtype)
