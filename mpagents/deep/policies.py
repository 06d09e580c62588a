"""Policy heads: distributions over actions as pure functions of a network's output [..., out_features] and of noise.

A Gaussian policy draws in units where the action space's finite bounds are ±1. The log-probability is always that of the
action as drawn; the environment gets it scaled and clipped to its bounds, and learning never sees the clipped one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor


def masked_logits(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Logits with (almost) no probability where `mask` [..., A] is False; a row that forbids everything allows everything."""
    if mask is None:
        return logits
    return torch.where(mask | ~mask.any(dim=-1, keepdim=True), logits, torch.finfo(logits.dtype).min)


@dataclass(frozen=True)
class Categorical:
    """p(a) = softmax(logits)_a over {start, …, start + num_actions − 1}; actions are kept as 0 … num_actions − 1."""

    num_actions: int
    start: int = 0
    continuous = False

    @property
    def out_features(self) -> int:
        return self.num_actions

    def empty(self, n: int) -> np.ndarray:
        """n actions as they are kept."""
        return np.zeros(n, np.int64)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Standard Gumbel numbers [*shape, A]."""
        return -torch.empty(*shape, self.num_actions).exponential_(generator=generator).log()

    def sample(self, output: Tensor, noise: Tensor) -> Tensor:
        """The Gumbel-max trick: argmax(logits + noise) is distributed as softmax(logits)."""
        return (output + noise).argmax(dim=-1)

    def mode(self, output: Tensor) -> Tensor:
        return output.argmax(dim=-1)

    def log_prob(self, output: Tensor, action: Tensor) -> Tensor:
        return output.log_softmax(dim=-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self, output: Tensor) -> Tensor:
        """−Σ p log p, in nats."""
        log_p = output.log_softmax(dim=-1)
        return -(log_p.exp() * log_p).sum(dim=-1)

    def for_environment(self, action: np.ndarray) -> np.ndarray:
        return action + self.start if self.start else action

    def for_torch(self, action: Tensor) -> Tensor:
        """The same of tensors, for a `TorchEnv`."""
        return action + self.start if self.start else action


@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(μ, diag σ²) (notes §10.3); the output holds μ and log σ side by side, [..., 2A]."""

    space: gym.spaces.Box
    continuous = True

    @property
    def num_actions(self) -> int:
        return int(np.prod(self.space.shape))

    @property
    def out_features(self) -> int:
        return self.num_actions  # of the mean; log σ doesn't depend on the state and is added by the network

    def empty(self, n: int) -> np.ndarray:
        """n actions as they are kept."""
        return np.zeros((n, self.num_actions), np.float32)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Standard normal numbers [*shape, A]."""
        return torch.empty(*shape, self.num_actions).normal_(generator=generator)

    def sample(self, output: Tensor, noise: Tensor) -> Tensor:
        mean, log_std = output.chunk(2, dim=-1)
        return mean + log_std.exp() * noise

    def mode(self, output: Tensor) -> Tensor:
        return output.chunk(2, dim=-1)[0]

    def log_prob(self, output: Tensor, action: Tensor) -> Tensor:
        """Σ −(a − μ)²/2σ² − log σ − log √2π of the action as drawn."""
        mean, log_std = output.chunk(2, dim=-1)
        z = (action - mean) * (-log_std).exp()
        return (-0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)).sum(dim=-1)

    def entropy(self, output: Tensor) -> Tensor:
        """Σ log σ + log √(2πe), in nats."""
        return (output.chunk(2, dim=-1)[1] + 0.5 * math.log(2 * math.pi * math.e)).sum(dim=-1)

    def for_environment(self, action: np.ndarray) -> np.ndarray:
        """Scaled from ±1 to finite bounds, clipped, in the space's shape and type."""
        middle, reach = self._scale()
        scaled = middle + reach * action.reshape(-1, *self.space.shape)
        return np.clip(scaled, self.space.low, self.space.high).astype(self.space.dtype)

    def for_torch(self, action: Tensor) -> Tensor:
        """The same of tensors [n, A], for a `TorchEnv`."""
        bounds = (*self._scale(), self.space.low, self.space.high)
        middle, reach, low, high = (torch.as_tensor(part, dtype=action.dtype, device=action.device) for part in bounds)
        return torch.clamp(middle + reach * action.reshape(-1, *self.space.shape), low, high)

    def _scale(self) -> tuple[np.ndarray, np.ndarray]:
        """(middle, reach) of finite bounds; 0 and 1 of others."""
        bounded = np.isfinite(self.space.low) & np.isfinite(self.space.high)
        bottom, top = np.where(bounded, self.space.low, -1.0), np.where(bounded, self.space.high, 1.0)
        return (bottom + top) / 2, (top - bottom) / 2


def policy_head(space: gym.Space) -> Categorical | Gaussian:
    """The head for an action space. Raises ValueError where there is none."""
    if isinstance(space, gym.spaces.Discrete):
        return Categorical(int(space.n), int(space.start))
    if isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return Gaussian(space)
    raise ValueError(f"action space is {space}; expected Discrete (softmax policy) or a Box of floats (Gaussian policy)")
