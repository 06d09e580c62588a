"""Linear-quadratic control in torch: a mass on springs in the plane, in a wind that blows at random.

    x′ = A x + B u + σ w,   w ~ N(0, I),   reward = −(xᵀ Q x + uᵀ R u),   x_0 uniform in [−1, 1]⁴

x is (position, velocity) in two dimensions: A and B integrate spring, friction and push over `TAU`. It never ends; the limit is
100 steps. The policy that minimises the expected discounted cost is linear, u = −K x, with K of the discrete Riccati equation
of (√γ A, √γ B, Q, R) (Bertsekas 2012, vol. I, §4.1). From these starts it hardly ever asks for more than the bounds of u allow.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mpagents.torch_env import ArraySpec, State, TorchVectorEnv

TAU, SPRING, FRICTION, PUSH = 0.2, 1.0, 0.3, 2.0  # seconds; 1/s²; 1/s; 1/s² for u = 1
WIND = 0.02  # standard deviation of each entry's noise at a step
PULL, KEPT = -TAU * SPRING, 1 - TAU * FRICTION
A = torch.tensor([[1, 0, TAU, 0], [0, 1, 0, TAU], [PULL, 0, KEPT, 0], [0, PULL, 0, KEPT]])
B = torch.tensor([[0.0, 0.0], [0.0, 0.0], [TAU * PUSH, 0.0], [0.0, TAU * PUSH]])
Q = torch.diag(torch.tensor([1.0, 1.0, 0.1, 0.1]))
R = torch.diag(torch.tensor([1.0, 1.0]))


class LinearQuadratic:
    """State: (x,) [n, 4], seen as it is; actions u [n, 2] within ±1."""

    observation = ArraySpec(low=(-math.inf,) * 4, high=(math.inf,) * 4)
    action = ArraySpec(low=(-1.0, -1.0), high=(1.0, 1.0))
    noise_shape: tuple[int, ...] = (4,)

    def __init__(self, max_episode_steps: int | None = 100) -> None:
        self.max_episode_steps = max_episode_steps

    def reset(self, noise: Tensor) -> State:
        return (2 * noise - 1,)

    def step(self, state: State, action: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        x, u = state[0], action.to(state[0].dtype)
        wind = WIND * torch.special.ndtri(noise.clamp(2**-24, 1 - 2**-24))
        after = x @ A.T.to(x) + u @ B.T.to(x) + wind
        cost = ((x @ Q.to(x)) * x).sum(-1) + ((u @ R.to(x)) * u).sum(-1)
        return (after,), -cost, torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def observe(self, state: State) -> Tensor:
        return state[0]

    def render(self, state: State) -> Tensor:
        """The mass as a dot in the plane, uint8 [n, 96, 96, 3]; the edges are at ±1.5."""
        at = torch.linspace(-1.5, 1.5, 96)
        x, y = state[0][:, 0].view(-1, 1, 1), state[0][:, 1].view(-1, 1, 1)
        apart = (at.view(1, 1, -1) - x) ** 2 + (at.view(1, -1, 1) + y) ** 2
        grey = 255 * (1 - torch.exp(-apart / 0.005))
        return grey.to(torch.uint8)[..., None].expand(-1, -1, -1, 3).contiguous()

    def truth(self, state: State) -> Tensor:
        return state[0]


def single(render_mode: str | None = None) -> Any:
    """One environment."""
    from envs.pixels.single import SingleEnv

    return SingleEnv(LinearQuadratic(None), render_mode)


def vector(num_envs: int = 1, max_episode_steps: int | None = 100, device: str = "cpu") -> TorchVectorEnv:
    """The entry point of vector environments."""
    return TorchVectorEnv(LinearQuadratic(max_episode_steps), num_envs, device)
