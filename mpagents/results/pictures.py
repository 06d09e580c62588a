"""A grid-shaped environment's values and greedy policy as a picture, drawn without a window or a plotting library."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mpagents.tabular.mdp import FiniteMDP

CELL = 64  # pixels
LOW, MIDDLE, HIGH = np.array([[178, 60, 60], [247, 247, 242], [44, 110, 170]], np.float64)  # colour-blind safe


def colours(values: np.ndarray) -> np.ndarray:
    """uint8 [S, 3]: white at 0, blue above and red below, saturating at the largest magnitude."""
    scale = max(float(np.abs(values).max()), 1e-12)
    share = (values / scale)[:, None]
    end = np.where(share >= 0, HIGH, LOW)
    return (MIDDLE + np.abs(share) * (end - MIDDLE)).astype(np.uint8)


def action_directions(mdp: FiniteMDP, shape: tuple[int, int]) -> np.ndarray:
    """(dx, dy) of each action, int [A, 2] in −1, 0, 1: where it leads most, over all moves to a neighbouring cell."""
    rows = np.repeat(np.arange(mdp.num_states * mdp.num_actions), np.diff(mdp.row_start))
    state, action = rows // mdp.num_actions, rows % mdp.num_actions
    dy, dx = (to - at for to, at in zip(np.divmod(mdp.next_state, shape[1]), np.divmod(state, shape[1])))
    near = (np.maximum(np.abs(dx), np.abs(dy)) == 1) & ~mdp.terminal[state]
    total = np.zeros((mdp.num_actions, 2))
    np.add.at(total, action[near], (mdp.probability[:, None] * np.stack([dx, dy], axis=1))[near])
    return np.sign(total * (np.abs(total) > 0.5 * np.abs(total).max(axis=1, keepdims=True))).astype(int)


def draw_grid(values: np.ndarray, policy: np.ndarray, shape: tuple[int, int], mdp: FiniteMDP) -> np.ndarray:
    """uint8 [rows·64, columns·64, 3]: each state's value as colour and number, an arrow for each action of the policy.

    `values` [S]; `policy` [S, A] probabilities; terminal states are grey.
    """
    directions, terminal = action_directions(mdp, shape), mdp.terminal
    rows, columns = shape
    fill = colours(values)
    fill[terminal] = 128
    pixels = fill.reshape(rows, columns, 3).repeat(CELL, axis=0).repeat(CELL, axis=1)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=13)
    for s in range(rows * columns):
        x, y = (s % columns) * CELL, (s // columns) * CELL
        draw.rectangle([x, y, x + CELL - 1, y + CELL - 1], outline=(90, 90, 90))
        if terminal[s]:
            continue
        dark = np.abs(fill[s].astype(int) - MIDDLE).sum() > 250
        ink = (255, 255, 255) if dark else (20, 20, 20)
        draw.text((x + CELL / 2, y + CELL - 11), f"{values[s]:.3g}", fill=ink, font=font, anchor="mm")
        for action in np.flatnonzero(policy[s] > 1e-9):
            if directions[action].any():
                dx, dy = directions[action].tolist()
                _arrow(draw, x + CELL / 2, y + CELL / 2 - 7, dx, dy, ink)
    return np.asarray(image)


def _arrow(draw: ImageDraw.ImageDraw, x: float, y: float, dx: int, dy: int, ink: tuple[int, int, int]) -> None:
    """A line from the centre with a head."""
    tip = (x + 18 * dx, y + 18 * dy)
    back = (x + 10 * dx, y + 10 * dy)
    draw.line([(x, y), back], fill=ink, width=2)
    draw.polygon([tip, (back[0] - 5 * dy, back[1] + 5 * dx), (back[0] + 5 * dy, back[1] - 5 * dx)], fill=ink)
