"""Gridworlds drawn as text.

Cells of a map:

    .  free           #  wall            S  start (several: each equally likely; none: any free cell)
    G  goal, ends     H  hole, ends      0–9  a free cell with a reward of its own
    A  any other capital letter: a portal; every action there leads to the cell of the same small letter, a

Actions are up, right, down, left. With probability `slip` the move goes to one of the two sides instead (Russell & Norvig,
chapter "Making Complex Decisions"; `slip=2/3` is FrozenLake's ice). A move into a wall or off the grid is a bump: the agent
stays where it is. A step pays

    step_reward + (bump_reward if it bumped) + rewards[the cell in which it ends],

a portal's reward is paid on leaving it. States are all cells row by row, walls too (never entered, of value 0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from envs.finite.checks import check_number, check_probability
from envs.finite.environment import FiniteEnv
from envs.finite.layout import DIRECTIONS, moves
from mpagents.tabular.mdp import FiniteMDP

FOUR_ROOMS = """
#############
#S....#.....#
#.....#.....#
#...........#
#.....#.....#
#.....#.....#
##.####.....#
#.....###.###
#.....#.....#
#.....#.....#
#...........#
#.....#....G#
#############
"""
SUTTON = """
.A.B.
.....
...b.
.....
.a...
"""
SMALL = """
G...
....
....
...G
"""
DEFAULT_REWARDS = {"G": 1.0, "H": -1.0}  # every other cell: 0


def gridworld(
    text_map: str | Sequence[str] = FOUR_ROOMS,
    *,
    slip: float = 0.0,
    step_reward: float = -0.01,
    bump_reward: float = 0.0,
    rewards: Mapping[str, float] | None = None,
    discount: float = 0.99,
    render_mode: str | None = None,
) -> FiniteEnv:
    """The gridworld of `text_map`; by default the four rooms of Sutton, Precup & Singh 1999, from corner to corner.

    The default's shortest way is 20 steps: its optimal return, undiscounted, is 1 − 20·0.01 = 0.8.

    text_map: lines of equal length, one string or a list. slip: probability of going to a side, in [0, 1]. rewards: by the
    cell's character; `G` pays 1 and `H` −1 unless said otherwise. discount: γ of `env.mdp`. Raises ValueError for maps and
    numbers that can't be.

    >>> env = gridworld("S.G", step_reward=-1, rewards={"G": 10})
    >>> env.reset(seed=0), env.step(1)[:3], env.step(1)[:3]
    ((0, {}), (1, -1.0, False), (2, 9.0, True))
    """
    rows = _rows(text_map)
    check_probability("slip", slip)
    check_number("step_reward", step_reward)
    check_number("bump_reward", bump_reward)
    cells = np.array([list(row) for row in rows])
    _check_cells(cells)
    mdp = _mdp(cells, slip, step_reward, bump_reward, _rewards(cells, rewards), discount)
    return FiniteEnv(mdp, grid=rows, action_names=tuple(DIRECTIONS), render_mode=render_mode)


def sutton_gridworld(*, render_mode: str | None = None) -> FiniteEnv:
    """Sutton & Barto 2018, Example 3.5: 5×5, γ = 0.9, never ends.

    From A every action leads to A′ (small a here) for 10, from B to B′ for 5; moves off the grid stay and cost 1, all else pays
    0. Starts anywhere. Values in the first row: optimal (Fig. 3.5) 22.0 24.4 22.0 19.4 17.5; of the random policy (Fig. 3.2)
    3.3 8.8 4.4 5.3 1.5.
    """
    return gridworld(
        SUTTON, step_reward=0.0, bump_reward=-1.0, rewards={"A": 10.0, "B": 5.0}, discount=0.9, render_mode=render_mode
    )


def small_gridworld(*, render_mode: str | None = None) -> FiniteEnv:
    """Sutton & Barto 2018, Example 4.1: 4×4, two terminal corners, −1 a step, γ = 1, starts in any other cell.

    Values of the random policy (Fig. 4.1): 0 −14 −20 −22 / −14 −18 −20 −20 / −20 −20 −18 −14 / −22 −20 −14 0; the optimal value
    is minus the number of steps to the nearer corner.
    """
    return gridworld(SMALL, step_reward=-1.0, rewards={"G": 0.0}, discount=1.0, render_mode=render_mode)


def _rows(text_map: str | Sequence[str]) -> tuple[str, ...]:
    rows = tuple(text_map.split() if isinstance(text_map, str) else text_map)
    if not rows or not rows[0] or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError(f"text_map has lines of lengths {[len(row) for row in rows]}; expected equal lengths of at least 1")
    return rows


def _check_cells(cells: np.ndarray) -> None:
    flat = cells.ravel()
    for cell in sorted(set(flat.tolist())):
        if not (cell in ".#" or (cell.isascii() and cell.isalnum())):
            raise ValueError(f"text_map has a cell {cell!r}; expected . # S G H, a digit, or a portal's letters (A and a)")
        if cell.isalpha() and cell not in "SGH":
            pair = [int((flat == letter).sum()) for letter in (cell.upper(), cell.lower())]
            if pair[0] < 1 or pair[1] != 1 or cell in "sgh":
                raise ValueError(
                    f"text_map has {pair[0]} × {cell.upper()!r} and {pair[1]} × {cell.lower()!r}; expected a portal (any "
                    f"capital but S, G, H) and just one cell of its small letter, to which it leads"
                )
    if np.isin(flat, ["#", "G", "H"]).all():
        raise ValueError("text_map has no cell to start from; expected an S or a free cell '.'")


def _rewards(cells: np.ndarray, rewards: Mapping[str, float] | None) -> np.ndarray:
    """The reward of each cell, float64 [S]."""
    known = sorted(set(cells.ravel().tolist()) - {"#"})
    pays = dict(DEFAULT_REWARDS)
    for cell, reward in (rewards or {}).items():
        if str(cell) not in known:
            raise ValueError(f"rewards names {cell!r}; expected cells of the map ({' '.join(known)}); walls: see bump_reward")
        check_number(f"rewards[{cell!r}]", reward)
        pays[str(cell)] = float(reward)
    return np.array([pays.get(cell, 0.0) for cell in cells.ravel()])


def _mdp(
    cells: np.ndarray, slip: float, step_reward: float, bump_reward: float, pays: np.ndarray, discount: float
) -> FiniteMDP:
    flat, here = cells.ravel(), np.arange(cells.size)[:, None]
    portal = np.char.isupper(flat) & ~np.isin(flat, ["S", "G", "H"])
    ends = np.isin(flat, ["#", "G", "H"])

    target = moves(cells.shape)  # [S, 4]
    bumped = (target == here) | (flat == "#")[target]
    target = np.where(bumped | ends[:, None], here, target)
    reward = step_reward + bump_reward * bumped + np.where(portal, 0.0, pays)[target]
    for s in np.flatnonzero(portal):
        target[s] = np.flatnonzero(flat == flat[s].lower())[0]
        reward[s] = step_reward + pays[s]

    towards = np.arange(4)[:, None] + [0, -1, 1]  # [A, 3]: straight on, to one side, to the other
    probability = np.broadcast_to([1.0 - slip, slip / 2, slip / 2], (cells.size, 4, 3))
    starts = flat == "S" if (flat == "S").any() else ~ends
    return FiniteMDP.from_successors(
        target[:, towards % 4],
        probability,
        reward[:, towards % 4],
        discount=discount,
        initial=starts / starts.sum(),
        terminal=np.flatnonzero(ends).tolist(),
    )
