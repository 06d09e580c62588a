"""What is known of a MiniGrid frame beyond its pixels: a class for each pixel, a caption, and the true state.

A pixel's class is the number of the object type (MiniGrid's own numbers, `CLASSES`) in whose cell its centre lies. A caption
says where one of two objects lies, seen from the other: "a red key left of a blue door"; walls, floor, lava and the agent
are not spoken of. It is drawn among all ordered pairs. The state is (column, row, direction 0…3, type of what is carried or 0).
"""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np

COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
THINGS = ("key", "ball", "box", "door", "goal")
VOCABULARY = ("", "a", "an", "empty", "room", "left", "right", "of", "above", "below", *COLOURS, *THINGS)  # 0: padding
TOKENS = 8  # in a caption, at most
CLASSES = ("unseen", "empty", "wall", "floor", "door", "key", "ball", "box", "goal", "lava", "agent")
STATE = ("column", "row", "direction", "carrying")


def is_scene(env: gym.Env) -> bool:
    """Whether it is one of MiniGrid's."""
    module = sys.modules.get("minigrid.minigrid_env")  # there, if the environment has been made
    return module is not None and isinstance(env.unwrapped, module.MiniGridEnv)


def state(env: Any) -> np.ndarray:
    """float32 [4], see `STATE`."""
    world = env.unwrapped
    carried = CLASSES.index(world.carrying.type) if world.carrying else 0
    return np.array([*world.agent_pos, world.agent_dir, carried], np.float32)


def labels(env: Any, height: int, width: int) -> np.ndarray:
    """The class of each pixel, uint8 [height, width], of a frame that shows the whole grid."""
    world = env.unwrapped
    types = world.grid.encode()[:, :, 0].T.astype(np.uint8)  # [rows, columns]
    column, row = world.agent_pos
    types[row, column] = CLASSES.index("agent")
    rows = ((np.arange(height) + 0.5) * types.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * types.shape[1] / width).astype(int)
    return types[np.ix_(rows, columns)]


def objects(env: Any) -> list[tuple[str, str, int, int]]:
    """(colour, type, column, row) of what may be spoken of, in reading order."""
    grid = env.unwrapped.grid
    cells = [(row, column) for row in range(grid.height) for column in range(grid.width)]
    found = [(grid.get(column, row), column, row) for row, column in cells]
    return [(thing.color, thing.type, column, row) for thing, column, row in found if thing and thing.type in THINGS]


def caption(things: list[tuple[str, str, int, int]], rng: np.random.Generator) -> str:
    """What `objects` found, in words.

    >>> caption([("red", "key", 1, 2), ("blue", "door", 4, 3)], np.random.default_rng(0))
    'a red key left of a blue door'
    """
    if not things:
        return "an empty room"
    if len(things) == 1:
        return f"a {things[0][0]} {things[0][1]}"
    one, other = (things[place] for place in rng.choice(len(things), 2, replace=False))
    right, down = one[2] - other[2], one[3] - other[3]
    if abs(right) >= abs(down):
        where = "right of" if right > 0 else "left of"
    else:
        where = "below" if down > 0 else "above"
    return f"a {one[0]} {one[1]} {where} a {other[0]} {other[1]}"


def tokens(text: str) -> np.ndarray:
    """Numbers of the words in `VOCABULARY`, uint8 [8], padded by 0."""
    numbers = [VOCABULARY.index(word) for word in text.split()]
    return np.array(numbers + [0] * (TOKENS - len(numbers)), np.uint8)
