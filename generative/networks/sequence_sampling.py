"""Of sequence models: log p(x) = Σ_t log p(x_t | x_<t), and x_t ~ p(x_t | x_<t) one step after the other (notes §6).

With `cached` a step costs the model's `step`; without, the network runs over all that is there so far. Both draw the same
noise, so their samples agree where the conditionals do.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from generative.networks.sequence_data import SequenceData

State: TypeAlias = tuple[Tensor, ...]  # each [n, …]


class Stepwise(Protocol):
    """What sampling needs of a model."""

    data: SequenceData

    def initial_state(self, n: int) -> State:
        """The state before any step, of n sequences."""

    def readout(self, features: Tensor) -> Tensor:
        """Parameters [*S, D, P] from features [*S, C]."""

    def state_features(self, state: State) -> Tensor:
        """Features [n, C] of what the state has seen."""

    def step(self, x: Tensor, state: State, first: Tensor | None = None) -> tuple[Tensor, State]:
        """(parameters of x_{t+1} [n, D, P], state that has seen x_t [n, D])."""

    def features(self, x: Tensor, first: Tensor | None = None) -> Tensor:
        """[B, T + 1, C] of x [B, T, D]: position t has seen x_<t."""


def exact_log_prob(model: Stepwise, x: Tensor, cond: Any = None, *, first: Tensor | None = None) -> Tensor:
    """log p(x) [B]; nats. `first` [B, T] is true where an episode starts: what was before is forgotten."""
    _without_condition(model, cond)
    x = model.data.checked(x)
    return model.data.log_prob(model.readout(model.features(x[:, :-1], first)), x).sum((1, 2))


def _without_condition(model: Stepwise, cond: Any) -> None:
    if cond is not None:
        raise ValueError(f"{type(model).__name__} models sequences without a condition; got a cond: leave it out")


@torch.no_grad()
def ancestral(
    model: Stepwise,
    n: int,
    cond: Any = None,
    *,
    generator: torch.Generator,
    given: Tensor | None = None,
    num_given: int = 0,
    cached: bool = True,
    num_steps: int | None = None,
) -> Tensor:
    """n new sequences as recorded, of `num_steps`, else of as many steps as the data have.

    The first `num_given` values of each are kept, counted step by step, and within a step in order. Raises ValueError for a
    `given` that doesn't fit.
    """
    _without_condition(model, cond)
    data, num_steps = model.data, num_steps or model.data.num_steps
    kept = torch.arange(num_steps * data.size).view(num_steps, data.size) < num_given  # [T, D]
    known = _given(data, n, num_steps, given, num_given)
    state = model.initial_state(n)
    parameters = model.readout(model.state_features(state))
    x = parameters.new_zeros(n, num_steps, data.size)
    for t in range(num_steps):
        drawn = data.draw(parameters, generator)
        x[:, t] = (
            drawn if known is None else torch.where(kept[t].to(x.device), known[:, min(t, known.shape[1] - 1)].to(x), drawn)
        )
        if t + 1 < num_steps and cached:
            parameters, state = model.step(x[:, t], state)
        elif t + 1 < num_steps:
            parameters = model.readout(model.features(x[:, : t + 1])[:, -1])
    return data.recorded(x)


def _given(data: SequenceData, n: int, num_steps: int, given: Tensor | None, num_given: int) -> Tensor | None:
    """The values to keep, as a sequence; None where there are none."""
    if not 0 <= num_given <= num_steps * data.size:
        raise ValueError(f"num_given is {num_given}; expected 0 to {num_steps * data.size}, the values of a sequence")
    if num_given == 0:
        return None
    if given is None:
        raise ValueError(f"num_given is {num_given} without given; pass given [{n}, …], the data of which that many are kept")
    known = data.checked(given)
    if len(known) != n or known[0].numel() < num_given:
        raise ValueError(f"given is of shape {list(given.shape)}; expected {n} of them with {num_given} values or more each")
    return known


def restarted(state: State, fresh: State, first: Tensor | None) -> State:
    """`state` with the rows of `fresh` where an episode starts, first [n]; both have the same shapes."""
    if first is None:
        return state
    return tuple(torch.where(first.bool().view(-1, *[1] * (s.ndim - 1)), f, s) for s, f in zip(state, fresh, strict=True))
