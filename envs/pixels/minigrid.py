"""MiniGrid's worlds as frames, seen whole from above or as the agent sees them, with the true state in `info`.

Chevalier-Boisvert et al. 2023, arXiv:2306.13831. The package minigrid (`pip install 'mpagents[minigrid]'`) draws and steps
them: single copies of Python objects, so they are slow beside the worlds of this folder.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from mpagents.scenes import is_scene
from mpagents.scenes import state as true_state

VIEWS = ("full", "partial")


class MiniGridFrames(gymnasium.Env):
    """A MiniGrid environment observed as uint8 [tile·rows, tile·columns, 3]; actions, rewards, ends and limit are its own.

    `view="full"` shows the whole grid, `"partial"` the 7 × 7 cells before the agent, who looks up and sees through no wall.
    `info["state"]` is float32 [4]: the agent's column, row, direction 0…3 and what it carries (0: nothing).
    """

    exact = False  # what lies in the cells are Python objects, which no checkpoint holds

    def __init__(self, scene: gymnasium.Env, view: str = "full", tile: int = 8) -> None:
        """`tile`: pixels of a cell, at least 3. Raises ValueError for other views, and for what isn't MiniGrid's."""
        if view not in VIEWS:
            raise ValueError(f"view is {view!r}; expected 'full' or 'partial'")
        if tile < 3:
            raise ValueError(f"tile is {tile}; expected at least 3 pixels a cell")
        if not is_scene(scene):
            name = scene.spec and scene.spec.id
            raise ValueError(f"level is {name!r}; expected one of MiniGrid's, such as MiniGrid-DoorKey-5x5-v0")
        self.scene, self.partial, self.tile = scene, view == "partial", tile
        self.metadata, self.render_mode, self.action_space = scene.metadata, scene.render_mode, scene.action_space
        world: Any = scene.unwrapped
        rows, columns = (world.agent_view_size,) * 2 if self.partial else (world.height, world.width)
        self.observation_space = gymnasium.spaces.Box(0, 255, (rows * tile, columns * tile, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        _, info = self.scene.reset(seed=seed, options=options)
        return self._frame(), {**info, "state": true_state(self.scene)}

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        _, reward, terminated, truncated, info = self.scene.step(action)
        return self._frame(), reward, terminated, truncated, {**info, "state": true_state(self.scene)}

    def render(self) -> Any:
        return self.scene.render()

    def close(self) -> None:
        self.scene.close()

    def _frame(self) -> np.ndarray:
        world: Any = self.scene.unwrapped
        return world.get_frame(highlight=False, tile_size=self.tile, agent_pov=self.partial)


def single(
    level: str = "MiniGrid-DoorKey-5x5-v0", view: str = "full", tile: int = 8, render_mode: str | None = None, **settings: Any
) -> MiniGridFrames:
    """`level` is an id of the package; settings are that level's own (max_steps, …)."""
    import minigrid  # noqa: F401 (registers the ids)

    return MiniGridFrames(gymnasium.make(level, render_mode=render_mode, **settings), view, tile)
