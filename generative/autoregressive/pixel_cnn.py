"""PixelCNN: masked convolutions give p(x) = Π p(x_k | x_<k) of a frame's values in raster order.

    h⁰ = A(x),   hˡ = hˡ⁻¹ + W B(relu(V relu(hˡ⁻¹))),   parameters = W'' relu(W' relu(h))

A is a convolution with mask A and the larger kernel, B a convolution with mask B between two 1 × 1 ones (van den Oord et al.
2016, §3.3–3.5 and fig. 5, arXiv:1601.06759; notes §6.4). There is no residual connection around A: it would carry the value
that is to be predicted. With 3 × 3 masks alone a pixel never sees (i − 1, j + 2) nor anything else beyond the diagonal to its
upper right, at any depth: the blind spot, which `gated_pixel_cnn.py` removes and a larger `first_kernel` makes smaller.

Deviations: the levels enter as numbers in [−1, 1]; the head may be a mixture of discretised logistics; the class, where
there is one, enters as a learned constant of each feature after A.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generative.autoregressive.ancestral import label_shift
from generative.autoregressive.masked_convolution import Apply, Incremental, MaskedConvolution, colour_groups, whole
from generative.autoregressive.pixel_frames import (
    Head,
    check_config,
    frame_head,
    frame_input,
    frame_levels,
    frame_log_probs,
    frame_loss,
    receptive_field,
)
from generative.autoregressive.pixel_sampling import Predict, sample_frames
from generative.likelihoods import per_dimension
from generative.model import Batch, GenerativeModel, Metrics, Picture


@dataclass(frozen=True)
class PixelCNNConfig:
    height: int = 8  # pixels
    width: int = 8  # pixels
    channels: int = 1  # 1: grey; 3: colours, predicted in the order R → G → B
    levels: int = 2  # of each value: 0 … levels − 1
    head: Head = "categorical"
    components: int = 5  # of the logistic mixture
    hidden: int = 32  # features within a block; 2 · hidden between blocks
    num_layers: int = 4  # blocks
    kernel: int = 3  # side of the masks of the blocks, pixels
    first_kernel: int = 7  # side of mask A, pixels
    input_dropout: float = 0.0  # share of the inputs that is hidden in training
    num_classes: int | None = None  # None: not conditioned on a class

    def __post_init__(self) -> None:
        check_config(self)


class Block(nn.Module):
    """h + W B(relu(V relu(h))), from 2·hidden features over hidden ones."""

    def __init__(self, config: PixelCNNConfig) -> None:
        super().__init__()
        reach = config.kernel // 2
        outer, inner = (colour_groups(size, config.channels) for size in (2 * config.hidden, config.hidden))
        self.narrow = MaskedConvolution(outer, inner, mask="B")
        self.spatial = MaskedConvolution(inner, inner, mask="B", above=reach, left=reach, right=reach)
        self.widen = MaskedConvolution(inner, outer, mask="B")

    def forward(self, h: Tensor, apply: Apply) -> Tensor:
        inner = apply(self.spatial, apply(self.narrow, h.relu()).relu())
        return h + apply(self.widen, inner.relu())


class PixelCNN(GenerativeModel):
    Config = PixelCNNConfig
    config: PixelCNNConfig

    def __init__(self, config: PixelCNNConfig) -> None:
        super().__init__(config)
        self.head = frame_head(config)
        reach, colours = config.first_kernel // 2, torch.arange(config.channels)
        outer = colour_groups(2 * config.hidden, config.channels)
        self.first = MaskedConvolution(colours, outer, mask="A", above=reach, left=reach, right=reach)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.before_last = MaskedConvolution(outer, outer, mask="B")
        self.last = MaskedConvolution(outer, colours.repeat_interleave(self.head.out_features), mask="B")
        self.classes = label_shift(config.num_classes, 2 * config.hidden)
        if config.num_classes is not None:
            self.conditioned_on = "label"

    def features(self, x: Tensor, label: Tensor | None, apply: Apply = whole) -> Tensor:
        """Inputs [B, C, H, W] in [−1, 1] -> [B, 2·hidden, H, W]; without a label the class's constant is left out."""
        h = apply(self.first, x)
        if self.classes is not None and label is not None:
            h = h + self.classes(label)[:, :, None, None]
        for block in self.blocks:
            h = block(h, apply)
        return h.relu()

    def forward(self, x: Tensor, label: Tensor | None, apply: Apply = whole) -> Tensor:
        """Inputs [B, C, H, W] -> the head's parameters [B, C, H, W, P] of every value given those before it."""
        output = apply(self.last, apply(self.before_last, self.features(x, label, apply)).relu())
        return per_dimension(output, self.head.out_features)

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        return frame_loss(self, batch, generator), {}

    def log_prob(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """log p(x) of frames uint8 [B, H, W, C], given their labels where the model has classes: [B] nats."""
        return frame_log_probs(self, x, cond).sum((1, 2, 3))

    def sample(
        self,
        n: int,
        cond: Tensor | None = None,
        *,
        generator: torch.Generator,
        given: Tensor | None = None,
        num_given: int = 0,
        cached: bool = True,
    ) -> Tensor:
        """Frames uint8 [n, H, W, C]; the first `num_given` values of `given` in raster order, colours innermost, are kept.

        `cached` computes the features of one pixel at a time; without it every value costs a pass over the frames, and the
        result is the same.
        """
        return sample_frames(self, n, cond, generator, given, num_given, cached)

    def pixel_by_pixel(self, label: Tensor | None) -> Predict:
        """The same predictions at pixels in raster order, from the features of the pixels before."""
        apply = Incremental(self.config.height, self.config.width)

        def predict(levels: Tensor, row: int, column: int) -> Tensor:
            apply.row, apply.column = row, column
            return self(frame_input(levels, self), label, apply)[:, :, 0, 0]

        return predict

    def encode(self, x: Tensor) -> Tensor:
        """The last hidden features, averaged over the frame: [B, 2·hidden]."""
        return self.features(frame_input(frame_levels(x, self.config), self), None).mean((2, 3))

    def pictures(self) -> dict[str, Picture]:
        return {"receptive_field": receptive_field(self)}
