"""Walks of a `VRNNCell` along sequences: filtering, the bounds of log p(x) and open-loop prediction.

    ELBO = E_q Σ_t log p(x_t | z_t, h_{t−1}, c_t) − KL(q(z_t | x_t, h_{t−1}, c_t) ‖ p(z_t | h_{t−1}, c_t))
    importance weighted: log 1/K Σ_k Π_t w_t^k,   w_t = p(x_t | z_t, …) p(z_t | …)/q(z_t | x_t, …)

The second (Burda et al. 2015, arXiv:1509.00519) is tight as K grows; over long sequences its weights degenerate, and `resample`
turns it into a particle filter (filtering bound: Maddison et al. 2017, arXiv:1705.09279). Either is a lower bound in mean.

`first` [B, T] is true where a sequence begins anew: the state there is the initial one. `mask` [B, T] is false at padded
steps, which are neither scored nor seen: the state passes through them unchanged, and x there may be anything.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from generative.likelihoods import Bernoulli, require
from generative.model import Metrics
from generative.recurrent.cell import Inferred, VRNNCell


class Steps(NamedTuple):
    """Sequences in the form a cell walks along."""

    x: Tensor  # [B, T, D]
    context: Tensor  # c [B, T, C]; [B, T, 0] where there is none or it is inferred
    first: Tensor | None  # bool [B, T]
    mask: Tensor | None  # bool [B, T]


class Bound(NamedTuple):
    """Per sequence, in nats."""

    log_likelihood: Tensor  # [B]
    kl: Tensor  # [B]

    @property
    def elbo(self) -> Tensor:
        return self.log_likelihood - self.kl


def sequences(cell: VRNNCell, x: Tensor, first: Tensor | None, mask: Tensor | None) -> Tensor:
    """x [B, T, D] in the cell's type, zero where padded. Raises ValueError for a wrong shape or, of bits, wrong values."""
    if x.ndim != 3 or x.shape[2] != cell.config.in_features or not x.shape[1]:
        raise ValueError(
            f"x is {list(x.shape)}; expected sequences [B, T, {cell.config.in_features}]: flatten what a step holds, "
            "or set in_features to its size"
        )
    for name, marks in (("first", first), ("mask", mask)):
        if marks is not None and (marks.shape != x.shape[:2] or marks.dtype != torch.bool):
            raise ValueError(
                f"{name} is {marks.dtype} {list(marks.shape)}; expected bool {list(x.shape[:2])}, a mark for a step"
            )
    x = x.to(cell.first_state.dtype)
    x = x if mask is None else x.masked_fill(~mask[..., None], 0)
    if isinstance(cell.likelihood, Bernoulli) and ((x != 0) & (x != 1)).any():
        raise ValueError(
            "x has values other than 0 and 1; expected bits with head='bernoulli': binarise x, or use another head"
        )
    return x


def previous_actions(action: Tensor, first: Tensor | None, mask: Tensor | None) -> Tensor:
    """The action that led to each step, [B, T, A]: zero where a sequence begins. action_t is taken upon x_t.

    >>> previous_actions(torch.tensor([[[1.0], [2.0], [3.0]]]), None, None).flatten().tolist()
    [0.0, 1.0, 2.0]
    """
    usable = torch.ones(action.shape[:2], dtype=torch.bool, device=action.device) if mask is None else mask
    before = action.masked_fill(~usable[..., None], 0).roll(1, 1)
    begins = torch.zeros_like(usable) if first is None else first.clone()
    begins[:, 0] = True
    return before.masked_fill(begins[..., None], 0)


def infer_along(cell: VRNNCell, steps: Steps, noise: Tensor | None = None) -> tuple[Tensor, Inferred, Tensor]:
    """(states before each step [B, T, S], what was inferred [B, T, …], the last state [B, S]) from noise [B, T, num_noise].

    Without noise the posteriors' means are followed.
    """
    state = cell.initial_state(len(steps.x))
    states, inferred = [], []
    for t in range(steps.x.shape[1]):
        state = restarted(cell, state, steps.first, t)
        found = cell.infer(steps.x[:, t], state, steps.context[:, t], None if noise is None else noise[:, t])
        states.append(state)
        inferred.append(found)
        state = moved(cell, state, steps, t, found)
    return torch.stack(states, 1), stacked(inferred), state


def restarted(cell: VRNNCell, state: Tensor, first: Tensor | None, t: int) -> Tensor:
    return state if first is None else torch.where(first[:, t, None], cell.first_state, state)


def moved(cell: VRNNCell, state: Tensor, steps: Steps, t: int, found: Inferred) -> Tensor:
    """The state after step t; where that is padding, as before."""
    after = cell.transition(steps.x[:, t], state, found.z, found.context)
    return after if steps.mask is None else torch.where(steps.mask[:, t, None], after, state)


def stacked(inferred: list[Inferred]) -> Inferred:
    context, z, latent, condition = zip(*inferred)
    return Inferred(
        torch.stack(context, 1),
        torch.stack(z, 1),
        torch.stack(latent, 1),
        None if condition[0] is None else torch.stack(condition, 1),
    )


def filtered(cell: VRNNCell, steps: Steps, state: Tensor, noise: Tensor | None) -> Tensor:
    """The state [n, S] after the one step there is."""
    found = cell.infer(steps.x[:, 0], state, steps.context[:, 0], noise)
    return cell.transition(steps.x[:, 0], state, found.z, found.context)


