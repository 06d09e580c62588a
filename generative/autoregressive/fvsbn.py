"""Fully visible sigmoid belief network: every value's conditional is a logistic regression on the values before it.

    p(x_i = 1 | x_1 … x_{i−1}) = σ(α₀⁽ⁱ⁾ + Σ_{j<i} α_j⁽ⁱ⁾ x_j)

With the α in a matrix A, strictly lower triangular, all logits are A x + α₀: D(D + 1)/2 parameters act. −log p is convex in
them, so they start at 0. Source: Frey 1998, "Graphical Models for Machine Learning and Digital Communication"; notes §6.1.
Additions: a label may shift α₀, and inputs may be dropped in training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generative.autoregressive import ancestral
from generative.likelihoods import Bernoulli
from generative.model import Batch, GenerativeModel, Metrics, Picture

HEAD = Bernoulli()


@dataclass(frozen=True)
class FVSBNConfig:
    dimensions: int  # D of x [B, D]
    num_classes: int | None = None  # K of the labels that it is conditioned on; None: unconditional
    input_dropout: float = 0.0  # probability, in training

    def __post_init__(self) -> None:
        ancestral.check_config(self.dimensions, self.num_classes, self.input_dropout)


class FVSBN(GenerativeModel):
    """p(x) of zeros and ones x [B, D], in the order of their places."""

    Config = FVSBNConfig
    config: FVSBNConfig

    def __init__(self, config: FVSBNConfig) -> None:
        super().__init__(config)
        self.weight = nn.Parameter(torch.zeros(config.dimensions, config.dimensions))  # row i: α⁽ⁱ⁾; j ≥ i is masked
        self.bias = nn.Parameter(torch.zeros(config.dimensions))  # α₀
        self.label_bias = ancestral.label_shift(config.num_classes, config.dimensions)
        if config.num_classes is not None:
            self.conditioned_on = "label"
            self.encode = None  # type: ignore[method-assign,assignment]  # its logits are of x and the label

    def logits(self, inputs: Tensor, cond: Tensor | None = None) -> Tensor:
        """Logits [B, D] of p(x_i = 1 | x_before i)."""
        return inputs @ self.weight.tril(-1).T + ancestral.shifted(self.bias, self.label_bias, cond)

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
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator, given: Tensor | None = None, num_given: int = 0
    ) -> Tensor:
        """x [n, D]; the first `num_given` values are those of `given` [n, D]."""
        ancestral.check_label(cond, self.config.num_classes, n)
        dimensions = self.config.dimensions
        start = ancestral.starting_point(n, given, num_given, range(dimensions), self.weight, 2)
        bias = ancestral.shifted(self.bias, self.label_bias, cond)
        noise = HEAD.noise((n, dimensions), generator).to(start.device)

        def conditional(x: Tensor, i: int) -> Tensor:
            return (x[:, :i] @ self.weight[i, :i] + bias[..., i])[:, None]

        return ancestral.ancestral_sample(conditional, HEAD, start, noise, range(num_given, dimensions))

    def encode(self, x: Tensor) -> Tensor:
        """The logits [B, D]: there is no hidden layer."""
        return self.logits(self._checked(x, None)[0])

    @torch.no_grad()
    def pictures(self) -> dict[str, Picture]:
        """The weights [D, D, 1]: mid-grey 0, black and white ∓ the greatest."""
        weight = self.weight.tril(-1)
        level = 127.5 + 127.5 * weight / weight.abs().max().clamp_min(1e-12)
        return {"weights": level.round().to(torch.uint8).cpu().numpy()[..., None]}

    def _checked(self, x: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor | None]:
        ancestral.check_x(x, self.config.dimensions, 2)
        ancestral.check_label(label, self.config.num_classes, len(x))
        return x.to(self.weight.dtype), label
