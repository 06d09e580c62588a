"""The Elman network: a state that mixes its own past with each input (Elman 1990; notes §4.1).

    h_t = tanh(W_h h_{t−1} + W_x x_t + b),  ŷ_t = W_y h_t + c,  h_0 = 0

ŷ_t are the parameters of p(x_{t+1} | x_≤t), so that log p(x) = Σ_t log p(x_t | h_{t−1}); or, with `target` "label", those of
the label after the last step. As tanh′ ≤ 1, ‖∂h_t/∂h_k‖ ≤ ‖W_h‖^(t−k): gradients vanish where W_h's largest singular value is
below 1 (the notes' largest eigenvalue is that only for normal matrices; and above 1 the bound allows explosion without forcing
it). Train it with `fit(…, max_grad_norm=1)` (notes §4.3).

Deviations: biases; and an orthogonal start of W_h, all of whose singular values are 1 (Saxe et al. 2014, arXiv:1312.6120).
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
class ElmanRNNConfig:
    size: int = 1  # D, values a step
    num_steps: int = 64  # T of what is sampled
    head: HeadName = "bernoulli"  # of the next step, or of the label
    levels: int = 256  # of the heads categorical and mu_law
    scale: float | None = None  # of the gaussian head, in units of x; None: learned
    vectors: bool = False  # data are [B, T] instead of [B, T, 1]
    target: Literal["next", "label"] = "next"  # what is predicted; for the label, x is taken as numbers
    label_size: int = 1  # values of a label
    hidden: int = 64  # units
    orthogonal: bool = True  # W_h starts orthogonal, else uniform within ±1/√hidden

    def __post_init__(self) -> None:
        for name in ("hidden", "label_size"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
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


class ElmanRNN(GenerativeModel):
    Config = ElmanRNNConfig
    config: ElmanRNNConfig

    def __init__(self, config: ElmanRNNConfig) -> None:
        super().__init__(config)
        self.data, self.predicted = config.data, config.predicted
        self.drive = nn.Linear(self.data.in_features, config.hidden)  # W_x, b
        self.recurrence = nn.Linear(config.hidden, config.hidden, bias=False)  # W_h
        self.output = nn.Linear(config.hidden, self.predicted.out_features)  # W_y, c
        if config.orthogonal:
            nn.init.orthogonal_(self.recurrence.weight)
        if config.target == "label":
            without_density(self)

    def features(self, x: Tensor, first: Tensor | None = None) -> Tensor:
        """h [B, T + 1, H] of x [B, T, D]: position t is the state before x_t; `first` [B, T + 1] or [B, T] starts it anew."""
        inputs, (state,) = self.data.inputs(x, self.drive.weight.dtype), self.initial_state(len(x))
        starts = episode_starts(first, x, x.shape[1] + 1)
        if starts is None and x.shape[1]:
            return torch.cat([state[:, None], self._through(inputs, state)], 1)
        driven, states = self.drive(inputs), []  # [B, T, H]
        for t in range(x.shape[1] + 1):
            state = state if starts is None else torch.where(starts[:, t, None], 0, state)
            states.append(state)
            if t < x.shape[1]:
                state = torch.tanh(driven[:, t] + self.recurrence(state))
        return torch.stack(states, 1)

    def _through(self, inputs: Tensor, state: Tensor) -> Tensor:
        """h [B, T, H] after each input, by torch's own loop, which runs without Python."""
        weights = [self.drive.weight, self.recurrence.weight, self.drive.bias, torch.zeros_like(self.drive.bias)]
        return torch.rnn_tanh(inputs, state[None], weights, True, 1, 0.0, self.training, False, True)[0]

    def readout(self, features: Tensor) -> Tensor:
        """Parameters [*S, D, P] of the next step, or of the label."""
        return self.predicted.parameters(self.output(features))

    def initial_state(self, n: int) -> State:
        return (self.output.weight.new_zeros(n, self.config.hidden),)

    def state_features(self, state: State) -> Tensor:
        return state[0]

    def step(self, x: Tensor, state: State, first: Tensor | None = None) -> tuple[Tensor, State]:
        """(parameters [n, D, P] given all so far, state that has seen x [n, D]); `first` [n]: x starts an episode."""
        (before,) = restarted(state, self.initial_state(len(x)), first)
        after = torch.tanh(self.drive(self.data.inputs(x, before.dtype)) + self.recurrence(before))
        return self.readout(after), (after,)

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        return recurrent_loss(self, batch)

    def encode(self, x: Tensor) -> Tensor:
        """The state after x [B, H]."""
        return self.features(self.data.checked(x))[:, -1]

    def predict(self, x: Tensor) -> Tensor:
        """The label's mean [B, L], or its most probable class [B]; of models whose target is the label."""
        return predict_label(self, x)

    log_prob = exact_log_prob
    sample = ancestral
