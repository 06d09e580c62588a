"""The LSTM: gates decide what a cell forgets, takes in and shows (Hochreiter & Schmidhuber 1997; notes §4.2).

    f = σ(W_hf h + W_xf x + b_f),  i = σ(W_hi h + W_xi x + b_i),  o = σ(W_ho h + W_xo x + b_o),  g = tanh(W_hg h + W_xg x + b_g)
    c ← f ⊙ c + i ⊙ g,  h ← o ⊙ tanh(c)

Layers are stacked: each reads the h of the one below. The top h_t gives the parameters of p(x_{t+1} | x_≤t), or with `target`
"label" those of the label after the last step. `lstm_cell` is these equations; whole sequences without episode starts run
through `torch.nn.LSTM`, which is the same and faster, and holds the weights. With `segment`, the state is carried on but
detached after each that many steps: truncated backpropagation through time (Williams & Peng 1990). Train with
`fit(…, max_grad_norm=1)` (notes §4.3).

Deviations: biases, of which that of the forget gate starts at 1, so that a new cell remembers (Gers et al. 2000), or with
`span` where cells remember over up to so many steps (Tallec & Ollivier 2018, arXiv:1804.11188).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks.sequence_data import HeadName, SequenceData, episode_starts
from generative.networks.sequence_recurrent import predict_label, recurrent_loss, without_density
from generative.networks.sequence_sampling import State, ancestral, exact_log_prob, restarted


@dataclass(frozen=True)
class LSTMConfig:
    size: int = 1  # D, values a step
    num_steps: int = 64  # T of what is sampled
    head: HeadName = "bernoulli"  # of the next step, or of the label
    levels: int = 256  # of the heads categorical and mu_law
    scale: float | None = None  # of the gaussian head, in units of x; None: learned
    vectors: bool = False  # data are [B, T] instead of [B, T, 1]
    target: Literal["next", "label"] = "next"  # what is predicted; for the label, x is taken as numbers
    label_size: int = 1  # values of a label
    hidden: int = 64  # units a layer
    num_layers: int = 1
    span: int | None = None  # steps over which cells start to remember, up to this many; None: forget bias 1
    segment: int | None = None  # steps after which the state is detached; None: never

    def __post_init__(self) -> None:
        for name in ("hidden", "num_layers", "label_size"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.span is None or self.span >= 2, "span", self.span, "at least 2, or None")
        require(self.segment is None or self.segment >= 1, "segment", self.segment, "at least 1, or None")
        self.data.check()
        self.predicted.check()

    @property
    def data(self) -> SequenceData:
        head: HeadName = self.head if self.target == "next" else "gaussian"
        return SequenceData(self.size, self.num_steps, head, self.levels, self.scale, self.vectors)

    @property
    def predicted(self) -> SequenceData:
        """What the outputs are about: x, or the label as a sequence of one step."""
        if self.target == "next":
            return self.data
        return SequenceData(self.label_size, 1, self.head, self.levels, self.scale, False)


def lstm_cell(x: Tensor, h: Tensor, c: Tensor, weight_x: Tensor, weight_h: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """One step of one layer, (h, c) [n, H] each; the weights [4H, …] hold the gates in the order i, f, g, o."""
    i, f, g, o = (x @ weight_x.T + h @ weight_h.T + bias).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


@torch.no_grad()
def start_gates(bias: Tensor, second: Tensor, span: int | None) -> None:
    """Biases [4H] of the forget gates at 1; or, with a span, at ln u, u ~ U(1, span), and those of the input gates at −ln u.

    As σ(ln u) = 1 − 1/(1 + u), a cell then forgets over about u steps, and takes in as little of each as it keeps long.
    """
    into, forget = bias.chunk(4)[:2]
    second.chunk(4)[0].zero_(), second.chunk(4)[1].zero_()
    forget.fill_(1.0)
    if span is not None:
        forget.uniform_(1, span).log_()
        into.copy_(-forget)


class LSTM(GenerativeModel):
    Config = LSTMConfig
    config: LSTMConfig

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config)
        self.data, self.predicted = config.data, config.predicted
        self.layers = nn.LSTM(self.data.in_features, config.hidden, config.num_layers, batch_first=True)
        self.output = nn.Linear(config.hidden, self.predicted.out_features)
        for layer in range(config.num_layers):  # torch adds two biases: one carries the start, the other is 0 there
            start_gates(getattr(self.layers, f"bias_ih_l{layer}"), getattr(self.layers, f"bias_hh_l{layer}"), config.span)
        if config.target == "label":
            without_density(self)

    def features(self, x: Tensor, first: Tensor | None = None) -> Tensor:
        """The top h [B, T + 1, H] of x [B, T, D]: position t is before x_t; `first` [B, T + 1] or [B, T] starts it anew."""
        starts, state = episode_starts(first, x, x.shape[1] + 1), self.initial_state(len(x))
        inputs = self.data.inputs(x, self.output.weight.dtype)
        shown = [self.state_features(state)[:, None]]
        span = self.config.segment or max(1, x.shape[1])
        for part, begun in ((part, t * span) for t, part in enumerate(inputs.split(span, 1)) if part.shape[1]):
            state = tuple(s.detach() for s in state)
            if starts is None:
                h, state = self._through(part, state)
            else:
                h, state = self._stepwise(part, state, starts[:, begun:])
            shown.append(h)
        h = torch.cat(shown, 1)
        return h if starts is None else torch.where(starts[..., None], 0, h)

    def _through(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        h, (last_h, last_c) = self.layers(inputs, tuple(s.transpose(0, 1).contiguous() for s in state))
        return h, (last_h.transpose(0, 1), last_c.transpose(0, 1))

    def _stepwise(self, inputs: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        shown = []
        for t in range(inputs.shape[1]):
            state = self._cells(inputs[:, t], restarted(state, self.initial_state(len(inputs)), starts[:, t]))
            shown.append(self.state_features(state))
        return torch.stack(shown, 1), state

    def _cells(self, inputs: Tensor, state: State) -> State:
        """One step through all layers: (h, c) [n, L, H] each."""
        below, after = inputs, []
        for h, c, (weight_x, weight_h, bias_x, bias_h) in zip(state[0].unbind(1), state[1].unbind(1), self.layers.all_weights):
            after.append(lstm_cell(below, h, c, weight_x, weight_h, bias_x + bias_h))
            below = after[-1][0]
        return torch.stack([h for h, _ in after], 1), torch.stack([c for _, c in after], 1)

    def readout(self, features: Tensor) -> Tensor:
        """Parameters [*S, D, P] of the next step, or of the label."""
        return self.predicted.parameters(self.output(features))

    def initial_state(self, n: int) -> State:
        """(h, c), [n, L, H] each."""
        zeros = self.output.weight.new_zeros(n, self.config.num_layers, self.config.hidden)
        return zeros, zeros

    def state_features(self, state: State) -> Tensor:
        return state[0][:, -1]

    def step(self, x: Tensor, state: State, first: Tensor | None = None) -> tuple[Tensor, State]:
        """(parameters [n, D, P] given all so far, state that has seen x [n, D]); `first` [n]: x starts an episode."""
        state = restarted(state, self.initial_state(len(x)), first)
        state = self._cells(self.data.inputs(x, self.output.weight.dtype), state)
        return self.readout(self.state_features(state)), state

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        return recurrent_loss(self, batch)

    def encode(self, x: Tensor) -> Tensor:
        """The top h after x [B, H]."""
        return self.features(self.data.checked(x))[:, -1]

    def predict(self, x: Tensor) -> Tensor:
        """The label's mean [B, L], or its most probable class [B]; of models whose target is the label."""
        return predict_label(self, x)

    log_prob = exact_log_prob
    sample = ancestral
