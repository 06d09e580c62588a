"""The pictures of a gridworld's cells, and frames laid out of them.

Codes: floor, wall, goal, agent, then for door k its key, the locked door and the open door: `KEY + 3 k`, and so on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from envs.pixels.drawing import Colour, bar, centres, disc, in_channels

FLOOR, WALL, GOAL, AGENT, KEY, LOCKED, OPEN = range(7)
WALL_COLOUR, GOAL_COLOUR, AGENT_COLOUR = (110.0, 110.0, 110.0), (40.0, 200.0, 60.0), (255.0, 255.0, 255.0)
DOOR_COLOURS = ((255.0, 210.0, 0.0), (70.0, 110.0, 255.0), (255.0, 60.0, 200.0))


def tile_table(num_doors: int, pixels: int, channels: int) -> Tensor:
    """uint8 [4 + 3·num_doors, pixels, pixels·channels], a tile for each code."""
    doors = [DOOR_COLOURS[k % len(DOOR_COLOURS)] for k in range(num_doors)]
    whole, dot, frame = rectangle(pixels, 0.5, 0.5), spot(pixels, 0.3), 1 - rectangle(pixels, 0.5, 0.25)
    shapes: list[tuple[Tensor, Colour]] = [
        (torch.zeros_like(whole), WALL_COLOUR), (whole, WALL_COLOUR), (rectangle(pixels, 0.4, 0.4), GOAL_COLOUR),
        (spot(pixels, 0.45), AGENT_COLOUR),
    ]  # fmt: skip
    for colour in doors:
        shapes += [(dot, colour), (whole - 0.8 * spot(pixels, 0.2), colour), (frame, colour)]
    tiles = [shape[:, :, None] * torch.tensor(in_channels(colour, channels)) for shape, colour in shapes]
    return (torch.stack(tiles) + 0.5).to(torch.uint8).flatten(2)


def rectangle(pixels: int, half_width: float, half_height: float) -> Tensor:
    """Coverage [pixels, pixels] of a rectangle in the middle of a tile, in tile widths."""
    at, middle = centres(pixels, torch.zeros(1)), torch.tensor(pixels / 2)
    return bar(at, middle, half_height * pixels)[:, None] * bar(at, middle, half_width * pixels)


def spot(pixels: int, radius: float) -> Tensor:
    """Coverage [pixels, pixels] of a disc in the middle of a tile, `radius` in tile widths."""
    middle = torch.full((1,), pixels / 2)
    return disc(middle, middle, radius * pixels, pixels)[0]


def lay(codes: Tensor, table: Tensor) -> Tensor:
    """Codes [n, rows, columns] → uint8 [n, rows·pixels, columns·pixels, C], by one look-up a row of a tile."""
    n, rows, columns = codes.shape
    num_tiles, pixels, width = table.shape
    within = torch.arange(pixels, device=codes.device)[:, None]
    lines = (codes * pixels)[:, :, None, :] + within  # [n, rows, pixels, columns]
    laid = table.view(num_tiles * pixels, width).index_select(0, lines.flatten())
    return laid.view(n, rows * pixels, columns * pixels, width // pixels)
