"""States of finite observation spaces as integers: `Discrete`, `MultiDiscrete` and `Tuple` of `Discrete` (Blackjack)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces


def radices(space: spaces.Space) -> tuple[tuple[int, int], ...] | None:
    """(number of values, first value) of each component, or None where the space isn't finite in this sense."""
    if isinstance(space, spaces.Discrete):
        return ((int(space.n), int(space.start)),)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return tuple((int(n), int(start)) for n, start in zip(space.nvec, space.start))
    if isinstance(space, spaces.Tuple) and all(isinstance(part, spaces.Discrete) for part in space.spaces):
        return tuple((int(part.n), int(part.start)) for part in space.spaces)  # type: ignore[attr-defined]
    return None


class StateIndex:
    """Numbers the values of a finite observation space, the last component fastest.

    >>> index = StateIndex(spaces.Tuple([spaces.Discrete(3), spaces.Discrete(2)]))
    >>> index.num_states, index((np.array([0, 2]), np.array([1, 0]))).tolist()
    (6, [1, 4])
    """

    def __init__(self, space: spaces.Space) -> None:
        components = radices(space)
        if components is None:
            raise ValueError(
                f"observation space is {space}; expected Discrete, MultiDiscrete or a Tuple of Discrete "
                "(a deep agent takes others, or wrap the environment so that it observes a state number)"
            )
        self.space = space
        self.sizes = [size for size, _ in components]
        self.starts = [start for _, start in components]
        self.num_states = math.prod(self.sizes)

    def __call__(self, observation: Any) -> np.ndarray:
        """State numbers, int64 [B], of a batch of observations as a vector environment gives them."""
        if isinstance(self.space, spaces.Discrete):
            return np.asarray(observation, np.int64) - self.starts[0]
        if isinstance(self.space, spaces.MultiDiscrete):
            columns = list(np.moveaxis(np.asarray(observation), -1, 0))
        else:
            columns = [np.asarray(column) for column in observation]
        number = np.zeros(columns[0].shape, np.int64)
        for column, size, start in zip(columns, self.sizes, self.starts):
            number = number * size + (column.astype(np.int64) - start)
        return number


def check_finite(space: spaces.Space, action_space: spaces.Space) -> None:
    """Raise ValueError unless states can be numbered and actions are Discrete."""
    StateIndex(space)
    if not isinstance(action_space, spaces.Discrete):
        raise ValueError(f"action space is {action_space}; expected Discrete")
