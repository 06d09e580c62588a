"""NICE: a flow of additive couplings, which keep volumes, and one learned scaling of each dimension.

    z = exp(s) ⊙ (c_m ∘ … ∘ c_1)(x),        log p(x) = log N(z; 0, I) + Σ s

Dinh et al. 2014 (arXiv:1410.8516); notes §7.5. The odd dimensions move by the even ones and the other way round, in turn.
Volumes can change by the same factor everywhere alone, so a Gaussian bends but no mass gathers: RealNVP and Glow lift that.
Deviations: the prior is Gaussian (in the paper logistic for most data), and frames go through a logit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generative.autoencoders.data_form import DataForm
from generative.flows.act_norm import DiagonalScaling
from generative.flows.coupling import Coupling
from generative.flows.density import FlowDensity, check_flow
from generative.flows.inner_networks import DenseNetwork
from generative.flows.multi_scale import Chain, Flat, Permutation
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks.mlp import Activation


@dataclass(frozen=True)
class NICEConfig:
    shape: tuple[int, ...] = (64,)  # of a datum: (D,) for vectors, (H, W, C) for frames
    num_couplings: int = 4
    hidden_sizes: tuple[int, ...] = (256, 256)  # units of the network in each coupling
    activation: Activation = "silu"
    levels: int = 256  # of frames, which hold 0 … levels − 1
    alpha: float = 0.05  # margin of the frames' logit, a share of [0, 1]
    num_classes: int = 0  # of labels that condition the model; 0: none

    def __post_init__(self) -> None:
        check_flow(DataForm(self.shape, self.levels), self.num_classes, self.alpha, 1.0)
        require(self.num_couplings >= 2, "num_couplings", self.num_couplings, "at least 2, so that each half is moved")


def evens_then_odds(size: int) -> Tensor:
    """0, 2, 4, …, 1, 3, …: neighbours come into different halves.

    >>> evens_then_odds(5).tolist()
    [0, 2, 4, 1, 3]
    """
    return torch.cat([torch.arange(0, size, 2), torch.arange(1, size, 2)])


class NICE(GenerativeModel):
    """p(x) or p(x | label); with labels `to_latent` and `from_latent` stand for `encode` and `decode`."""

    Config = NICEConfig
    config: NICEConfig

    def __init__(self, config: NICEConfig) -> None:
        super().__init__(config)
        form = DataForm(config.shape, config.levels)
        layers: list[nn.Module] = [Flat(form.inner), Permutation(evens_then_odds(form.size))]
        for place in range(config.num_couplings):
            swap = place % 2 == 1
            moved = form.size - form.size // 2 if swap else form.size // 2
            network = DenseNetwork(
                form.size - moved, config.hidden_sizes, moved, config.activation, condition=config.num_classes
            )
            layers.append(Coupling(network, affine=False, swap=swap))
        layers.append(DiagonalScaling(form.size))
        self.flow = FlowDensity(form, Chain(*layers), config.num_classes, config.alpha)
        self.flow.settle_capabilities(self)

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        return self.flow.loss(batch, generator)

    def log_prob(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """log p(x) of vectors [B] in nats, exact. None over frames."""
        return self.flow.log_prob(x, cond)

    def elbo(self, x: Tensor, cond: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """A bound of log P(x) of frames [B] in nats, by one noise each, the same without a generator. None over vectors."""
        return self.flow.log_prob(x, cond, generator)

    def sample(self, n: int, cond: Tensor | None = None, *, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """n data as recorded; `cond` are labels [n]. Below 1 the temperature keeps nearer to the middle."""
        return self.flow.sample(n, cond, generator, temperature)

    def encode(self, x: Tensor) -> Tensor:
        """z [B, D], as many dimensions as x has; frames at the middle of their levels. None with labels."""
        return self.flow.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """x as recorded, from z [B, D]: the inverse of `encode`. None with labels."""
        return self.flow.decode(z)

    def to_latent(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """`encode` beside labels [B]."""
        return self.flow.encode(x, cond)

    def from_latent(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """`decode` beside labels [B]; with another label than the datum's, the same style in another class."""
        return self.flow.decode(z, cond)
