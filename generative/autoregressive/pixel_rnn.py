"""PixelRNN with row LSTMs: a frame is read row by row, and each row is a step of a convolutional LSTM along the columns.

    [i, f, o, g] = K_x ∗ x_row + K_h ∗ h_above,   c = σ(f) ⊙ c_above + σ(i) ⊙ tanh(g),   h = σ(o) ⊙ tanh(c)

K_x is a one-dimensional convolution with mask B over the features of the row, K_h one over the state of the row above, which
is known in full and needs no mask. So a pixel's state depends on a triangle above it. The first layer is a convolution with
mask A; a residual connection joins each LSTM's input to its output, none goes around mask A; two 1 × 1 convolutions end it
(van den Oord et al. 2016, §3.1, §3.3–3.4 and fig. 4, arXiv:1601.06759; notes §6.4).

The triangle widens by a pixel a row with kernels of 3, so that (i − 1, j + 2) is out of sight, as in the plain PixelCNN; a
larger `first_kernel` sees it. Deviations: the levels enter as numbers in [−1, 1]; the head may be a mixture of discretised
logistics; the class, where there is one, enters as a learned constant of each feature after the first layer; forget gates
start open (bias 1).
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
class PixelRNNConfig:
    height: int = 8  # pixels
    width: int = 8  # pixels
    channels: int = 1  # 1: grey; 3: colours, predicted in the order R → G → B
    levels: int = 2  # of each value: 0 … levels − 1
    head: Head = "categorical"
    components: int = 5  # of the logistic mixture
    hidden: int = 32  # features of an LSTM's state; 2 · hidden between LSTMs
    num_layers: int = 2  # row LSTMs
    kernel: int = 3  # of K_x and K_h, pixels
    first_kernel: int = 7  # side of mask A, pixels
    input_dropout: float = 0.0  # share of the inputs that is hidden in training
    num_classes: int | None = None  # None: not conditioned on a class

    def __post_init__(self) -> None:
        check_config(self)


def lstm_step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """(h, c) from the four gates' inputs [B, 4F, 1, w] and the cell of the row above [B, F, 1, w]."""
    i, f, o, g = gates.chunk(4, 1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


class RowLSTM(nn.Module):
    """One layer: features [B, 2·hidden, H, W] to the same, x + W h."""

    def __init__(self, config: PixelRNNConfig) -> None:
        super().__init__()
        self.hidden, reach = config.hidden, config.kernel // 2
        outer, inner = (colour_groups(size, config.channels) for size in (2 * config.hidden, config.hidden))
        self.from_row = MaskedConvolution(outer, inner.repeat(4), mask="B", left=reach)  # K_x
        self.from_above = MaskedConvolution(inner, inner.repeat(4), mask=None, left=reach, right=reach, bias=False)  # K_h
        self.widen = MaskedConvolution(inner, outer, mask="B")  # W
        nn.init.ones_(self.from_row.bias[config.hidden : 2 * config.hidden])  # type: ignore[index]

    def start(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(h, c) above the first row, zero: [B, hidden, 1, W] each, for features [B, 2·hidden, H, W]."""
        zero = x.new_zeros(len(x), self.hidden, 1, x.shape[3])
        return zero, zero

    def forward(self, x: Tensor) -> Tensor:
        hidden, cell = self.start(x)
        rows = []
        for gates in self.from_row(x).split(1, 2):
            hidden, cell = lstm_step(gates + self.from_above(hidden), cell)
            rows.append(hidden)
        return x + self.widen(torch.cat(rows, 2))


class RowMemory:
    """A row LSTM at one pixel after the other: what the row above tells it, and the state of the present row so far."""

    def __init__(self, layer: RowLSTM, apply: Incremental) -> None:
        self.layer, self.apply, self.row = layer, apply, -1

    def __call__(self, x: Tensor) -> Tensor:
        """[B, 2·hidden, 1, 1] at the place of `apply` -> the same."""
        if self.apply.row != self.row:
            self._next_row(x)
        place = slice(self.apply.column, self.apply.column + 1)
        gates = self.apply(self.layer.from_row, x) + self.told[..., place]
        hidden, self.cell[..., place] = lstm_step(gates, self.cell_above[..., place])
        self.hidden[..., place] = hidden
        return x + self.apply(self.layer.widen, hidden)

    def _next_row(self, x: Tensor) -> None:
        self.row = self.apply.row
        if self.row == 0:
            self.hidden, self.cell = self.layer.start(x.expand(-1, -1, -1, self.apply.width))
        self.told, self.cell_above = self.layer.from_above(self.hidden), self.cell
        self.hidden, self.cell = torch.zeros_like(self.hidden), torch.zeros_like(self.cell)


class PixelRNN(GenerativeModel):
    Config = PixelRNNConfig
    config: PixelRNNConfig

    def __init__(self, config: PixelRNNConfig) -> None:
        super().__init__(config)
        self.head = frame_head(config)
        reach, colours = config.first_kernel // 2, torch.arange(config.channels)
        outer = colour_groups(2 * config.hidden, config.channels)
        self.first = MaskedConvolution(colours, outer, mask="A", above=reach, left=reach, right=reach)
        self.layers = nn.ModuleList(RowLSTM(config) for _ in range(config.num_layers))
        self.before_last = MaskedConvolution(outer, outer, mask="B")
        self.last = MaskedConvolution(outer, colours.repeat_interleave(self.head.out_features), mask="B")
        self.classes = label_shift(config.num_classes, 2 * config.hidden)
        if config.num_classes is not None:
            self.conditioned_on = "label"

    def first_features(self, x: Tensor, label: Tensor | None, apply: Apply = whole) -> Tensor:
        """Inputs [B, C, H, W] in [−1, 1] -> [B, 2·hidden, H, W]; without a label the class's constant is left out."""
        features = apply(self.first, x)
        if self.classes is not None and label is not None:
            features = features + self.classes(label)[:, :, None, None]
        return features

    def features(self, x: Tensor, label: Tensor | None) -> Tensor:
        """Inputs [B, C, H, W] -> the last LSTM's features [B, 2·hidden, H, W]."""
        features = self.first_features(x, label)
        for layer in self.layers:
            features = layer(features)
        return features.relu()

    def parameters_from(self, features: Tensor, apply: Apply = whole) -> Tensor:
        """[B, 2·hidden, H, W] -> the head's parameters [B, C, H, W, P]."""
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

        `cached` computes the features of one pixel at a time; without it every value costs a pass over the frames, and the
        result is the same.
        """
        return sample_frames(self, n, cond, generator, given, num_given, cached)

    def pixel_by_pixel(self, label: Tensor | None) -> Predict:
        """The same predictions at pixels in raster order, from the features and the states of the pixels before."""
        apply = Incremental(self.config.height, self.config.width)
        layers = [RowMemory(layer, apply) for layer in self.layers]  # type: ignore[arg-type]

        def predict(levels: Tensor, row: int, column: int) -> Tensor:
            apply.row, apply.column = row, column
            features = self.first_features(frame_input(levels, self), label, apply)
            for layer in layers:
                features = layer(features)
            return self.parameters_from(features.relu(), apply)[:, :, 0, 0]

        return predict

    def encode(self, x: Tensor) -> Tensor:
        """The last LSTM's features, averaged over the frame: [B, 2·hidden]."""
        return self.features(frame_input(frame_levels(x, self.config), self), None).mean((2, 3))

    def pictures(self) -> dict[str, Picture]:
        return {"receptive_field": receptive_field(self)}
