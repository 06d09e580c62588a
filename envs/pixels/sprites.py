"""Sprites: a square that is steered to catch a drifting disc, among bars that drift likewise and mean nothing.

The bars are distractors: a code of the frame spends most of itself on them, a good policy needs none of it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from envs.finite.checks import check_count
from envs.pixels.checks import check_channels, check_size
from envs.pixels.drawing import Colour, bar, centres, disc, in_channels, rounded
from envs.pixels.single import SingleEnv
from envs.pixels.true_state import observed
from mpagents.torch_env import ArraySpec, State, TorchVectorEnv

AGENT_HALF, TARGET_RADIUS, TOUCH = 0.07, 0.0925, 0.1  # in frame widths, as all lengths here
AGENT_SPEED, DRIFT = 0.08, 0.02  # a step
MARGIN = 0.1  # how close to the frame's edge centres come
AGENT_COLOUR, TARGET_COLOUR = (235.0, 235.0, 235.0), (0.0, 220.0, 0.0)
BARS = ((0.13, 0.035), (0.035, 0.13), (0.06, 0.06), (0.1, 0.05))  # half width and half height of distractors, in turn
BAR_COLOURS = ((90.0, 60.0, 220.0), (220.0, 60.0, 60.0), (200.0, 140.0, 0.0), (160.0, 0.0, 160.0))
RENDER_SIZE = 256


class Sprites:
    """State: the agent's (x, y) [n, 2]; places and velocities [n, 1 + distractors, 2] of the target and of the distractors.

    Actions: stay, up, right, down, left, by 0.08 of the frame's width. The target and the distractors drift by 0.02 a step and
    bounce off the edges. A step that ends with the centres of agent and target closer than 0.1 pays 1 and ends the episode;
    every other pays 0; distractors do nothing. The agent is faster: the optimal return is 1, always
    (4000 episodes of steering at the target within 30 steps each); random actions earn 0.22.
    """

    action = ArraySpec(num=5)

    def __init__(self, size: int = 32, distractors: int = 3, channels: int = 3, max_episode_steps: int | None = 30) -> None:
        """`size`: pixels, at least 16. `distractors`: at least 0. Raises ValueError otherwise."""
        check_size(size)
        check_count("distractors", distractors, 0)
        check_channels(channels)
        self.size, self.distractors, self.max_episode_steps = size, distractors, max_episode_steps
        self.noise_shape: tuple[int, ...] = (2 + 3 * (1 + distractors),)
        self.observation = ArraySpec(frame=(size, size, channels))
        self.looks, self.render_looks = looks(distractors, channels), looks(distractors, 3)
        self.moves = AGENT_SPEED * torch.tensor([[0, 0], [0, -1], [1, 0], [0, 1], [-1, 0]])

    def reset(self, noise: Tensor) -> State:
        agent, drawn = noise[:, :2], noise[:, 2:].view(len(noise), -1, 3)  # x, y, direction
        beside = (agent[:, None, :1] + 0.25 + 0.5 * drawn[:, :1, :1]) % 1.0  # the target begins a quarter away at least
        places = torch.cat([torch.cat([beside, drawn[:, 1:, :1]], dim=1), drawn[:, :, 1:2]], dim=2)
        angle = 2 * math.pi * drawn[:, :, 2]
        velocity = DRIFT * torch.stack([torch.cos(angle), torch.sin(angle)], dim=2)
        return MARGIN + (1 - 2 * MARGIN) * agent, MARGIN + (1 - 2 * MARGIN) * places, velocity

    def step(self, state: State, action: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        agent, places, velocity = state
        agent = (agent + self.moves.to(agent)[action]).clamp(MARGIN, 1 - MARGIN)
        moved = places + velocity
        inside = moved.clamp(MARGIN, 1 - MARGIN)
        velocity = torch.where(inside == moved, velocity, -velocity)
        places = 2 * inside - moved
        touched = (places[:, 0] - agent).square().sum(dim=1) < TOUCH**2
        return (agent, places, velocity), touched.to(agent.dtype), touched

    def observe(self, state: State) -> Tensor:
        """uint8 [n, size, size, channels]."""
        return draw(state[0], state[1], self.looks, self.size)

    def render(self, state: State) -> Tensor:
        """uint8 [n, 256, 256, 3]."""
        return draw(state[0], state[1], self.render_looks, RENDER_SIZE)

    def truth(self, state: State) -> Tensor:
        """[n, 6 + 4·distractors]: the agent's x and y, then of the target and of each distractor x, y and the velocity in x
        and in y a step; frame widths from the upper left."""
        agent, places, velocity = state
        return torch.cat([agent, torch.cat([places, velocity], dim=2).flatten(1)], dim=1)


class Looks(NamedTuple):
    """How the agent and the distractors look [S, …], and the target."""

    half: Tensor  # [S, 2], half width and half height in frame widths
    colour: Tensor  # [S, C]
    target: Colour


def looks(distractors: int, channels: int) -> Looks:
    """The agent first; shapes and colours of distractors repeat after the fourth."""
    which = [k % len(BARS) for k in range(distractors)]
    halves = [(AGENT_HALF, AGENT_HALF), *(BARS[k] for k in which)]
    colours = [in_channels(colour, channels) for colour in (AGENT_COLOUR, *(BAR_COLOURS[k] for k in which))]
    return Looks(torch.tensor(halves), torch.tensor(colours), in_channels(TARGET_COLOUR, channels))


def draw(agent: Tensor, places: Tensor, looks: Looks, size: int) -> Tensor:
    """uint8 [n, size, size, C]; shades of sprites that overlap add up.

    A bar is an outer product of two coverages, so all bars in all channels are one batched matrix product.
    """
    half, colour = looks.half.to(agent) * size, looks.colour.to(agent)
    centre = torch.cat([agent[:, None], places[:, 1:]], dim=1) * size  # [n, S, 2]
    covered = bar(centres(size, agent), centre[:, :, :, None], half[:, :, None])  # [n, S, 2, size]
    across = (covered[:, :, 0, :, None] * colour[:, None, :]).flatten(2)  # [n, S, size·C]
    shades = (covered[:, :, 1].transpose(1, 2) @ across).view(-1, size, size, colour.shape[1])
    target = disc(places[:, 0, 0] * size, places[:, 0, 1] * size, TARGET_RADIUS * size, size)
    for channel, shade in enumerate(looks.target):
        if shade:
            shades[..., channel].add_(target, alpha=shade)
    return rounded(shades.clamp_(max=255.0))


def single(
    size: int = 32, distractors: int = 3, channels: int = 3, observes: str = "frame", render_mode: str | None = None
) -> SingleEnv:
    """The entry point of single environments."""
    return SingleEnv(observed(Sprites(size, distractors, channels), observes), render_mode)


def vector(
    num_envs: int = 1,
    max_episode_steps: int | None = 30,
    device: str = "cpu",
    size: int = 32,
    distractors: int = 3,
    channels: int = 3,
    observes: str = "frame",
) -> TorchVectorEnv:
    """The entry point of vector environments."""
    return TorchVectorEnv(observed(Sprites(size, distractors, channels, max_episode_steps), observes), num_envs, device)
