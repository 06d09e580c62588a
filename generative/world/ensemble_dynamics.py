"""An ensemble of Gaussian networks that predicts the next observation's change, the reward, and whether the episode ends.

    p_m(Δ, r | x, a) = N(μ_m(x, a), diag σ_m²(x, a)),   x′ = x + Δ,   p(end | x′),       m = 1 … M

The members start apart and weigh the data apart (an exponential weight for each member and transition: the Bayesian bootstrap,
Rubin 1981), so that they agree where there are data and disagree elsewhere. An imagined step follows one member: another at
each step (`per_step`), so that no error is followed for long, or each dream its own (`own`), which is M times less work. Δ and
r are predicted in units of their standard deviations, measured on data. The end is judged on the state that was reached.

    loss = mean over transitions and members of −log p_m(Δ, r | x, a)  +  mean over states of −log p(end | x′)

Chua et al. 2018 (arXiv:1805.12114), Janner et al. 2019 (arXiv:1906.08253); the notes have no world models. Deviations: the
bounds of σ are fixed, not learned; the bootstrap is drawn anew for each minibatch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.likelihoods import require, soft_bound
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks.mlp import MLP, activation_of
from generative.world.protocol import State, standard_normal
from generative.world.standardiser import Standardiser
from generative.world.transitions import Transitions, check, real, transitions

LOG_STD = (-6.0, 1.0)  # bounds of log σ, in units of the data's standard deviation
FAR = 10.0  # standard deviations; what a policy is given is clipped there


@dataclass(frozen=True)
class EnsembleDynamicsConfig:
    in_features: int  # D of observations x [B, T, D]
    action_size: int  # width of an action; one-hot where actions are numbers
    num_members: int = 5  # M
    hidden_sizes: tuple[int, ...] = (64, 64)  # of each member, and of the network that judges ends
    activation: str = "silu"
    members: Literal["per_step", "own"] = "per_step"  # which one an imagined step follows

    def __post_init__(self) -> None:
        for name in ("in_features", "action_size", "num_members"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(bool(self.hidden_sizes) and min(self.hidden_sizes) >= 1, "hidden_sizes", self.hidden_sizes, "one or more units")
        require(self.members in ("per_step", "own"), "members", repr(self.members), "'per_step' or 'own'")


class MemberLinear(nn.Module):
    """M linear layers side by side: [M, n, I] → [M, n, O] as one product of batched matrices."""

    def __init__(self, num_members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(num_members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_members, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


def gaussian_nats(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """−log N(x; mean, σ²) of each dimension."""
    return 0.5 * ((x - mean) * (-log_std).exp()) ** 2 + log_std + 0.5 * math.log(2 * math.pi)


def of_member(output: Tensor, member: Tensor) -> Tensor:
    """[M, n, K] and members int64 [n] → [n, K]."""
    return output.gather(0, member.view(1, -1, 1).expand(1, -1, output.shape[2]))[0]


class EnsembleDynamics(GenerativeModel):
    """The world as a function of the last observation; the state is (x,).

    With `members: own` the batch of n dreams is cut into M runs of equal length (the last may be shorter), one a member: a
    dream keeps its member as long as it keeps its place.

    >>> model = EnsembleDynamics(EnsembleDynamicsConfig(in_features=3, action_size=2))
    >>> (x,), reward, end = model.imagine(model.begin(torch.zeros(7, 3)), torch.zeros(7, 2), torch.rand(7, model.num_noise))
    >>> x.shape, reward.shape, end.shape
    (torch.Size([7, 3]), torch.Size([7]), torch.Size([7]))
    """

    Config = EnsembleDynamicsConfig
    config: EnsembleDynamicsConfig
    markov = True  # an observation tells the whole state

    def __init__(self, config: EnsembleDynamicsConfig) -> None:
        super().__init__(config)
        size = config.in_features
        self.num_noise = size + (config.members == "per_step")
        self.scale, self.change = Standardiser(size), Standardiser(size + 1)  # of x; of Δ and r side by side
        widths = (size + config.action_size, *config.hidden_sizes)
        hidden: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            hidden += [MemberLinear(config.num_members, inputs, outputs), activation_of(config.activation)]
        self.dynamics = nn.Sequential(*hidden, MemberLinear(config.num_members, widths[-1], 2 * (size + 1)))
        self.end = MLP(size, config.hidden_sizes, 1, config.activation)

    def predict(self, x: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, log σ) [M, n, D + 1] of the standardised change and reward, for x and action [n, …] or [M, n, …]."""
        given = torch.cat([self.features((x,)), action], dim=-1)
        if given.ndim == 2:
            given = given.expand(self.config.num_members, -1, -1)
        mean, log_std = self.dynamics(given).chunk(2, dim=-1)
        return mean, soft_bound(log_std, *LOG_STD)

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        """Nats of a transition and of a state's end, means over the batch's real ones."""
        check(batch, self.config.in_features, self.config.action_size)
        step = transitions(batch, self.scale.mean.dtype)
        if self.training and not self.scale.measured:
            self.measure(batch)
        target = self.change(torch.cat([step.after - step.before, step.reward[:, None]], dim=-1))
        mean, log_std = self.predict(step.before, step.action)
        nats = gaussian_nats(target, mean, log_std).sum(-1) + self.change.std.log().sum()  # [M, N]
        weight = self._bootstrap(step, generator)
        dynamics = (weight * nats).sum() / weight.sum().clamp(min=1e-8)
        error = (weight * ((mean - target) ** 2).mean(-1)).sum() / weight.sum().clamp(min=1e-8)
        ends = self._end_nats(batch)
        told = {"dynamics": dynamics, "end": ends, "squared_error": error}
        return dynamics + ends, {key: value.detach() for key, value in told.items()}

    def _bootstrap(self, step: Transitions, generator: torch.Generator) -> Tensor:
        """Weights [M, N] of the transitions for each member."""
        weight = step.weight.new_empty(self.config.num_members, len(step.weight))
        return weight.exponential_(generator=generator) * step.weight

    def _end_nats(self, batch: Batch) -> Tensor:
        """Binary cross-entropy of the ends over all states that were recorded."""
        x, weight = batch["x"].to(self.scale.mean.dtype), real(batch).to(self.scale.mean.dtype)
        logit = self.end(self.features((x,))).squeeze(-1)
        nats = F.binary_cross_entropy_with_logits(logit, batch["terminated"].to(logit.dtype), reduction="none")
        return (weight * nats).sum() / weight.sum().clamp(min=1.0)

    @torch.no_grad()
    def measure(self, batch: Batch) -> None:
        """Take the moments of observations, changes and rewards; if not called, the first training batch's are taken."""
        step = transitions(batch, self.scale.mean.dtype)
        there = step.weight > 0
        if not there.any():  # the next batch will do
            return
        self.scale.measure(batch["x"][real(batch)])
        self.change.measure(torch.cat([step.after - step.before, step.reward[:, None]], dim=-1)[there])

    def begin(self, x: Tensor) -> State:
        if x.shape[-1] != self.config.in_features:
            raise ValueError(f"x is {list(x.shape)}; expected vectors [..., {self.config.in_features}], as in training")
        return (x.to(self.scale.mean.dtype),)

    def posterior(self, batch: Batch) -> tuple[State, Tensor]:
        return self.begin(batch["x"]), real(batch) & ~batch["terminated"]

    def filter(self, state: State, action: Tensor, x: Tensor, first: Tensor) -> State:
        return self.begin(x)

    def imagine(self, state: State, action: Tensor, noise: Tensor, temperature: float = 1.0) -> tuple[State, Tensor, Tensor]:
        x, size = state[0], self.config.in_features
        noise = noise.to(x.dtype)
        if self.config.members == "own":
            mean, log_std = self._own(x, action)
        else:
            member = (noise[:, size] * self.config.num_members).long()
            mean, log_std = (of_member(part, member) for part in self.predict(x, action))
        drawn = torch.addcmul(mean[:, :size], log_std[:, :size].exp(), temperature * standard_normal(noise[:, :size]))
        change = self.change.inverse(torch.cat([drawn, mean[:, size:]], dim=-1))
        after = x + change[:, :size]
        return (after,), change[:, size], torch.sigmoid(self.end(self.features((after,)))).squeeze(-1)

    def _own(self, x: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, log σ) [n, D + 1] by each dream's own member; the runs are padded to one length."""
        members, n = self.config.num_members, len(x)
        run = -(-n // members)
        padded = F.pad(x, (0, 0, 0, members * run - n)), F.pad(action, (0, 0, 0, members * run - n))
        mean, log_std = self.predict(*(part.unflatten(0, (members, run)) for part in padded))
        return mean.flatten(0, 1)[:n], log_std.flatten(0, 1)[:n]

    def observation(self, state: State) -> Tensor:
        return state[0]

    def features(self, state: State) -> Tensor:
        """The standardised observation, clipped: what the ensemble's own networks are given too."""
        return self.scale(state[0]).clamp(-FAR, FAR)
