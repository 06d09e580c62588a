"""What every world model offers beside the contract of `generative.model`: a batched environment that was learned.

A world model is a GenerativeModel that `generative.fit` trains on sequences: x [B, T, …] as recorded, action [B, T, A] the one
that LED to x_t, reward and terminated [B, T] that came with x_t, first [B, T] where an episode begins (action and reward there
mean nothing), mask [B, T] where there is data. The methods below make it a world to imagine in; `mpagents.dream` makes
that world an environment. They are pure and batched: no state is kept, and all randomness comes in as `noise`, numbers uniform
in [0, 1), so that a step can be compiled as one graph and a dream repeated to the bit.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

State: TypeAlias = tuple[Tensor, ...]  # each [n, …]


@runtime_checkable
class WorldModel(Protocol):
    """The protocol; n is the number of imagined worlds, A the width of an action (one-hot where actions are numbers)."""

    num_noise: int  # uniform numbers that one imagined step takes; the draw of the termination isn't among them

    def begin(self, x: Tensor) -> State:
        """States after the first observations x [n, …] of an episode, as recorded."""

    def posterior(self, batch: dict[str, Tensor]) -> tuple[State, Tensor]:
        """States after every step of real sequences, each [B, T, …]; and which of them are real and not terminated [B, T]."""

    def filter(self, state: State, action: Tensor, x: Tensor, first: Tensor) -> State:
        """States after one more real step: action [n, A] led to x [n, …] as recorded; where first [n], x begins an episode."""

    def imagine(self, state: State, action: Tensor, noise: Tensor, temperature: float = 1.0) -> tuple[State, Tensor, Tensor]:
        """(next state, reward [n], probability of termination [n] judged on the predicted next state).

        action [n, A], noise [n, num_noise]; the temperature scales the standard deviation of what is drawn: 0 is the mean.
        """

    def observation(self, state: State) -> Tensor:
        """What would be seen, as recorded: [n, …]."""

    def features(self, state: State) -> Tensor:
        """What a policy in the latent space is given: [n, F] floats."""


def standard_normal(uniform: Tensor) -> Tensor:
    """Standard normal numbers, one for each uniform one of [0, 1).

    >>> standard_normal(torch.tensor([0.5, 0.8413447461]))
    tensor([0.0000, 1.0000])
    """
    smallest = torch.finfo(uniform.dtype).eps / 2  # half the step between float numbers below 1
    return torch.special.ndtri(uniform.clamp(smallest, 1.0 - smallest))
