"""CartPole in torch, with the dynamics of Gymnasium's CartPole-v1 (Barto, Sutton & Anderson 1983; Florian 2007).

    temp = (F + m_p l θ̇² sin θ)/(m_c + m_p),  θ̈ = (g sin θ − cos θ temp)/(l (4/3 − m_p cos²θ/(m_c + m_p)))
    ẍ = temp − m_p l θ̈ cos θ/(m_c + m_p),     explicit Euler with τ = 0.02 s

Deviation: states are float32 throughout; Gymnasium keeps float64 and observes float32. One step agrees to 1e-6.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mpagents.torch_env import ArraySpec, State, TorchVectorEnv

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
POSITION_LIMIT, ANGLE_LIMIT = 2.4, 12 * 2 * math.pi / 360
START = 0.05  # first states are uniform within ± this


class CartPole:
    """State: (x, ẋ, θ, θ̇) [n, 4]; action 0 pushes left, 1 right; 1 a step until the pole or the cart is out of bounds."""

    bounds = (2 * POSITION_LIMIT, math.inf, 2 * ANGLE_LIMIT, math.inf)
    observation = ArraySpec(low=tuple(-bound for bound in bounds), high=bounds)
    action = ArraySpec(num=2)
    noise_shape: tuple[int, ...] = (4,)

    def __init__(self, max_episode_steps: int | None = 500) -> None:
        self.max_episode_steps = max_episode_steps

    def reset(self, noise: Tensor) -> State:
        return ((2 * noise - 1) * START,)

    def step(self, state: State, action: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        x, speed, angle, spin = state[0].unbind(-1)
        cos, sin, total = torch.cos(angle), torch.sin(angle), CART + POLE
        push = (2 * action - 1) * FORCE
        temp = (push + POLE * HALF_LENGTH * spin**2 * sin) / total
        spin_rate = (GRAVITY * sin - cos * temp) / (HALF_LENGTH * (4 / 3 - POLE * cos**2 / total))
        acceleration = temp - POLE * HALF_LENGTH * spin_rate * cos / total
        after = torch.stack([x + TAU * speed, speed + TAU * acceleration, angle + TAU * spin, spin + TAU * spin_rate], dim=-1)
        terminated = (after[:, 0].abs() > POSITION_LIMIT) | (after[:, 2].abs() > ANGLE_LIMIT)
        return (after,), torch.ones_like(x), terminated

    def observe(self, state: State) -> Tensor:
        return state[0]


def single(render_mode: str | None = None) -> Any:
    """One environment, to look at and to compare with: Gymnasium's own."""
    from gymnasium.envs.classic_control import CartPoleEnv

    return CartPoleEnv(render_mode=render_mode)


def vector(num_envs: int = 1, max_episode_steps: int | None = 500, device: str = "cpu") -> TorchVectorEnv:
    """The entry point of vector environments."""
    return TorchVectorEnv(CartPole(max_episode_steps), num_envs, device)
