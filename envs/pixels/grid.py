"""A gridworld of rooms in a row with a locked door between any two, drawn anew each episode; after MiniGrid's DoorKey.

Chevalier-Boisvert et al. 2023, arXiv:2306.13831. Deviations: seen whole and from above, the agent moves in four directions
without turning, takes a key by stepping on it and opens a door by walking into it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from envs.finite.checks import check_count
from envs.pixels.checks import check_channels, check_size
from envs.pixels.single import SingleEnv
from envs.pixels.tiles import AGENT, FLOOR, GOAL, KEY, LOCKED, OPEN, WALL, lay, tile_table
from envs.pixels.true_state import observed
from mpagents.torch_env import ArraySpec, State, TorchVectorEnv

STEP_REWARD, GOAL_REWARD = -0.01, 1.0
RENDER_PIXELS = 256  # at least, a side


class PixelGrid:
    """`cells` × `cells` with `doors` walls from top to bottom, each with one door; cells are numbered row by row from 0.

    State: the agent's cell [n]; for each door k, from left to right, its cell and its key's [n, doors]; the goal's cell [n];
    whether key k is held and whether door k is open, bool [n, doors]. The agent starts in the left room, key k lies in room k,
    the goal in the last. Actions: up, right, down, left; a move into a wall, off the grid, or into a door whose key isn't held
    stays. Each step pays −0.01 and the one onto the goal 1 more, which ends the episode: with the shortest way of L steps the
    optimal return is 1 − 0.01 L.
    """

    action = ArraySpec(num=4)

    def __init__(
        self, size: int = 32, cells: int = 8, doors: int = 1, channels: int = 3, max_episode_steps: int | None = 100
    ) -> None:
        """`size`: pixels, a multiple of `cells`, at least 3 each; rooms are 2 cells wide at least. ValueError otherwise."""
        check_size(size)
        check_count("cells", cells, 2)
        check_count("doors", doors, 0)
        check_channels(channels)
        if size % cells or size < 3 * cells:
            raise ValueError(f"size is {size}; expected a multiple of cells = {cells}, at least {3 * cells}")
        if cells < 3 * doors + 2:
            raise ValueError(
                f"doors is {doors}; expected at most {(cells - 2) // 3} for {cells} × {cells} cells, or more cells"
            )
        self.size, self.cells, self.doors, self.max_episode_steps = size, cells, doors, max_episode_steps
        self.noise_shape: tuple[int, ...] = (2 + 3 * doors,)
        self.observation = ArraySpec(frame=(size, size, channels))
        self.table = tile_table(doors, size // cells, channels)
        self.render_table = tile_table(doors, -(-RENDER_PIXELS // cells), 3)
        self.moves = torch.tensor([[-1, 0], [0, 1], [1, 0], [0, -1]])

    def reset(self, noise: Tensor) -> State:
        width, doors = self.cells, self.doors
        spare = width - 3 * doors - 2  # columns to share out once each room has two and each wall one
        extra = (noise[:, 2 : 2 + doors] * (spare + 1)).long().sort(dim=1).values
        walls = 3 * torch.arange(doors, device=noise.device) + 2 + extra  # [n, doors]
        first = torch.cat([torch.zeros_like(walls[:, :1]) if doors else walls.new_zeros(len(noise), 1), walls + 1], dim=1)
        wide = torch.cat([walls, walls.new_full((len(noise), 1), width)], dim=1) - first  # of each room [n, doors + 1]
        keys = place(noise[:, 2 + doors : 2 + 2 * doors], first[:, :-1], wide[:, :-1], width)
        goal = place(noise[:, 0], first[:, -1], wide[:, -1], width)
        taken = keys[:, 0] if doors else goal  # of the left room, where the agent doesn't start
        agent = place(noise[:, 1], first[:, 0], wide[:, 0], width, taken)
        door_cells = (noise[:, 2 + 2 * doors :] * width).long() * width + walls
        return agent, door_cells, keys, goal, torch.zeros_like(keys, dtype=torch.bool), torch.zeros_like(keys, dtype=torch.bool)

    def step(self, state: State, action: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        agent, doors, keys, goal, held, opened = state
        move = self.moves.to(agent.device)[action]  # [n, 2]
        row = (agent // self.cells + move[:, 0]).clamp(0, self.cells - 1)
        column = (agent % self.cells + move[:, 1]).clamp(0, self.cells - 1)
        aim = row * self.cells + column
        at_door = aim[:, None] == doors
        wall = column[:, None] == doors % self.cells
        blocked = (wall & ~(at_door & (held | opened))).any(dim=1)
        agent = torch.where(blocked, agent, aim)
        arrived = agent == goal
        reward = STEP_REWARD + GOAL_REWARD * arrived.to(noise.dtype)
        here = agent[:, None]
        return (agent, doors, keys, goal, held | (here == keys), opened | (here == doors)), reward, arrived

    def observe(self, state: State) -> Tensor:
        """uint8 [n, size, size, channels]."""
        return lay(self.codes(state), self.table.to(state[0].device))

    def render(self, state: State) -> Tensor:
        """uint8 [n, H, H, 3] with H at least 256."""
        return lay(self.codes(state), self.render_table.to(state[0].device))

    def truth(self, state: State) -> Tensor:
        """[n, 4 + 6·doors]: the agent's row and column, the goal's, then for each door its row and column, its key's, whether
        the key is held, and whether the door is open (0 or 1)."""
        agent, doors, keys, goal, held, opened = state
        places = [part for cell in (doors, keys) for part in (cell // self.cells, cell % self.cells)]
        of_doors = torch.stack([*places, held, opened], dim=2).flatten(1)
        both = torch.stack([agent, goal], dim=1)
        of_both = torch.stack([both // self.cells, both % self.cells], dim=2).flatten(1)
        return torch.cat([of_both, of_doors], dim=1).float()

    def codes(self, state: State) -> Tensor:
        """What each cell shows, int64 [n, rows, columns]; see `envs.pixels.tiles`."""
        agent, doors, keys, goal, held, opened = state
        each = 3 * torch.arange(self.doors, device=agent.device)
        columns = torch.arange(self.cells, device=agent.device)
        walled = (columns == (doors % self.cells)[:, :, None]).any(dim=1)  # [n, columns]
        codes = (WALL * walled.long())[:, None, :].repeat(1, self.cells, 1).flatten(1)
        codes.scatter_(1, doors, each + torch.where(opened, OPEN, LOCKED))
        codes.scatter_(1, keys, torch.where(held, FLOOR, each + KEY))
        codes.scatter_(1, goal[:, None], GOAL)
        codes.scatter_(1, agent[:, None], AGENT)
        return codes.view(-1, self.cells, self.cells)


def place(noise: Tensor, first: Tensor, wide: Tensor, cells: int, taken: Tensor | None = None) -> Tensor:
    """A uniform cell of rooms that begin at column `first` and are `wide` columns wide; not `taken`, a cell of the room."""
    if taken is None:
        index = (noise * (wide * cells)).long()
    else:
        inside = (taken // cells) * wide + taken % cells - first  # the taken cell's index in the room
        index = (noise * (wide * cells - 1)).long()
        index = index + (index >= inside)
    return index // wide * cells + first + index % wide


def single(
    size: int = 32, cells: int = 8, doors: int = 1, channels: int = 3, observes: str = "frame", render_mode: str | None = None
) -> SingleEnv:
    """The entry point of single environments."""
    return SingleEnv(observed(PixelGrid(size, cells, doors, channels), observes), render_mode)


def vector(
    num_envs: int = 1,
    max_episode_steps: int | None = 100,
    device: str = "cpu",
    size: int = 32,
    cells: int = 8,
    doors: int = 1,
    channels: int = 3,
    observes: str = "frame",
) -> TorchVectorEnv:
    """The entry point of vector environments."""
    return TorchVectorEnv(observed(PixelGrid(size, cells, doors, channels, max_episode_steps), observes), num_envs, device)
