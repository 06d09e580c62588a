"""The causal Transformer: every step looks up what it needs among the steps before (Vaswani et al. 2017, arXiv:1706.03762;
notes §6.7).

    X ← X + Attention(norm(X)),  X ← X + W_2 gelu(W_1 norm(X)),  Attention = softmax(QKᵀ/√d + M)V,  Q, K, V = XW_Q, XW_K, XW_V

Position t is given x_{t−1}, and a learned start where an episode starts; it predicts x_t. M is 0 where position t may look,
that is at itself and the context − 1 positions before it within the episode, else −∞. (The notes' M is −∞ on the diagonal too,
which would leave the first row nothing: a misprint.) Normalisation comes first (Xiong et al. 2020, arXiv:2002.04745).

A sequence longer than `context` is seen through a window that slides in every layer, so L layers reach L(context − 1) + 1 steps
back, and the keys and values of the last `context` positions are all that a sampler keeps. Hence positions are relative to the
window: rotary (Su et al. 2021, arXiv:2104.09864), or learned, one vector for each place modulo `context`.

Images are read as vectors of pixels, row by row (`vectors`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.dropout import dropped
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks.sequence_data import HeadName, SequenceData, episode_starts, positions, scored_loss
from generative.networks.sequence_sampling import State, ancestral, exact_log_prob, restarted


@dataclass(frozen=True)
class TransformerConfig:
    size: int = 1  # D, values a step
    num_steps: int = 64  # T of what is sampled, and of every vector
    head: HeadName = "bernoulli"  # of the next step
    levels: int = 256  # of the heads categorical and mu_law
    scale: float | None = None  # of the gaussian head, in units of x; None: learned
    vectors: bool = False  # data are [B, T] instead of [B, T, 1]
    width: int = 64  # d, of a position's vector
    num_heads: int = 4
    num_layers: int = 2
    context: int = 256  # positions that one layer looks at
    positions: Literal["learned", "rotary"] = "learned"
    dropout: float = 0.0  # probability, of inputs and of what a layer adds; only in training

    def __post_init__(self) -> None:
        for name in ("width", "num_heads", "num_layers", "context"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        multiple = self.num_heads * (2 if self.positions == "rotary" else 1)
        require(self.width % multiple == 0, "width", self.width, f"a multiple of {multiple} (num_heads; twice that if rotary)")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "a probability in [0, 1)")
        self.data.check()

    @property
    def data(self) -> SequenceData:
        return SequenceData(self.size, self.num_steps, self.head, self.levels, self.scale, self.vectors)


def may_look(position: Tensor, context: int) -> Tensor:
    """Where M is 0: [B, T, T], true where query row t may look at key column s, from steps since the start [B, T].

    >>> may_look(torch.tensor([[0, 1, 2, 0]]), 2)[0].int().tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    """
    steps = torch.arange(position.shape[1], device=position.device)
    age = steps[:, None] - steps  # of a key, seen from a query
    return (age >= 0) & (age < context) & (age <= position[..., None])


def rotated(x: Tensor, position: Tensor) -> Tensor:
    """x [B, N, T, d] with each pair of entries turned by position [B, T] times a frequency 10000^(−2i/d)."""
    half = x.shape[-1] // 2
    frequency = 10_000 ** -(torch.arange(half, device=x.device, dtype=x.dtype) / half)
    angle = (position[:, None, :, None] * frequency).to(x.dtype)
    first, second = x.chunk(2, -1)
    return torch.cat([first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos()], -1)


class Block(nn.Module):
    """Attention and a perceptron, each added to what comes in."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.attention_norm, self.perceptron_norm = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.query_key_value = nn.Linear(config.width, 3 * config.width, bias=False)  # W_Q, W_K, W_V
        self.mixed = nn.Linear(config.width, config.width)
        self.inner, self.outer = nn.Linear(config.width, 4 * config.width), nn.Linear(4 * config.width, config.width)

    def forward(
        self, x: Tensor, position: Tensor, look: Tensor, noise: torch.Generator | None = None, past: State | None = None
    ) -> tuple[Tensor, State]:
        """x [B, T, C] at `position` -> (x, (K, V) [B, N, S, d] each), where S are the positions of `past` and x, and
        look [B, T, S] is true where attention may look."""
        query, key, value = self.query_key_value(self.attention_norm(x)).unflatten(2, (3, self.config.num_heads, -1)).unbind(2)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)  # [B, N, T, d]
        if self.config.positions == "rotary":
            query, key = rotated(query, position), rotated(key, position)
        if past is not None:
            key, value = (torch.cat(both, 2)[:, :, -self.config.context :] for both in zip(past, (key, value)))
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=look[:, None])  # softmax(QKᵀ/√d + M)V
        x = x + dropped(self.mixed(found.transpose(1, 2).flatten(2)), self.config.dropout, noise)
        added = self.outer(F.gelu(self.inner(self.perceptron_norm(x))))
        return x + dropped(added, self.config.dropout, noise), (key, value)


