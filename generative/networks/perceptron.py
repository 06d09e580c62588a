"""The perceptron, a linear threshold unit with a learning rule of its own (Rosenblatt 1958; notes §1.1).

    ŷ = 1{w·x + b > 0},        (w, b) ← (w, b) + η (y − ŷ)(x, 1)

On separable data the rule makes at most (R/γ)² mistakes from zero weights, R the greatest length of (x, 1) and γ the margin
(Novikoff 1962); on others, XOR first of all, it never ends. `learn` is the rule datum by datum.

Deviation: the loss isn't a likelihood but the perceptron criterion Σ (ŷ − y)(w·x + b), the distance of mistakes to the
boundary up to |w|. Its gradient is the rule, so `fit` with `optimiser="sgd"`, `decay="none"` and minibatches of one does
the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks import targets
from generative.networks.inputs import vectors


@dataclass(frozen=True)
class PerceptronConfig:
    in_features: int  # D of x [B, D]

    def __post_init__(self) -> None:
        require(self.in_features >= 1, "in_features", self.in_features, "at least 1")


class Perceptron(GenerativeModel):
    """Reads `label`, 0 or 1 [B], beside vectors x [B, D]; starts from zero weights."""

    Config = PerceptronConfig
    config: PerceptronConfig

    def __init__(self, config: PerceptronConfig) -> None:
        super().__init__(config)
        self.weight = nn.Parameter(torch.zeros(config.in_features))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """w·x + b [B]."""
        return vectors(x, self.config.in_features, self.weight.dtype) @ self.weight + self.bias

    def predict(self, x: Tensor) -> Tensor:
        """ŷ [B], int64."""
        return (self(x) > 0).long()

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        """The perceptron criterion, a mean over the batch; no nats."""
        score = self(batch["x"])
        predicted = (score > 0).long()
        residual = targets.labels(targets.target_of(batch), (len(score),), 2) - predicted
        return -(residual * score).mean(), {"accuracy": (residual == 0).to(score.dtype).mean()}

    def encode(self, x: Tensor) -> Tensor:
        """w·x + b [B, 1]."""
        return self(x)[:, None]

    @torch.no_grad()
    def learn(self, x: Tensor, label: Tensor, *, learning_rate: float = 1.0, max_sweeps: int = 1_000) -> tuple[int, bool]:
        """The rule over the data in turn, until a sweep makes no mistake or `max_sweeps` are done.

        Returns (mistakes made, whether the last sweep made none).
        """
        x = vectors(x, self.config.in_features, self.weight.dtype)
        label = targets.labels(label, (len(x),), 2)
        mistakes = 0
        for _ in range(max_sweeps):
            before = mistakes
            for datum, truth in zip(x, label.tolist()):
                residual = truth - int(datum @ self.weight + self.bias > 0)
                self.weight.add_(datum, alpha=learning_rate * residual)
                self.bias.add_(learning_rate * residual)
                mistakes += abs(residual)
            if mistakes == before:
                return mistakes, True
        return mistakes, False
