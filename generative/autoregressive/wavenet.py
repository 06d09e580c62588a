"""WaveNet: causal convolutions whose gaps grow with depth, so that a few layers see far back (van den Oord et al. 2016,
arXiv:1609.03499; notes §6.5).

    z = tanh(W_f ∗ u) ⊙ σ(W_g ∗ u),  s ← s + W_s z,  u ← u + W_r z     for each dilation d, over u_t, u_{t−d}, …, u_{t−(k−1)d}

The first u_t is made of x_{t−1}, and of a learned start where an episode starts; the sum s of all layers predicts x_t. With
k = 2 and dilations 1, 2, 4, … the field doubles by each layer. Audio in [−1, 1] has the head `mu_law`: 256 levels, finest at
0. A sampler keeps of each layer a queue of its last (k − 1)d inputs (Le Paine et al. 2016, arXiv:1611.09482).

Deviations: the first layer, which mixes the inputs, is of width 1; a convolution is written as one matrix over its taps, and
the W_s of all layers as one over all their z, which is the same; before an episode's start there are zeros, as before the
sequence's; no global or local conditioning.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks.sequence_data import HeadName, SequenceData, episode_starts, positions, scored_loss
from generative.networks.sequence_sampling import State, ancestral, exact_log_prob, restarted


@dataclass(frozen=True)
class WaveNetConfig:
    size: int = 1  # D, values a step
    num_steps: int = 64  # T of what is sampled
    head: HeadName = "bernoulli"  # of the next step; audio in [−1, 1]: mu_law
    levels: int = 256  # of the heads categorical and mu_law
    scale: float | None = None  # of the gaussian head, in units of x; None: learned
    vectors: bool = False  # data are [B, T] instead of [B, T, 1]
    channels: int = 32  # of u
    skip: int = 64  # channels of s
    kernel: int = 2  # k, taps
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32)  # d of each layer, in steps

    def __post_init__(self) -> None:
        for name in ("channels", "skip"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.kernel >= 2, "kernel", self.kernel, "at least 2")
        require(min(self.dilations, default=0) >= 1, "dilations", self.dilations, "at least one, each at least 1")
        self.data.check()

    @property
    def data(self) -> SequenceData:
        return SequenceData(self.size, self.num_steps, self.head, self.levels, self.scale, self.vectors)


def lagged(x: Tensor, lag: int, position: Tensor) -> Tensor:
    """x [B, T, C] of `lag` steps before, 0 where that was before the start; position [B, T] are steps since the start.

    >>> lagged(torch.tensor([[[1.0], [2.0], [3.0]]]), 1, torch.tensor([[0, 1, 0]])).flatten().tolist()
    [0.0, 1.0, 0.0]
    """
    return F.pad(x, (0, 0, lag, 0))[:, : x.shape[1]] * (position >= lag)[..., None]


class Layer(nn.Module):
    """A gated convolution with its residual connection, which the last layer has no use for."""

    def __init__(self, channels: int, kernel: int, last: bool) -> None:
        super().__init__()
        self.filter_gate = nn.Linear(kernel * channels, 2 * channels)  # W_f, W_g
        self.residual = None if last else nn.Linear(channels, channels)  # W_r

    def forward(self, taps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """u at each tap [*S, C], the present one last -> (u, z)."""
        content, gate = self.filter_gate(torch.cat(taps, -1)).chunk(2, -1)
        z = content.tanh() * gate.sigmoid()
        return taps[-1] if self.residual is None else taps[-1] + self.residual(z), z


class WaveNet(GenerativeModel):
    Config = WaveNetConfig
    config: WaveNetConfig

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__(config)
        self.data = config.data
        self.embedding = nn.Linear(self.data.in_features, config.channels)
        self.start = nn.Parameter(0.1 * torch.randn(config.channels))
        depth = len(config.dilations)
        self.layers = nn.ModuleList(Layer(config.channels, config.kernel, last=i == depth - 1) for i in range(depth))
        self.skip = nn.Linear(depth * config.channels, config.skip)  # W_s of all layers
        self.combined = nn.Linear(config.skip, config.skip)
        self.output = nn.Linear(config.skip, self.data.out_features)

    @property
    def receptive_field(self) -> int:
        """Steps before x_t that its prediction depends on: 1 + (k − 1) Σ d."""
        return 1 + (self.config.kernel - 1) * sum(self.config.dilations)

    def features(self, x: Tensor, first: Tensor | None = None) -> Tensor:
        """[B, T + 1, S] of x [B, T, D]: position t has seen x_<t; `first` [B, T + 1] or [B, T] starts an episode at t."""
        starts = episode_starts(first, x, x.shape[1] + 1)
        embedded = F.pad(self.embedding(self.data.inputs(x, self.start.dtype)), (0, 0, 1, 0))  # [B, T + 1, C]
        position = positions(starts, x.shape[1] + 1, x.device)
        u = torch.where((position == 0)[..., None], self.start, embedded)
        gated = []
        for layer, dilation in zip(self.layers, self.config.dilations):
            u, z = layer([lagged(u, i * dilation, position) for i in range(self.config.kernel - 1, 0, -1)] + [u])
            gated.append(z)
        return self._combined(gated)

    def _combined(self, gated: list[Tensor]) -> Tensor:
        return F.relu(self.combined(F.relu(self.skip(torch.cat(gated, -1)))))

    def readout(self, features: Tensor) -> Tensor:
        """Parameters [*S, D, P] of the next step."""
        return self.data.parameters(self.output(features))

    def initial_state(self, n: int) -> State:
        """(features [n, S], then the queue [n, (k − 1)d, C] of each layer, oldest first), after the start."""
        lengths = [(self.config.kernel - 1) * dilation for dilation in self.config.dilations]
        queues = tuple(self.start.new_zeros(n, length, self.config.channels) for length in lengths)
        return self._taken_in(self.start.expand(n, -1), queues)

    def state_features(self, state: State) -> Tensor:
        return state[0]

    def step(self, x: Tensor, state: State, first: Tensor | None = None) -> tuple[Tensor, State]:
        """(parameters [n, D, P] of the step after x, state that has seen x [n, D]); `first` [n]: x starts an episode."""
        if first is not None:
            state = restarted(state, self.initial_state(len(x)), first)
        state = self._taken_in(self.embedding(self.data.inputs(x, self.start.dtype)), state[1:])
        return self.readout(state[0]), state

    def _taken_in(self, u: Tensor, queues: State) -> State:
        """The state after one more input of the first layer, u [n, C]."""
        gated, kept = [], []
        for layer, dilation, queue in zip(self.layers, self.config.dilations, queues):
            kept.append(torch.cat([queue[:, 1:], u[:, None]], 1))
            u, z = layer([queue[:, i * dilation] for i in range(self.config.kernel - 1)] + [u])
            gated.append(z)
        return (self._combined(gated), *kept)

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        x = self.data.checked(batch["x"])
        parameters = self.readout(self.features(x[:, :-1], batch.get("first")))
        return scored_loss(self.data.log_prob(parameters, x), batch.get("mask"))

    def encode(self, x: Tensor) -> Tensor:
        """The last position's features [B, S], after all of x."""
        return self.features(self.data.checked(x))[:, -1]

    log_prob = exact_log_prob
    sample = ancestral
