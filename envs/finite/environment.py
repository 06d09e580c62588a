"""`FiniteEnv`: a Gymnasium environment that is drawn from a `FiniteMDP`, so planners know exactly what agents meet."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from envs.finite.layout import DIRECTIONS, Layout, to_picture, to_text
from mpagents.tabular.mdp import FiniteMDP

Table = dict[int, dict[int, list[tuple[float, int, float, bool]]]]


class FiniteEnv(gymnasium.Env):
    """States and actions are numbers; a step draws one entry of the row (s, a) of `mdp`.

    `mdp.discount` is the problem's own γ; nothing here depends on it. The attributes `s` (the state, None before the first
    reset) and `last_action` (None at an episode's start) and `np_random` are all that changes. `grid_shape` is (rows, columns)
    where states are cells in row-major order, else None. Each reset and each step consume one uniform number.

    >>> mdp = FiniteMDP.from_arrays([[[0.0, 1.0]], [[0.0, 1.0]]], [[1.0], [2.0]], discount=0.5, initial=[1.0, 0.0])
    >>> env = FiniteEnv(mdp, action_names=["on"])
    >>> env.reset(seed=0), env.step(0), env.P[0]
    ((0, {}), (1, 1.0, False, False, {}), {0: [(1.0, 1, 1.0, False)]})
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012 (Gymnasium's annotation)

    def __init__(
        self,
        mdp: FiniteMDP,
        *,
        grid: Sequence[str] | None = None,
        action_names: Sequence[str] | None = None,
        render_mode: str | None = None,
    ):
        """`grid`: one character per state, row by row (see `layout`); `action_names`: one per action, shown when rendering.

        Raises ValueError where `render_mode`, `grid` or `action_names` don't fit.
        """
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode is {render_mode!r}; expected one of {self.metadata['render_modes']} or None")
        self.mdp = mdp
        self.layout = Layout(tuple(grid)) if grid is not None else Layout.tiles(mdp.num_states)
        self.grid_shape = self.layout.shape if grid is not None else None
        if grid is not None and sum(len(row) for row in grid) != mdp.num_states:
            raise ValueError(f"grid has shape {self.grid_shape}; expected one cell for each of {mdp.num_states} states")
        self.action_names = tuple(action_names) if action_names is not None else tuple(map(str, range(mdp.num_actions)))
        if len(self.action_names) != mdp.num_actions:
            raise ValueError(f"{len(self.action_names)} action names for {mdp.num_actions} actions; expected one each")
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Discrete(mdp.num_states)
        self.action_space = gymnasium.spaces.Discrete(mdp.num_actions)
        self.initial_state_distrib = mdp.initial
        self._initial_cumulative = np.cumsum(mdp.initial) / mdp.initial.sum()
        self.s: int | None = None
        self.last_action: int | None = None

    @cached_property
    def P(self) -> Table:
        """Gymnasium's toy-text table, `P[s][a] = [(probability, s′, reward, terminated), …]`; built on first use."""
        mdp = self.mdp
        columns = (mdp.probability, mdp.next_state, mdp.reward, mdp.terminated)
        entries = list(zip(*(column.tolist() for column in columns)))
        rows = [entries[first:end] for first, end in zip(mdp.row_start[:-1], mdp.row_start[1:])]
        return {s: {a: rows[s * mdp.num_actions + a] for a in range(mdp.num_actions)} for s in range(mdp.num_states)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Draw the first state; `options` are not used."""
        super().reset(seed=seed)
        last = self.mdp.num_states - 1
        self.s = min(bisect_right(self._initial_cumulative, self.np_random.random()), last)
        self.last_action = None
        return self.s, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Draw s′, the reward and `terminated`. In a terminal state nothing more happens: reward 0, terminated again."""
        mdp, action = self.mdp, int(action)
        if self.s is None:
            raise ResetNeeded("step was called before reset: call env.reset() first")
        if not 0 <= action < mdp.num_actions:
            raise ValueError(f"action is {action}; expected 0 … {mdp.num_actions - 1}")
        row = self.s * mdp.num_actions + action
        start, end = mdp.row_start[row], mdp.row_start[row + 1]
        k = bisect_right(mdp.cumulative, self.np_random.random(), start, end)
        self.s, self.last_action = int(mdp.next_state[k]), action
        return self.s, float(mdp.reward[k]), bool(mdp.terminated[k]), False, {}

    def render(self) -> Any:
        """Text for `ansi`, uint8 [H, W, 3] for `rgb_array`, None (and a warning) without a render mode."""
        if self.render_mode is None:
            gymnasium.logger.warn(f"render_mode is None: build the environment with one of {self.metadata['render_modes']}")
            return None
        if self.s is None:
            raise ResetNeeded("render was called before reset: call env.reset() first")
        name = None if self.last_action is None else self.action_names[self.last_action]
        if self.render_mode == "ansi":
            after = "" if name is None else f", after action {name}"
            return f"{to_text(self.layout, self.s)}\nstate {self.s}{after}\n"
        return to_picture(self.layout, self.s, name if name in DIRECTIONS else None)