def evidence_bound(cell: VRNNCell, steps: Steps, noise: Tensor) -> Bound:
    """The two parts of the ELBO from noise [B, T, num_noise]: decoder and priors are evaluated for all steps at once."""
    states, inferred, _ = infer_along(cell, steps, noise)
    if cell.condition is not None and cell.condition.kind == "discrete":
        log_likelihood, kl = over_conditions(cell, steps.x, states, inferred, noise)
    else:
        log_likelihood, kl = cell.log_likelihood(steps.x, states, inferred), cell.divergence(states, inferred)  # [B, T]
    if steps.mask is not None:
        log_likelihood, kl = log_likelihood.masked_fill(~steps.mask, 0), kl.masked_fill(~steps.mask, 0)
    return Bound(log_likelihood.sum(1), kl.sum(1))


def over_conditions(cell: VRNNCell, x: Tensor, states: Tensor, inferred: Inferred, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Each step's terms [B, T] in their exact mean over a discrete c; only the states are those of the sampled path.

    So the gradient of q(c) is exact within a step. From samples alone, training often ended with z in c's place.
    """
    weight, values = inferred.condition.softmax(-1), torch.eye(cell.num_context).to(x)  # type: ignore[union-attr]
    values = values.expand(*states.shape[:2], -1, -1)  # [B, T, K, K]
    x, states, noise = (part[:, :, None].expand(-1, -1, cell.num_context, -1) for part in (x, states, noise))
    found = cell.infer_given(x, states, values, noise, inferred.condition[:, :, None])  # type: ignore[index]
    log_likelihood, kl = cell.log_likelihood(x, states, found), cell.divergence(states, found)  # [B, T, K]
    return (weight * log_likelihood).sum(-1), (weight * kl).sum(-1)


def importance_bound(
    cell: VRNNCell, steps: Steps, num_samples: int, generator: torch.Generator, resample: bool = False
) -> Tensor:
    """The importance-weighted bound [B] in nats with K = `num_samples` particles; `resample`: where their effective number
    (Σw)²/Σw² falls below K/2."""
    num_sequences, num_steps = steps.x.shape[:2]
    require(num_samples >= 1, "num_samples", num_samples, "at least 1")
    every = Steps(*(None if part is None else part.repeat_interleave(num_samples, 0) for part in steps))  # type: ignore[arg-type]
    state = cell.initial_state(len(every.x))
    total, log_weight = steps.x.new_zeros(num_sequences), steps.x.new_zeros(num_sequences, num_samples)
    for t in range(num_steps):
        noise = standard_normal(cell, (len(state), cell.num_noise), generator)
        state = restarted(cell, state, every.first, t)
        found = cell.infer(every.x[:, t], state, every.context[:, t], noise)
        gain = cell.log_likelihood(every.x[:, t], state, found) + cell.log_ratio(state, found)  # [B·K]
        gain = gain if every.mask is None else gain.masked_fill(~every.mask[:, t], 0)
        log_weight = log_weight + gain.view_as(log_weight)
        state = moved(cell, state, every, t, found)
        if resample and t < num_steps - 1:
            total, log_weight, state = resampled(total, log_weight, state, generator)
    return total + log_weight.logsumexp(1) - math.log(num_samples)


def resampled(total: Tensor, log_weight: Tensor, state: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Particles [B·K, S] drawn anew by weight where few of them count; their mean weight then goes into `total` [B]."""
    num_samples = log_weight.shape[1]
    share = log_weight.softmax(1)  # [B, K]
    few = 1 / (share**2).sum(1) < num_samples / 2  # [B]
    chosen = torch.multinomial(share, num_samples, replacement=True, generator=generator)
    chosen = torch.where(few[:, None], chosen, torch.arange(num_samples, device=chosen.device))
    rows = (chosen + num_samples * torch.arange(len(chosen), device=chosen.device)[:, None]).flatten()
    total = torch.where(few, total + log_weight.logsumexp(1) - math.log(num_samples), total)
    return total, log_weight.masked_fill(few[:, None], 0), state[rows]


def predict(cell: VRNNCell, state: Tensor, context: Tensor, generator: torch.Generator) -> Tensor:
    """x [n, T, D] that follow `state` [n, S], sampled from the priors given c [n, T, C]."""
    noise = standard_normal(cell, (*context.shape[:2], cell.num_noise), generator)
    data_noise = cell.likelihood.noise((*context.shape[:2], cell.config.in_features), generator).to(noise)
    made = []
    for t in range(context.shape[1]):
        x, state = cell.generate(state, context[:, t], noise[:, t], data_noise[:, t])
        made.append(x)
    return torch.stack(made, 1)


def loss(bound: Bound) -> tuple[Tensor, Metrics]:
    """−ELBO, the mean over the batch in nats, and its parts."""
    negative = -bound.elbo.mean()
    parts = {"log_likelihood": bound.log_likelihood.detach().mean(), "kl": bound.kl.detach().mean()}
    return negative, {"elbo": -negative.detach(), **parts}


def noise(cell: VRNNCell, steps: Steps, generator: torch.Generator | None) -> Tensor:
    """For one path, [B, T, num_noise]."""
    return standard_normal(cell, (*steps.x.shape[:2], cell.num_noise), fixed(cell) if generator is None else generator)


def fixed(cell: VRNNCell) -> torch.Generator:
    """A generator that makes an estimate the same each time."""
    return torch.Generator(cell.first_state.device).manual_seed(0)


def require_cond(conditioned_on: str | None, cond: Tensor | None) -> None:
    if conditioned_on is None and cond is not None:
        raise ValueError("cond was given to a model that is conditioned on nothing; leave it out")
    if conditioned_on is not None and cond is None:
        raise ValueError(f"cond is missing: this model is conditioned on the batch's {conditioned_on!r}; give that as cond")


def standard_normal(cell: VRNNCell, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device).to(cell.first_state)
