"""A finite MDP, such as one that was counted (`counting.counted_model`), as a batched torch environment.

    s′ ~ P(· | s, a)^(1/T), normalised,   r = r(s, a, s′)

A row (s, a) is a run of entries with cumulated probabilities; one uniform number picks an entry by bisection over all rows at
once, in the keys (row + cumulated probability).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mpagents.tabular.mdp import FiniteMDP
from mpagents.torch_env import ArraySpec, State


class FiniteDream:
    """A `TorchEnv`: states and actions are numbers. Starts are drawn from `mdp.initial`, or from `starts` [S], weights.

    At `temperature` 1 it is the MDP, at 0 the likeliest of each pair's outcomes follows (one of several, where they tie).
    """

    noise_shape: tuple[int, ...] = (1,)

    def __init__(
        self, mdp: FiniteMDP, *, horizon: int | None, starts: np.ndarray | None = None, temperature: float = 1.0
    ) -> None:
        """Raises ValueError for a negative temperature."""
        if not temperature >= 0:
            raise ValueError(f"temperature is {temperature}; expected 0 or more")
        self.max_episode_steps = horizon
        self.observation, self.action = ArraySpec(num=mdp.num_states), ArraySpec(num=mdp.num_actions)
        weight = mdp.initial if starts is None else np.asarray(starts, np.float64)
        self._starts = _last_is_one(torch.from_numpy(np.cumsum(weight / weight.sum())))
        rows = np.repeat(np.arange(len(mdp.row_start) - 1), np.diff(mdp.row_start))
        probability = mdp.probability if temperature == 1 else _tempered(mdp, rows, temperature)
        cumulated = np.concatenate([[0.0], np.cumsum(probability)])
        within = cumulated[1:] - cumulated[mdp.row_start[rows]]
        last = np.zeros(len(rows), np.bool_)
        last[mdp.row_start[1:] - 1] = True
        self._keys = torch.from_numpy(rows + np.where(last, 1.0, np.minimum(within, 1.0)))
        self._next_state = torch.from_numpy(mdp.next_state.astype(np.int64))
        self._reward = torch.from_numpy(mdp.reward.astype(np.float32))
        self._terminated = torch.from_numpy(np.array(mdp.terminated, np.bool_))

    def reset(self, noise: Tensor) -> State:
        return (torch.searchsorted(self._starts, noise[:, 0].double(), right=True),)

    def step(self, state: State, action: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        row = state[0] * self.action.num + action  # type: ignore[operator]
        entry = torch.searchsorted(self._keys, row + noise[:, 0].double(), right=True)
        return (self._next_state[entry],), self._reward[entry], self._terminated[entry]

    def observe(self, state: State) -> Tensor:
        return state[0]


def _tempered(mdp: FiniteMDP, rows: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities p^(1/T) [entries], normalised in each row."""
    of_best = mdp.probability / np.maximum.reduceat(mdp.probability, mdp.row_start[:-1])[rows]
    weight = of_best ** (1 / temperature) if temperature else (of_best == 1).astype(np.float64)
    return weight / np.add.reduceat(weight, mdp.row_start[:-1])[rows]


def _last_is_one(cumulated: Tensor) -> Tensor:
    """Without the rounding of the sum, so that no number in [0, 1) falls beyond."""
    cumulated[cumulated >= cumulated[-1]] = 1.0
    return cumulated
