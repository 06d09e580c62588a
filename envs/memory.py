"""Memory: a cue seen only at the start of a corridor says which way to turn at its end.

The T-maze of Bakker 2002 ("Reinforcement learning with long short-term memory", NIPS 14), without the walls to bump into: what
it asks is memory alone. Whoever acts on what is seen now earns 0 on average, whatever they do; whoever remembers earns 1.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
from gymnasium.error import ResetNeeded

LEFT, RIGHT = 0, 1
CUE_LEFT, CUE_RIGHT, CORRIDOR, JUNCTION = range(4)  # observations
GLYPHS = ("L", "R", ".", "?")


class Memory(gymnasium.Env):
    """The cue is seen in cell 0, then `length` − 1 cells of corridor, then the junction; an episode takes length + 1 steps.

    Every action moves on; the one at the junction ends the episode, with reward 1 if it is the cue's and −1 otherwise.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012 (Gymnasium's annotation)
    action_names: ClassVar = ("left", "right")

    def __init__(self, *, length: int = 6, render_mode: str | None = None) -> None:
        """`length`: steps from the cue to the junction, at least 1. Raises ValueError otherwise."""
        if not isinstance(length, int) or length < 1:
            raise ValueError(f"length is {length!r}; expected a whole number of at least 1")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode is {render_mode!r}; expected one of {self.metadata['render_modes']} or None")
        self.length, self.render_mode = length, render_mode
        self.observation_space = gymnasium.spaces.Discrete(4)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.cue = LEFT
        self.cell: int | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Draw the cue; `options` are not used."""
        super().reset(seed=seed)
        self.cue, self.cell = int(self.np_random.integers(2)), 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        if self.cell is None:
            raise ResetNeeded("step was called before reset: call env.reset() first")
        if action not in (LEFT, RIGHT):
            raise ValueError(f"action is {action}; expected 0 (left) or 1 (right)")
        if self.cell == self.length:
            return JUNCTION, 1.0 if action == self.cue else -1.0, True, False, {}
        self.cell += 1
        return self._observation(), 0.0, False, False, {}

    def _observation(self) -> int:
        if self.cell == 0:
            return CUE_LEFT if self.cue == LEFT else CUE_RIGHT
        return JUNCTION if self.cell == self.length else CORRIDOR

    def render(self) -> str | None:
        """The corridor as text; `@` is the agent."""
        if self.render_mode is None:
            gymnasium.logger.warn("render_mode is None: build the environment with 'ansi'")
            return None
        cells = [GLYPHS[self.cue], *"." * (self.length - 1), "?"]
        if self.cell is not None:
            cells[self.cell] = "@"
        return "".join(cells) + "\n"