class Transformer(GenerativeModel):
    Config = TransformerConfig
    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.data = config.data
        self.embedding = nn.Linear(self.data.in_features, config.width)
        self.start = nn.Parameter(0.1 * torch.randn(config.width))
        if config.positions == "learned":
            self.places = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, self.data.out_features)

    @property
    def receptive_field(self) -> int:
        """Positions that a prediction depends on; all but itself are steps before the one just before it."""
        return self.config.num_layers * (self.config.context - 1) + 1

    def features(self, x: Tensor, first: Tensor | None = None, noise: torch.Generator | None = None) -> Tensor:
        """[B, T + 1, C] of x [B, T, D]: position t has seen x_<t; `first` [B, T + 1] or [B, T] starts an episode at t.

        With `noise` there is dropout.
        """
        num_positions = x.shape[1] + 1
        starts = episode_starts(first, x, num_positions)
        embedded = F.pad(self.embedding(self.data.inputs(x, self.start.dtype)), (0, 0, 1, 0))  # [B, T + 1, C]
        begins = F.pad(torch.ones(1, 1, dtype=torch.bool, device=x.device), (0, x.shape[1])) if starts is None else starts
        position = positions(starts, num_positions, x.device)
        tokens = torch.where(begins[..., None], self.start, embedded)
        hidden = dropped(self._placed(tokens, position), self.config.dropout, noise)
        look = may_look(position, self.config.context)
        for block in self.blocks:
            hidden, _ = block(hidden, position, look, noise)
        return self.norm(hidden)

    def _placed(self, tokens: Tensor, position: Tensor) -> Tensor:
        return tokens + self.places(position % self.config.context) if self.config.positions == "learned" else tokens

    def readout(self, features: Tensor) -> Tensor:
        """Parameters [*S, D, P] of the next step."""
        return self.data.parameters(self.output(features))

    def initial_state(self, n: int) -> State:
        """(features [n, C], positions taken in [n], then K and V [n, N, S, d] of each layer), after the start."""
        heads, width = self.config.num_heads, self.config.width
        empty = self.start.new_zeros(n, heads, 0, width // heads)
        count = torch.zeros(n, dtype=torch.int64, device=self.start.device)
        return self._taken_in(self.start.expand(n, -1), count, (empty,) * 2 * self.config.num_layers)

    def state_features(self, state: State) -> Tensor:
        return state[0]

    def step(self, x: Tensor, state: State, first: Tensor | None = None) -> tuple[Tensor, State]:
        """(parameters [n, D, P] of the step after x, state that has seen x [n, D]); `first` [n]: x starts an episode."""
        if first is not None:
            state = restarted(state, self._fresh(state), first)
        _, count, *windows = state
        state = self._taken_in(self.embedding(self.data.inputs(x, self.start.dtype)), count, tuple(windows))
        return self.readout(state[0]), state

    def _fresh(self, state: State) -> State:
        """An initial state with windows as long as those of `state`: what is before the start is never looked at."""
        features, count, *windows = self.initial_state(len(state[0]))
        longer = state[2].shape[2] - 1
        return (features, count, *(F.pad(window, (0, 0, longer, 0)) for window in windows))

    def _taken_in(self, token: Tensor, count: Tensor, windows: State) -> State:
        """The state after one more position, token [n, C]."""
        position = count[:, None]  # [n, 1]
        hidden = self._placed(token[:, None], position)
        length = min(windows[0].shape[2] + 1, self.config.context)
        age = torch.arange(length - 1, -1, -1, device=token.device)
        look = (age <= position)[:, None]  # [n, 1, S]: not what was before the episode's start
        kept: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            hidden, window = block(hidden, position, look, past=windows[2 * i : 2 * i + 2])
            kept += window
        return (self.norm(hidden)[:, 0], count + 1, *kept)

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        x, noise = self.data.checked(batch["x"]), generator if self.training else None
        parameters = self.readout(self.features(x[:, :-1], batch.get("first"), noise))
        return scored_loss(self.data.log_prob(parameters, x), batch.get("mask"))

    def encode(self, x: Tensor) -> Tensor:
        """The last position's features [B, C], after all of x."""
        return self.features(self.data.checked(x))[:, -1]

    log_prob = exact_log_prob
    sample = ancestral
