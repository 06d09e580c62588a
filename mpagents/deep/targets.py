"""Targets and losses of Q-learning with networks: pure functions of tensors over a batch, each one equation.

`discount` [B] is γᵐ for the m steps that a target spans, and 0 where the last of them terminated; a truncation leaves it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def value_of(q: Tensor, action: Tensor) -> Tensor:
    """Q(s, a) [B] of actions [B] in q [B, A]."""
    assert q.ndim == 2 and action.shape == q.shape[:1], (q.shape, action.shape)
    return q.gather(1, action.unsqueeze(1)).squeeze(1)


def allowed(q: Tensor, mask: Tensor | None) -> Tensor:
    """Q [B, A] with the least of numbers where `mask` [B, A] is False; a row that forbids everything allows everything."""
    if mask is None:
        return q
    assert mask.shape == q.shape, (mask.shape, q.shape)
    return torch.where(mask | ~mask.any(dim=1, keepdim=True), q, torch.finfo(q.dtype).min)


def max_value(target_q: Tensor, mask: Tensor | None = None) -> Tensor:
    """max_a Q̄(s′, a) over allowed actions, [B] (Mnih et al. 2015, Alg. 1; notes §10.3)."""
    return allowed(target_q, mask).amax(dim=1)


def double_value(online_q: Tensor, target_q: Tensor, mask: Tensor | None = None) -> Tensor:
    """Q̄(s′, argmax_a Q(s′, a)) [B]: the online network chooses, the target network values (van Hasselt et al. 2016, eq. 4)."""
    return value_of(target_q, allowed(online_q, mask).argmax(dim=1))


def td_target(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """y = Σ_{k<m} γᵏ r_k + γᵐ V(s_m), [B] (Sutton & Barto 2018, eq. 7.1; m = 1: Mnih et al. 2015); no gradient flows."""
    assert reward.shape == discount.shape == next_value.shape and reward.ndim == 1, (reward.shape, next_value.shape)
    return (reward + discount * next_value).detach()


def huber(error: Tensor, threshold: float = 1.0) -> Tensor:
    """δ²/2 within ± κ, κ(|δ| − κ/2) beyond, of any shape (Huber 1964); its gradient is clipped to ± κ (Mnih et al. 2015)."""
    size = error.abs()
    return torch.where(size <= threshold, 0.5 * error**2, threshold * (size - 0.5 * threshold))


def half_square(error: Tensor) -> Tensor:
    """δ²/2, of any shape; its gradient is the TD error's."""
    return 0.5 * error**2


def dueling(value: Tensor, advantage: Tensor) -> Tensor:
    """Q(s, a) = V(s) + A(s, a) − mean_a A(s, a), [B, A] of [B, 1] and [B, A] (Wang et al. 2016, eq. 9, arXiv:1511.06581)."""
    assert value.shape == (len(advantage), 1), (value.shape, advantage.shape)
    return value + advantage - advantage.mean(dim=1, keepdim=True)
