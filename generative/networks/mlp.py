"""The multi-layer perceptron, as a module and as a model of a target given a vector.

    f(x) = W_k σ(W_{k−1} … σ(W_1 x + b_1) …) + b_k,        p(target | x) = head(target | f(x))

Rumelhart, Hinton & Williams 1986; notes §1.1–1.5. A hidden layer makes it solve what the perceptron can't (XOR); without a
non-linearity σ the layers would collapse into one affine map. Dropout (Srivastava et al. 2014) acts on the hidden layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks import targets
from generative.networks.inputs import vectors

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}  # fmt: skip
Activation = Literal["relu", "elu", "silu", "gelu", "tanh", "sigmoid", "identity"]


class MLP(nn.Module):
    """Vectors [..., in_features] → [..., out_features]; `features` gives the last hidden layer.

    Hidden units are left out (dropout) only where a generator is given.

    >>> MLP(3, (16, 16), 2, "tanh")(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        in_features: int,
        hidden_sizes: tuple[int, ...],
        out_features: int,
        activation: str = "relu",
        dropout: float = 0.0,  # probability of leaving a hidden unit out
    ) -> None:
        super().__init__()
        sizes = (in_features, *hidden_sizes)
        require(min((*sizes, out_features)) >= 1, "the layers' sizes", [*sizes, out_features], "at least 1 each")
        require(0 <= dropout < 1, "dropout", dropout, "a probability below 1")
        self.hidden = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))
        self.activation = activation_of(activation)
        self.dropout = dropout
        self.output = nn.Linear(sizes[-1], out_features)

    def features(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The last hidden layer [..., hidden_sizes[-1]]; x itself where there is none."""
        for layer in self.hidden:
            x = self.activation(layer(x))
            if self.dropout and generator is not None:
                x = x * kept(x.shape, self.dropout, generator).to(x)
        return x

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.output(self.features(x, generator))


def activation_of(name: str) -> nn.Module:
    require(name in ACTIVATIONS, "activation", repr(name), " or ".join(ACTIVATIONS))
    return ACTIVATIONS[name]()


def kept(shape: tuple[int, ...], dropout: float, generator: torch.Generator) -> Tensor:
    """Dropout's factors: 0 with probability `dropout`, else 1/(1 − dropout), so that their mean is 1 (`nn.Dropout` would draw
    from torch's global generator)."""
    return (torch.rand(shape, generator=generator, device=generator.device) >= dropout) / (1 - dropout)


@dataclass(frozen=True)
class MLPConfig:
    in_features: int  # D of x [B, D]
    out_features: int = 1  # classes of a categorical target, else dimensions of the target
    hidden_sizes: tuple[int, ...] = (64, 64)  # units
    activation: Activation = "relu"
    dropout: float = 0.0  # probability
    head: targets.Head = "categorical"
    scale: float | None = 1.0  # of a Gaussian or Laplace target, in its units; None: learned, per datum

    def __post_init__(self) -> None:
        targets.check(self.head, self.out_features)


class MLPModel(GenerativeModel):
    """p(target | x): reads `label`, or `target` where it is no class, see `targets`."""

    Config = MLPConfig
    config: MLPConfig

    def __init__(self, config: MLPConfig) -> None:
        super().__init__(config)
        self.likelihood = targets.likelihood(config.head, config.out_features, config.scale)
        outputs = targets.num_outputs(self.likelihood, config.head, config.out_features)
        self.network = MLP(config.in_features, config.hidden_sizes, outputs, config.activation, config.dropout)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The head's raw parameters [B, out] of x [B, D]; with dropout where a generator is given."""
        return self.network(self._vectors(x), generator)

    def label_log_prob(self, x: Tensor, target: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """log p(target | x) [B] in nats, summed over the target's dimensions."""
        return targets.log_prob(self.likelihood, self.config.head, self(x, generator), target)

    def predict(self, x: Tensor) -> Tensor:
        """The most probable class [B], or the target's mean [B, out_features] (of bits: their probability)."""
        return targets.prediction(self.likelihood, self.config.head, self(x))

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        noise = generator if self.training else None
        return targets.loss(self.label_log_prob(batch["x"], targets.target_of(batch, self.config.head), noise))

    def encode(self, x: Tensor) -> Tensor:
        """The last hidden layer [B, hidden_sizes[-1]]."""
        return self.network.features(self._vectors(x))

    def _vectors(self, x: Tensor) -> Tensor:
        return vectors(x, self.config.in_features, self.network.output.weight.dtype)
