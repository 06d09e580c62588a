"""Cliff walking (Sutton & Barto 2018, Example 6.6): the shortest way leads along an abyss."""

from __future__ import annotations

import numpy as np

from envs.finite.checks import check_count
from envs.finite.environment import FiniteEnv
from envs.finite.layout import DIRECTIONS, moves
from mpagents.tabular.mdp import FiniteMDP


def cliff(*, num_rows: int = 4, num_columns: int = 12, render_mode: str | None = None) -> FiniteEnv:
    """From the bottom left to the goal at the bottom right; between them lies the cliff.

    Actions: up, right, down, left, always as meant; off the grid stays. Each step pays −1; one into the cliff pays −100 and
    puts the agent back at the start, without ending the episode (as in the book). The goal ends it; γ = 1. The optimal return
    is −(num_columns + 1), −13 by default, right along the edge; ε-greedy SARSA learns a way further from it, down to −17.

    Gymnasium's CliffWalking-v1 is the same problem without a time limit. Sizes: at least 2 rows and 3 columns, else ValueError.
    """
    check_count("num_rows", num_rows, 2)
    check_count("num_columns", num_columns, 3)
    grid = ["." * num_columns] * (num_rows - 1) + ["S" + "C" * (num_columns - 2) + "G"]
    flat = np.array(list("".join(grid)))
    start, goal = int(np.argmax(flat == "S")), flat.size - 1
    target = moves((num_rows, num_columns))
    fell = flat[target] == "C"
    mdp = FiniteMDP.from_successors(
        np.where(fell, start, target)[:, :, None],
        np.ones((flat.size, 4, 1)),
        np.where(fell, -100.0, -1.0),
        discount=1.0,
        initial=flat == "S",
        terminal=[goal],
    )
    return FiniteEnv(mdp, grid=grid, action_names=tuple(DIRECTIONS), render_mode=render_mode)
