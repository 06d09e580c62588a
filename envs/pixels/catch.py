"""Catch: a ball falls, a paddle at the bottom must be under it (Mnih et al. 2014, arXiv:1406.6247; bsuite's `catch`).

Deviation: positions are real numbers, so that a frame's anti-aliased edges tell them to a fraction of a pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from envs.finite.checks import check_count
from envs.pixels.checks import check_size
from envs.pixels.drawing import bar, centres, disc, to_frames
from envs.pixels.single import SingleEnv
from envs.pixels.true_state import observed
from mpagents.torch_env import ArraySpec, State, TorchVectorEnv

BALL_RADIUS, PADDLE_HALF, PADDLE_THICKNESS = 0.06, 0.1, 0.05  # in frame widths, as all lengths here
TOP, FLOOR = BALL_RADIUS, 0.9  # where the ball begins and is caught: its centre
RENDER_SIZE = 256


class Catch:
    """State: [n, 3], the ball's x and y and the paddle's x, in frame widths from the upper left. Actions: left, stay, right.

    The ball falls straight, from a random x to the paddle's height in `fall_steps` steps; the paddle starts in the middle and
    moves 1/fall_steps of the width a step, so it can always be there. The last step pays 1 if the ball's centre is over the
    paddle and −1 if not, and ends the episode; every other pays 0. The optimal return is 1, always. Staying wins 23 %.
    """

    action = ArraySpec(num=3)
    noise_shape: tuple[int, ...] = (1,)

    def __init__(self, size: int = 32, fall_steps: int = 16, max_episode_steps: int | None = None) -> None:
        """`size`: pixels, at least 16. `fall_steps`: at least 2. Raises ValueError otherwise."""
        check_size(size)
        check_count("fall_steps", fall_steps, 2)
        self.size, self.fall_steps, self.max_episode_steps = size, fall_steps, max_episode_steps
        self.observation = ArraySpec(frame=(size, size, 1))

    def reset(self, noise: Tensor) -> State:
        ball = BALL_RADIUS + (1 - 2 * BALL_RADIUS) * noise  # [n, 1]
        return (torch.cat([ball, torch.full_like(ball, TOP), torch.full_like(ball, 0.5)], dim=-1),)

    def step(self, state: State, action: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        x, y, paddle = state[0].unbind(-1)
        paddle = (paddle + (action - 1) / self.fall_steps).clamp(PADDLE_HALF, 1 - PADDLE_HALF)
        fall = (FLOOR - TOP) / self.fall_steps
        y = y + fall
        ended = y > FLOOR - fall / 2
        caught = (x - paddle).abs() <= PADDLE_HALF
        reward = torch.where(ended, 2 * caught.to(x.dtype) - 1, 0.0)
        return (torch.stack([x, y, paddle], dim=-1),), reward, ended

    def observe(self, state: State) -> Tensor:
        """Grey frames, uint8 [n, size, size, 1]."""
        return draw(state[0], self.size)

    def render(self, state: State) -> Tensor:
        """uint8 [n, 256, 256, 3]."""
        return draw(state[0], RENDER_SIZE).expand(-1, -1, -1, 3)

    def truth(self, state: State) -> Tensor:
        """(ball x, ball y, paddle x) [n, 3]."""
        return state[0]


def draw(positions: Tensor, size: int) -> Tensor:
    """uint8 [n, size, size, 1]: a white ball, a grey paddle."""
    x, y, paddle = (positions * size).unbind(-1)
    at = centres(size, positions)
    shades = disc(x, y, BALL_RADIUS * size, size)
    half = PADDLE_THICKNESS * size / 2
    first = int(FLOOR * size)  # the ball falls behind the paddle: only rows of the paddle are looked at
    down = bar(at[first:], torch.full_like(paddle, FLOOR * size + half)[:, None], half)
    over = down[:, :, None] * bar(at, paddle[:, None], PADDLE_HALF * size)[:, None, :]
    shades[:, first:].lerp_(torch.full_like(over, 0.6), over)
    return to_frames(shades.mul_(255)[:, None])


def single(size: int = 32, fall_steps: int = 16, observes: str = "frame", render_mode: str | None = None) -> SingleEnv:
    """The entry point of single environments."""
    return SingleEnv(observed(Catch(size, fall_steps), observes), render_mode)


def vector(
    num_envs: int = 1,
    max_episode_steps: int | None = None,
    device: str = "cpu",
    size: int = 32,
    fall_steps: int = 16,
    observes: str = "frame",
) -> TorchVectorEnv:
    """The entry point of vector environments."""
    return TorchVectorEnv(observed(Catch(size, fall_steps, max_episode_steps), observes), num_envs, device)
