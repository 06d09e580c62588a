"""CartPole seen: the dynamics of `envs.classic.cartpole`, observed as a few grey frames of the past in one.

A speed of 1 m/s is 0.13 pixel a step at 32×32, little between frames in turn; frames some steps apart show it larger: hence
`stride`. Deviation: the pole is drawn three times as long as it is (1 m would be 7 pixels), its angle is true.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from envs.classic.cartpole import POSITION_LIMIT, CartPole
from envs.finite.checks import check_count
from envs.pixels.checks import check_size
from envs.pixels.drawing import bar, centres, to_frames
from envs.pixels.single import SingleEnv
from envs.pixels.true_state import observed
from mpagents.torch_env import ArraySpec, State, TorchVectorEnv

CART_WIDTH, CART_HEIGHT, POLE_LENGTH, POLE_WIDTH, AXLE = (
    0.2,
    0.12,
    0.6,
    0.07,
    0.75,
)  # in frame widths; the axle's y from above: the top of the cart
CART_SHADE, POLE_SHADE = 130.0, 255.0
MOST_FRAMES = 4  # more than four channels are taken for frames [C, H, W]
RENDER_SIZE = 256


class PixelCartPole:
    """State: (x, ẋ, θ, θ̇) [n, 4], and the poses (x, θ) [n, (stack − 1)·stride + 1, 2] of now and the steps before, now first.

    Channel k of an observation is the frame of k·stride steps ago (of the first step where there was none). With `difference`
    each channel after the first is 127.5 + (now − that frame)/2 instead. Action 0 pushes left, 1 right; 1 a step until |x| is
    over 2.4 m or |θ| over 12°. Of 500 steps the optimal return is 500.
    """

    action = CartPole.action
    noise_shape: tuple[int, ...] = CartPole.noise_shape

    def __init__(
        self, size: int = 32, stack: int = 3, stride: int = 3, difference: bool = False, max_episode_steps: int | None = 500
    ) -> None:
        """`size`: pixels, at least 16. `stack`: frames, 1 … 4. `stride`: steps between them. Raises ValueError otherwise."""
        check_size(size)
        check_count("stack", stack, 1)
        check_count("stride", stride, 1)
        if stack > MOST_FRAMES:
            raise ValueError(f"stack is {stack}; expected at most {MOST_FRAMES}: use a larger stride to look further back")
        self.size, self.stack, self.stride, self.difference = size, stack, stride, difference
        self.max_episode_steps = max_episode_steps
        self.dynamics = CartPole(max_episode_steps)
        self.sheet, self.render_sheet = blank(size), blank(RENDER_SIZE)
        self.observation = ArraySpec(frame=(size, size, stack))

    def reset(self, noise: Tensor) -> State:
        (physical,) = self.dynamics.reset(noise)
        return physical, pose(physical)[:, None].repeat(1, (self.stack - 1) * self.stride + 1, 1)

    def step(self, state: State, action: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        (physical,), reward, terminated = self.dynamics.step(state[:1], action, noise)
        return (physical, torch.cat([pose(physical)[:, None], state[1][:, :-1]], dim=1)), reward, terminated

    def observe(self, state: State) -> Tensor:
        """Grey frames, uint8 [n, size, size, stack]."""
        drawn = draw(state[1][:, :: self.stride], self.sheet)
        if self.difference:
            drawn[:, 1:].neg_().add_(drawn[:, :1]).mul_(0.5).add_(127.5)
        return to_frames(drawn)

    def render(self, state: State) -> Tensor:
        """The frame of now, uint8 [n, 256, 256, 3]."""
        return to_frames(draw(state[1][:, :1], self.render_sheet)).expand(-1, -1, -1, 3)

    def truth(self, state: State) -> Tensor:
        """(x in m, ẋ in m/s, θ in rad, θ̇ in rad/s) [n, 4]."""
        return state[0]


def pose(physical: Tensor) -> Tensor:
    """What a frame shows of (x, ẋ, θ, θ̇): (x, θ)."""
    return physical[:, ::2]


class Sheet(NamedTuple):
    """What drawing needs to know of a size."""

    at: Tensor  # [size], the centres of pixels
    pole: slice  # rows that an upright pole may touch
    cart: slice  # rows that the cart touches
    height: Tensor  # [rows of the pole], above the axle in pixels
    foot: Tensor  # [rows of the pole], the share of each that is above the axle
    cart_shade: Tensor  # [rows of the cart], its coverage times its shade


def blank(size: int) -> Sheet:
    at, axle, half = centres(size, torch.zeros(1)), AXLE * size, CART_HEIGHT * size / 2
    pole, cart = slice(int(axle - POLE_LENGTH * size), int(axle) + 1), slice(int(axle), int(axle + 2 * half) + 1)
    height = axle - at[pole]
    high = bar(at[cart], torch.tensor(axle + half), half)
    return Sheet(at, pole, cart, height, (height + 0.5).clamp(0.0, 1.0), CART_SHADE * high)


def draw(poses: Tensor, sheet: Sheet) -> Tensor:
    """Shades 0 … 255 [n, K, size, size] of poses (x, θ) [n, K, 2]: a grey cart and a white pole that stands on it.

    The pole is at most some 12° from upright, so each row cuts it in a bar of width / cos θ around x + height · tan θ, and its
    ends are drawn parallel to the rows.
    """
    at, height, foot, cart_shade = (part.to(poses) for part in (sheet.at, sheet.height, sheet.foot, sheet.cart_shade))
    size, x, angle = len(at), poses[:, :, :1], poses[:, :, 1:]
    x = (0.5 + x / (2 * POSITION_LIMIT)) * size  # [n, K, 1]
    cos = torch.cos(angle)
    along = (POLE_LENGTH * size * cos + 0.5 - height).clamp_(0.0, 1.0).mul_(-POLE_SHADE * foot)  # [n, K, rows]
    middle = x + height * torch.tan(angle)
    drawn = torch.zeros(*poses.shape[:2], size, size, dtype=poses.dtype, device=poses.device)
    pole = (at - middle[:, :, :, None]).abs_().sub_((0.5 + POLE_WIDTH * size / 2 / cos)[:, :, :, None])
    drawn[:, :, sheet.pole] = pole.clamp_(-1.0, 0.0).mul_(along[:, :, :, None])
    drawn[:, :, sheet.cart].add_(cart_shade[:, None] * bar(at, x, CART_WIDTH * size / 2)[:, :, None, :])
    return drawn


def single(
    size: int = 32,
    stack: int = 3,
    stride: int = 3,
    difference: bool = False,
    observes: str = "frame",
    render_mode: str | None = None,
) -> SingleEnv:
    """The entry point of single environments."""
    return SingleEnv(observed(PixelCartPole(size, stack, stride, difference), observes), render_mode)


def vector(
    num_envs: int = 1,
    max_episode_steps: int | None = 500,
    device: str = "cpu",
    size: int = 32,
    stack: int = 3,
    stride: int = 3,
    difference: bool = False,
    observes: str = "frame",
) -> TorchVectorEnv:
    """The entry point of vector environments."""
    return TorchVectorEnv(
        observed(PixelCartPole(size, stack, stride, difference, max_episode_steps), observes), num_envs, device
    )
