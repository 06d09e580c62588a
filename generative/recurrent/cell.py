"""One step of a variational RNN, as pure functions of batched tensors with all noise passed in.

    p(z_t | h_{t−1}, c_t)   q(z_t | x_t, h_{t−1}, c_t)   p(x_t | z_t, h_{t−1}, c_t)   h_t = f(h_{t−1}, x_t, z_t, c_t)

f is a GRU or LSTM cell, h_0 is learned (so the prior at the first step is too), and c_t is a condition that is given (a label,
the action before x_t; nothing in a plain VRNN), or a variable of its own with p(c_t | h_{t−1}) and q(c_t | x_t, h_{t−1}).
The state [n, S] of n sequences is h (with an LSTM, its memory beside it). `generate` is a world model's step.

Where c is inferred, f is given c's posterior mean for the x_t at hand, also when x_t was generated (notes §6.6); h_t is then
still a function of (h_{t−1}, x_t, z_t), so the bounds stay bounds.

Chung et al. 2015, arXiv:1506.02216. Deviations: no feature extractors φ_x, φ_z; every network has a linear path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from generative.likelihoods import Bernoulli, Gaussian, Laplace, Likelihood, per_dimension, require
from generative.recurrent.variable import Kind, Network, Variable


@dataclass(frozen=True)
class CellConfig:
    in_features: int  # D of x [B, T, D]
    latent: int = 2  # dimensions of z_t
    hidden: int = 64  # units of h
    hidden_sizes: tuple[int, ...] = (64,)  # units of the prior's, posterior's and decoder's networks
    activation: str = "silu"  # of those networks
    cell: Literal["gru", "lstm"] = "gru"
    head: Literal["gaussian", "laplace", "bernoulli"] = "gaussian"
    scale: float | None = None  # of a Gaussian or Laplace head, in units of x; None: learned, for each step

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in ("in_features", "latent", "hidden")}
        require(min(sizes.values()) >= 1, ", ".join(sizes), tuple(sizes.values()), "at least 1 each")
        require(self.cell in ("gru", "lstm"), "cell", repr(self.cell), "'gru' or 'lstm'")
        require(self.head in ("gaussian", "laplace", "bernoulli"), "head", repr(self.head), "gaussian, laplace or bernoulli")


class Inferred(NamedTuple):
    """What the posteriors say of a step, and a value from them."""

    context: Tensor  # c [..., C]
    z: Tensor  # [..., L]
    latent: Tensor  # parameters of q(z | x, h, c)
    condition: Tensor | None  # of q(c | x, h), where c is inferred


class VRNNCell(nn.Module):
    """`num_context` is C; `inferred` says what kind of variable c is where it isn't given."""

    def __init__(self, config: CellConfig, num_context: int = 0, inferred: Kind | None = None) -> None:
        super().__init__()
        self.config, self.num_context = config, num_context
        sizes, given = config.hidden_sizes, config.hidden + num_context
        rnn = nn.GRUCell if config.cell == "gru" else nn.LSTMCell
        self.likelihood = likelihood(config)
        self.condition: Variable | None = None
        if inferred is not None:
            self.condition = Variable(inferred, num_context, config.hidden, config.in_features, sizes, config.activation)
        self.latent = Variable("gaussian", config.latent, given, config.in_features, sizes, config.activation)
        outputs = config.in_features * self.likelihood.out_features
        self.decoder = Network(config.latent + given, sizes, outputs, config.activation)
        self.rnn = rnn(config.in_features + config.latent + num_context, config.hidden)
        self.first_state = nn.Parameter(torch.zeros(config.hidden * (1 if config.cell == "gru" else 2)))

    @property
    def num_noise(self) -> int:
        """Standard normal numbers that a step's z and inferred c take."""
        return self.config.latent + (self.num_context if self.condition is not None else 0)

    def initial_state(self, n: int) -> Tensor:
        """The learned state before a sequence, [n, S]."""
        return self.first_state.expand(n, -1)

    def hidden(self, state: Tensor) -> Tensor:
        """h [..., hidden] of a state."""
        return state[..., : self.config.hidden]

    def infer(self, x: Tensor, state: Tensor, context: Tensor, noise: Tensor | None = None) -> Inferred:
        """c and z of the posteriors at x [..., D] from noise [..., num_noise]; their means without."""
        condition = None
        if self.condition is not None:
            condition = self.condition.posterior(x, self.hidden(state))
            context = self.condition.value(condition, None if noise is None else noise[..., self.config.latent :])
        return self.infer_given(x, state, context, noise, condition)

    def infer_given(
        self, x: Tensor, state: Tensor, context: Tensor, noise: Tensor | None, condition: Tensor | None = None
    ) -> Inferred:
        """z of the posterior under a value of c; `condition` are the parameters of q(c), where c is inferred."""
        latent = self.latent.posterior(x, torch.cat([self.hidden(state), context], -1))
        z = self.latent.value(latent, None if noise is None else noise[..., : self.config.latent])
        return Inferred(context, z, latent, condition)

    def transition(self, x: Tensor, state: Tensor, z: Tensor, context: Tensor) -> Tensor:
        """The next state [n, S]."""
        if self.condition is not None:
            context = self.condition.value(self.condition.posterior(x, self.hidden(state)), None)
        seen = torch.cat([x, z, context], -1)
        return self.rnn(seen, state) if self.config.cell == "gru" else torch.cat(self.rnn(seen, state.chunk(2, -1)), -1)

    def emission(self, state: Tensor, z: Tensor, context: Tensor) -> Tensor:
        """The head's parameters [..., D, P]."""
        output = self.decoder(torch.cat([z, self.hidden(state), context], -1))
        return per_dimension(output, self.likelihood.out_features, -1)

    def log_likelihood(self, x: Tensor, state: Tensor, inferred: Inferred) -> Tensor:
        """log p(x | z, h, c) [...] in nats."""
        return self.likelihood.log_prob(self.emission(state, inferred.z, inferred.context), x).sum(-1)

    def divergence(self, state: Tensor, inferred: Inferred) -> Tensor:
        """KL(q ‖ p) [...] of z, and of c where it is inferred; nats."""
        hidden = self.hidden(state)
        kl = self.latent.kl(inferred.latent, self.latent.prior(torch.cat([hidden, inferred.context], -1)))
        if self.condition is not None and inferred.condition is not None:
            kl = kl + self.condition.kl(inferred.condition, self.condition.prior(hidden))
        return kl

    def log_ratio(self, state: Tensor, inferred: Inferred) -> Tensor:
        """log p − log q [...] at the values inferred, z's and an inferred c's: its mean under q is −KL."""
        context, z, latent, condition = inferred
        hidden = self.hidden(state)
        prior = self.latent.prior(torch.cat([hidden, context], -1))
        ratio = self.latent.log_prob(prior, z) - self.latent.log_prob(latent, z)
        if self.condition is not None and condition is not None:
            prior = self.condition.prior(hidden)
            ratio = ratio + self.condition.log_prob(prior, context) - self.condition.log_prob(condition, context)
        return ratio

    def generate(self, state: Tensor, context: Tensor, noise: Tensor, data_noise: Tensor) -> tuple[Tensor, Tensor]:
        """(x [n, D], next state) from the priors; data_noise is what the head's `noise` draws for [n, D]."""
        hidden, size = self.hidden(state), self.config.latent
        if self.condition is not None:
            context = self.condition.value(self.condition.prior(hidden), noise[..., size:])
        z = self.latent.value(self.latent.prior(torch.cat([hidden, context], -1)), noise[..., :size])
        x = self.likelihood.from_noise(self.emission(state, z, context), data_noise)
        return x, self.transition(x, state, z, context)


def likelihood(config: CellConfig) -> Likelihood:
    if config.head == "bernoulli":
        return Bernoulli()
    return (Gaussian if config.head == "gaussian" else Laplace)(config.scale)
