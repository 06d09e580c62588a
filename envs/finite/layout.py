"""A grid of cells, one character each, and its pictures: pure functions of the layout, the state and the last move.

Cell (i, j) of a layout with C columns is state i·C + j. `.` is a plain cell, `#` a wall, blanks are no cells at all, and any
other character is drawn as a coloured tile with its letter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PICTURE_SIZE = 512  # pixels of the longer side, about
TILE_STEP = 16  # tiles are multiples of it where they can be: video codecs want sides divisible by 16

DIRECTIONS = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}  # (row, column); clockwise

INK, LINE, AGENT = (52, 58, 70), (221, 219, 212), (232, 115, 42)
SPECIAL = (250, 224, 150)  # letters and digits without a colour of their own
COLOURS = {
    " ": (255, 255, 255),
    ".": (249, 248, 244),
    "#": (74, 82, 97),
    "S": (206, 224, 242),
    "G": (112, 186, 124),
    "H": (38, 44, 56),
    "C": (196, 92, 82),
}


@dataclass(frozen=True)
class Layout:
    """Rows of equal length; hashable, so that its backdrop is drawn once."""

    rows: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self.rows), len(self.rows[0])

    @classmethod
    def tiles(cls, num_states: int) -> Layout:
        """A near-square sheet of plain cells, for states that have no places."""
        columns = math.ceil(math.sqrt(num_states))
        cells = ("." * num_states).ljust(columns * math.ceil(num_states / columns))
        return cls(tuple(cells[k : k + columns] for k in range(0, len(cells), columns)))


def moves(shape: tuple[int, int]) -> np.ndarray:
    """The cell to which each of `DIRECTIONS` leads from each cell, int64 [S, 4]; the grid's edge holds one back."""
    rows, columns = shape
    i, j = np.divmod(np.arange(rows * columns), columns)
    return np.stack(
        [np.clip(i + di, 0, rows - 1) * columns + np.clip(j + dj, 0, columns - 1) for di, dj in DIRECTIONS.values()], axis=1
    )


def to_text(layout: Layout, state: int) -> str:
    """The rows as text, `@` where the agent is."""
    i, j = divmod(state, layout.shape[1])
    rows = list(layout.rows)
    rows[i] = rows[i][:j] + "@" + rows[i][j + 1 :]
    return "\n".join(rows)


def to_picture(layout: Layout, state: int, direction: str | None) -> np.ndarray:
    """uint8 [H, W, 3]: the agent is a disc, with a notch on the side of its last move (a key of `DIRECTIONS`)."""
    size = tile_size(layout)
    picture = backdrop(layout).copy()
    i, j = divmod(state, layout.shape[1])
    tile = picture[i * size : (i + 1) * size, j * size : (j + 1) * size]
    _paint_disc(tile, (0.0, 0.0), 0.34, AGENT)
    if direction is not None:
        di, dj = DIRECTIONS[direction]
        _paint_disc(tile, (0.2 * di, 0.2 * dj), 0.09, (255, 255, 255))
    return picture


def tile_size(layout: Layout) -> int:
    """Side of a cell in pixels."""
    size = PICTURE_SIZE // max(layout.shape)
    return min(size // TILE_STEP * TILE_STEP, 64) if size >= TILE_STEP else max(size, 4)


@lru_cache(maxsize=32)
def backdrop(layout: Layout) -> np.ndarray:
    """The cells without the agent, uint8 [H, W, 3], read-only."""
    size = tile_size(layout)
    colours = np.array([[COLOURS.get(c, SPECIAL) for c in row] for row in layout.rows], np.uint8)
    pixels = colours.repeat(size, axis=0).repeat(size, axis=1)
    cell = np.array([[c not in "# " for c in row] for row in layout.rows]).repeat(size, axis=0).repeat(size, axis=1)
    edge = np.arange(max(pixels.shape)) % size == 0
    pixels[cell & (edge[: cell.shape[0], None] | edge[None, : cell.shape[1]])] = LINE
    picture = Image.fromarray(pixels)
    _write_letters(picture, layout, size)
    finished = np.asarray(picture)
    finished.flags.writeable = False
    return finished


def _write_letters(picture: Image.Image, layout: Layout, size: int) -> None:
    if size < TILE_STEP:
        return
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=0.55 * size)
    for i, row in enumerate(layout.rows):
        for j, letter in enumerate(row):
            if letter not in ".# ":
                ink = (255, 255, 255) if sum(COLOURS.get(letter, SPECIAL)) < 400 else INK
                pen.text(((j + 0.5) * size, (i + 0.5) * size), letter, fill=ink, font=font, anchor="mm")


def _paint_disc(tile: np.ndarray, centre: tuple[float, float], radius: float, colour: tuple[int, int, int]) -> None:
    """Blend a disc into `tile` [n, n, 3] in place; lengths in tiles from its middle, edges smooth over one pixel."""
    size = tile.shape[0]
    axis = np.arange(size) + 0.5 - size / 2
    distance = np.hypot(axis[:, None] - centre[0] * size, axis[None, :] - centre[1] * size)
    cover = np.clip(radius * size + 0.5 - distance, 0.0, 1.0)[:, :, None]
    tile[:] = (cover * np.array(colour) + (1.0 - cover) * tile).round()
