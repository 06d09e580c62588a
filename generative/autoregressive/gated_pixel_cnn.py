"""Gated PixelCNN: two stacks of gated convolutions, without a blind spot, and with a class for each frame where there is one.

    vertical:    aˡ = Wᵥ ∗ vˡ⁻¹,                          vˡ = gate(aˡ + classᵥ)
    horizontal:  bˡ = W_h ∗ hˡ⁻¹ + U ↓(aˡ) + class_h,     hˡ = hˡ⁻¹ + W₁ gate(bˡ)
    gate(a, b) = tanh(a) ⊙ σ(b),   parameters = W'' relu(W' relu(h))

The vertical stack's kernels cover their own row and those above, left and right, with no mask; ↓ moves its features down by
one row before they join the horizontal stack, which so learns of the rows above in full, and is masked in its own row alone:
mask A in its first layer, which has no residual connection, mask B after it (van den Oord et al. 2016, §2.1–2.3 and fig. 2,
arXiv:1606.05328; notes §6.4). In a plain PixelCNN with 3 × 3 masks no pixel sees (i − 1, j + 2), at any depth; here two layers
are enough.

Deviations: the levels enter as numbers in [−1, 1]; the head may be a mixture of discretised logistics; the first layer's
kernel may be larger than the others'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
class GatedPixelCNNConfig:
    height: int = 8  # pixels
    width: int = 8  # pixels
    channels: int = 1  # 1: grey; 3: colours, predicted in the order R → G → B
    levels: int = 2  # of each value: 0 … levels − 1
    head: Head = "categorical"
    components: int = 5  # of the logistic mixture
    hidden: int = 32  # features of each stack
    num_layers: int = 5
    kernel: int = 3  # pixels
    first_kernel: int = 7  # pixels, of the first layer
    input_dropout: float = 0.0  # share of the inputs that is hidden in training
    num_classes: int | None = None  # None: not conditioned on a class

    def __post_init__(self) -> None:
        check_config(self)


def gate(x: Tensor) -> Tensor:
    """tanh(a) ⊙ σ(b) of the two halves [B, 2p, H, W] -> [B, p, H, W]."""
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()


def down(x: Tensor) -> Tensor:
    """Features of the row above: [B, F, H, W] moved down by one row, zero in the first."""
    return F.pad(x, (0, 0, 1, -1))


class GatedLayer(nn.Module):
    """One layer of both stacks; the first takes the frame itself in each, and has mask A and no residual connection."""

    def __init__(self, config: GatedPixelCNNConfig, first: bool) -> None:
        super().__init__()
        self.first = first
        reach, colours = (config.first_kernel if first else config.kernel) // 2, config.channels
        features = colour_groups(config.hidden, colours)
        halves, inputs = features.repeat(2), torch.arange(colours) if first else features
        self.vertical = MaskedConvolution(inputs, halves, mask=None, above=reach, left=reach, right=reach)
        self.link = MaskedConvolution(halves, halves, mask=None, bias=False)  # U
        self.horizontal = MaskedConvolution(inputs, halves, mask="A" if first else "B", left=reach)
        self.out = MaskedConvolution(features, features, mask="B")  # W₁
        self.classes: nn.Embedding | None = label_shift(config.num_classes, 4 * config.hidden)

    def class_terms(self, label: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
        """(of the vertical stack, of the horizontal one): [B, 2p, 1, 1] each; zero without a label."""
        if self.classes is None or label is None:
            return 0.0, 0.0
        vertical, horizontal = self.classes(label)[:, :, None, None].chunk(2, 1)
        return vertical, horizontal

    def down_the_rows(self, v: Tensor, label: Tensor | None, apply: Apply) -> tuple[Tensor, Tensor]:
        """(the vertical stack's next features, what it tells the horizontal one of the row below)."""
        before_gate = apply(self.vertical, v)
        return gate(before_gate + self.class_terms(label)[0]), apply(self.link, before_gate)

    def along_the_row(self, h: Tensor, from_above: Tensor, label: Tensor | None, apply: Apply) -> Tensor:
        """The horizontal stack's next features, `from_above` being U ↓(a)."""
        gated = gate(apply(self.horizontal, h) + from_above + self.class_terms(label)[1])
        return apply(self.out, gated) if self.first else h + apply(self.out, gated)


class GatedPixelCNN(GenerativeModel):
    Config = GatedPixelCNNConfig
    config: GatedPixelCNNConfig

    def __init__(self, config: GatedPixelCNNConfig) -> None:
        super().__init__(config)
        self.head = frame_head(config)
        self.layers = nn.ModuleList(GatedLayer(config, first=place == 0) for place in range(config.num_layers))
        features = colour_groups(config.hidden, config.channels)
        values = torch.arange(config.channels).repeat_interleave(self.head.out_features)
        self.before_last = MaskedConvolution(features, features, mask="B")
        self.last = MaskedConvolution(features, values, mask="B")
        if config.num_classes is not None:
            self.conditioned_on = "label"

    def vertical_stack(self, x: Tensor, label: Tensor | None, apply: Apply = whole) -> list[Tensor]:
        """Inputs [B, C, H, W] -> what each layer tells the row below, [B, 2p, H, W] each."""
        told = []
        for layer in self.layers:
            x, link = layer.down_the_rows(x, label, apply)  # type: ignore[operator]
            told.append(link)
        return told

    def horizontal_stack(self, x: Tensor, from_above: Sequence[Tensor], label: Tensor | None, apply: Apply = whole) -> Tensor:
        """Inputs [B, C, H, W] and each layer's word from the row above -> [B, p, H, W]."""
        for layer, told in zip(self.layers, from_above):
            x = layer.along_the_row(x, told, label, apply)  # type: ignore[operator]
        return x.relu()

    def features(self, x: Tensor, label: Tensor | None) -> Tensor:
        """Inputs [B, C, H, W] in [−1, 1] -> [B, p, H, W]; without a label the class's terms are left out."""
        return self.horizontal_stack(x, [down(told) for told in self.vertical_stack(x, label)], label)

    def parameters_from(self, features: Tensor, apply: Apply = whole) -> Tensor:
        """[B, p, H, W] -> the head's parameters [B, C, H, W, P]."""
        return per_dimension(apply(self.last, apply(self.before_last, features).relu()), self.head.out_features)

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        """Inputs [B, C, H, W] -> the head's parameters [B, C, H, W, P] of every value given those before it."""
        return self.parameters_from(self.features(x, label))

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

        `cached` computes the vertical stack a row at a time and the horizontal one a pixel at a time; without it every value
        costs a pass over the frames, and the result is the same.
        """
        return sample_frames(self, n, cond, generator, given, num_given, cached)

    def pixel_by_pixel(self, label: Tensor | None) -> Predict:
        """The same predictions at pixels in raster order: the vertical stack by finished rows, the horizontal by pixels."""
        rows, pixels = (Incremental(self.config.height, self.config.width) for _ in range(2))
        rows.row = -1  # the last row that the vertical stack has taken in
        from_above: list[Tensor] = []  # of each layer [n, 2p, 1, W], for the present row

        def predict(levels: Tensor, row: int, column: int) -> Tensor:
            nonlocal from_above
            x = frame_input(levels, self)
            if row > rows.row + 1:
                rows.row = row - 1
                from_above = self.vertical_stack(x[:, :, rows.row : row], label, rows)
            elif row == 0:
                from_above = [x.new_zeros(len(x), 2 * self.config.hidden, 1, self.config.width)] * len(self.layers)
            pixels.row, pixels.column = row, column
            told = [of_row[..., column : column + 1] for of_row in from_above]
            return self.parameters_from(self.horizontal_stack(x, told, label, pixels), pixels)[:, :, 0, 0]

        return predict

    def encode(self, x: Tensor) -> Tensor:
        """The horizontal stack's last features, averaged over the frame: [B, p]."""
        return self.features(frame_input(frame_levels(x, self.config), self), None).mean((2, 3))

    def pictures(self) -> dict[str, Picture]:
        return {"receptive_field": receptive_field(self)}
