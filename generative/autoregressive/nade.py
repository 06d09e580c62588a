"""Neural autoregressive density estimator: a hidden layer for every conditional, its weights shared between them.

    a_1 = b,   a_{i+1} = a_i + W_{:,i} x_i,   h_i = σ(a_i),   p(x_i = 1 | x_1 … x_{i−1}) = σ(V_{i,:} h_i + c_i)

The recursion costs O(D H) for all conditionals. In training it is a cumulative sum over the dimensions of a tensor [B, H, D];
in sampling a is carried from value to value. Source: Larochelle & Murray 2011; Uria et al. 2016, arXiv:1605.02226; notes §6.2.
Deviations: W has no column for x_D, which no conditional sees; b and c may be shifted by a label; inputs may be dropped in
training; and the hidden units may be rectified.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from generative.autoregressive import ancestral
from generative.likelihoods import Bernoulli, require
from generative.model import Batch, GenerativeModel, Metrics

HEAD = Bernoulli()
ACTIVATIONS = {"sigmoid": torch.sigmoid, "relu": torch.relu}


@dataclass(frozen=True)
class NADEConfig:
    dimensions: int  # D of x [B, D]
    hidden: int = 200  # H, units
    activation: Literal["sigmoid", "relu"] = "sigmoid"
    num_classes: int | None = None  # K of the labels that it is conditioned on; None: unconditional
    input_dropout: float = 0.0  # probability, in training

    def __post_init__(self) -> None:
        ancestral.check_config(self.dimensions, self.num_classes, self.input_dropout)
        require(self.hidden >= 1, "hidden", self.hidden, "at least 1")
        require(self.activation in ACTIVATIONS, "activation", repr(self.activation), " or ".join(ACTIVATIONS))


def preactivations(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """a_i = b + Σ_{j<i} W_{:,j} x_j as [B, H, D], from x [B, D], W [H, D − 1] and b [H] or [B, H]."""
    first = bias[..., None].expand(len(x), -1, 1)
    return torch.cat([first, x[:, None, :-1] * weight], 2).cumsum(2)


class NADE(GenerativeModel):
    """p(x) of zeros and ones x [B, D], in the order of their places."""

    Config = NADEConfig
    config: NADEConfig

    def __init__(self, config: NADEConfig) -> None:
        super().__init__(config)
        bound = 1 / math.sqrt(config.dimensions)
        self.weight = nn.Parameter(torch.empty(config.hidden, config.dimensions - 1).uniform_(-bound, bound))  # W
        self.hidden_bias = nn.Parameter(torch.zeros(config.hidden))  # b
        bound = 1 / math.sqrt(config.hidden)
        self.readout = nn.Parameter(torch.empty(config.hidden, config.dimensions).uniform_(-bound, bound))  # V, transposed
        self.bias = nn.Parameter(torch.zeros(config.dimensions))  # c
        self.label_hidden_bias = ancestral.label_shift(config.num_classes, config.hidden)
        self.label_bias = ancestral.label_shift(config.num_classes, config.dimensions)
        self.activation = ACTIVATIONS[config.activation]
        if config.num_classes is not None:
            self.conditioned_on = "label"
            self.encode = None  # type: ignore[method-assign,assignment]  # its hidden state is of x and the label

    def logits(self, inputs: Tensor, cond: Tensor | None = None) -> Tensor:
        """Logits [B, D] of p(x_i = 1 | x_before i)."""
        hidden_bias, bias = self._biases(cond)
        hidden = self.activation(preactivations(inputs, self.weight, hidden_bias))  # [B, H, D]
        return (hidden * self.readout).sum(1) + bias

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        x, label = self._checked(batch["x"], batch.get("label") if self.conditioned_on else None)
        inputs = x
        if self.training and self.config.input_dropout:
            inputs = ancestral.drop_inputs(x, self.config.input_dropout, generator)
        log_prob = HEAD.log_prob(self.logits(inputs, label)[..., None], x)
        return -ancestral.scored(log_prob, batch).mean(), {}

    def log_prob(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Exact log p(x) or log p(x | label) [B], nats."""
        x, cond = self._checked(x, cond)
        return HEAD.log_prob(self.logits(x, cond)[..., None], x).sum(1)

    @torch.no_grad()
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
        """x [n, D]; the first `num_given` values are those of `given` [n, D].

        `cached` carries the hidden state along; without it every step computes all conditionals anew, to the same samples.
        """
        ancestral.check_label(cond, self.config.num_classes, n)
        dimensions = self.config.dimensions
        start = ancestral.starting_point(n, given, num_given, range(dimensions), self.weight, 2)
        noise = HEAD.noise((n, dimensions), generator).to(start.device)
        if cached:
            return self._by_recursion(start, noise, num_given, cond)
        return ancestral.ancestral_sample(
            lambda x, i: self.logits(x, cond)[:, i, None], HEAD, start, noise, range(num_given, dimensions)
        )

    def encode(self, x: Tensor) -> Tensor:
        """The hidden units of the last conditional [B, H], which see all values but the last."""
        x, _ = self._checked(x, None)
        return self.activation(x[:, :-1] @ self.weight.T + self.hidden_bias)

    def _by_recursion(self, x: Tensor, noise: Tensor, num_given: int, cond: Tensor | None) -> Tensor:
        """x [n, D] with the values from `num_given` on drawn, in O(D H) each."""
        hidden_bias, bias = self._biases(cond)
        weight, readout = self.weight.T.contiguous(), self.readout.T.contiguous()  # a row for each value
        seen = min(num_given, len(weight))
        state = x[:, :seen] @ weight[:seen] + hidden_bias  # a_i [n, H]
        x = x.clone()
        for i in range(num_given, len(readout)):
            logit = self.activation(state) @ readout[i] + bias[..., i]
            x[:, i] = HEAD.from_noise(logit[:, None], noise[:, i])
            if i < len(weight):
                state = torch.addcmul(state, x[:, i, None], weight[i])
        return x

    def _biases(self, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """b [H] and c [D], or [B, H] and [B, D] of the data's labels."""
        hidden_bias = ancestral.shifted(self.hidden_bias, self.label_hidden_bias, cond)
        return hidden_bias, ancestral.shifted(self.bias, self.label_bias, cond)

    def _checked(self, x: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor | None]:
        ancestral.check_x(x, self.config.dimensions, 2)
        ancestral.check_label(label, self.config.num_classes, len(x))
        return x.to(self.weight.dtype), label
