"""A class for every datum: p(label | x) = softmax(f(x))[label], f an MLP or a CNN (notes §1.2, §2.2).

The loss is the cross-entropy −log p. Two helps against few data, both in training alone: dropout, and for frames random
shifts by whole pixels with zeros moving in (a shifted digit is the same digit).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics, Picture
from generative.networks import targets
from generative.networks.cnn import CNN, filters
from generative.networks.inputs import images, require_shape, vectors
from generative.networks.mlp import MLP, Activation


def shifted(images: Tensor, furthest: int, generator: torch.Generator) -> Tensor:
    """Each image of [B, C, H, W] moved by −furthest…furthest whole pixels in each direction, zeros moving in."""
    n, _, height, width = images.shape
    size = (2, n, 1)
    offset = torch.randint(2 * furthest + 1, size, generator=generator, device=generator.device).to(images.device)
    padded = F.pad(images, (furthest,) * 4).movedim(1, -1)  # [B, H + 2s, W + 2s, C]
    rows = offset[0] + torch.arange(height, device=images.device)  # [B, H]
    columns = offset[1] + torch.arange(width, device=images.device)  # [B, W]
    datum = torch.arange(n, device=images.device)[:, None, None]
    return padded[datum, rows[:, :, None], columns[:, None]].movedim(-1, 1)


@dataclass(frozen=True)
class ClassifierConfig:
    shape: tuple[int, ...]  # of a datum as recorded: (D,), or (H, W, C) of frames
    num_classes: int
    network: Literal["mlp", "cnn"] = "mlp"
    hidden_sizes: tuple[int, ...] = (256, 256)  # units of the dense layers
    channels: tuple[int, ...] = (32, 64)  # of each level of a CNN; a level halves height and width
    convolutions: int = 1  # of a CNN, a level
    activation: Activation = "relu"
    dropout: float = 0.0  # probability, in the dense layers
    shift: int = 0  # pixels by which frames are moved at most
    levels: int = 256  # of a frame's pixel: 0…levels − 1

    def __post_init__(self) -> None:
        require(self.network in ("mlp", "cnn"), "network", repr(self.network), "'mlp' or 'cnn'")
        require(self.num_classes >= 2, "num_classes", self.num_classes, "at least 2")
        require(self.shift >= 0, "shift", self.shift, "0 pixels or more")
        require(self.convolutions >= 1, "convolutions", self.convolutions, "at least 1 a level")
        if len(self.shape) == 1:
            flat = self.network == "mlp" and self.shift == 0
            require(flat, "shape", self.shape, "(height, width, channels) of frames for a CNN and for shifts")
        else:
            require_shape(self.shape, self.levels, len(self.channels) if self.network == "cnn" else 0)  # type: ignore[arg-type]


class Classifier(GenerativeModel):
    """Reads `label`, int64 [B], beside vectors x [B, D] or frames [B, H, W, C]."""

    Config = ClassifierConfig
    config: ClassifierConfig

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__(config)
        height, width, channels = config.shape if len(config.shape) == 3 else (1, 1, config.shape[0])
        if config.network == "cnn":
            self.network: nn.Module = CNN(
                (channels, height, width), config.channels, config.hidden_sizes, config.num_classes,
                config.activation, config.dropout, config.convolutions,
            )  # fmt: skip
        else:
            size = height * width * channels
            self.network = MLP(size, config.hidden_sizes, config.num_classes, config.activation, config.dropout)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits [B, num_classes]; of shifted frames and with dropout where a generator is given."""
        dtype = next(self.parameters()).dtype
        if len(self.config.shape) == 1:
            made = vectors(x, self.config.shape[0], dtype)
        else:
            made = images(x, self.config.shape, self.config.levels, dtype)  # type: ignore[arg-type]
            if self.config.shift and generator is not None:
                made = shifted(made, self.config.shift, generator)
        return self.network(made.flatten(1) if self.config.network == "mlp" else made, generator)

    def label_log_prob(self, x: Tensor, label: Tensor) -> Tensor:
        """log p(label | x) [B] in nats."""
        return self._log_prob(self(x), label)

    def probabilities(self, x: Tensor) -> Tensor:
        """p(k | x) of every class k [B, num_classes]."""
        return self(x).softmax(1)

    def predict(self, x: Tensor) -> Tensor:
        """The most probable class [B]."""
        return self(x).argmax(1)

    @torch.no_grad()
    def accuracy(self, x: Tensor, label: Tensor) -> float:
        """The share of x whose most probable class is the label."""
        return (self.predict(x) == label).double().mean().item()

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        logits, label = self(batch["x"], generator if self.training else None), targets.target_of(batch)
        loss = -self._log_prob(logits, label).mean()
        return loss, {"accuracy": (logits.argmax(1) == label).to(loss.dtype).mean()}

    def encode(self, x: Tensor) -> Tensor:
        """The logits [B, num_classes]: x with all but its class taken off."""
        return self(x)

    def pictures(self) -> dict[str, Picture]:
        return filters(self.network)

    def _log_prob(self, logits: Tensor, label: Tensor) -> Tensor:
        return -F.cross_entropy(logits, targets.labels(label, (len(logits),), self.config.num_classes), reduction="none")
