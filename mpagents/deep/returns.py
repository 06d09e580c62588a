"""Returns and advantages of rollouts [T, n]: T steps of n environments, time first; float tensors, flags as booleans.

Only termination zeroes the value of what follows. A truncation bootstraps the value of the true final observation, but cuts
the sum: what stands in the next row belongs to another episode. Rows that aren't `valid` (resets under NEXT_STEP, padding)
are 0 and nothing flows through them, so the last valid row before them bootstraps too.
"""

from __future__ import annotations

import torch
from torch import Tensor


def td_error(reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, discount: float) -> Tensor:  # any one shape
    """δ = r + γ V(s′) − V(s), with V(s′) = 0 after termination (Sutton & Barto 2018, eq. 6.5)."""
    return reward + discount * torch.where(terminated, 0.0, next_value) - value


def gae(
    reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, truncated: Tensor, valid: Tensor, *,
    discount: float, trace_decay: float,
) -> Tensor:  # fmt: skip
    """Generalised advantage A_t = δ_t + γλ A_{t+1}, [T, n] (Schulman et al. 2016, arXiv:1506.02438); λ is `trace_decay`.

    λ = 0 is the one-step TD error of the notes' actor-critic (§10.3, with the sign of ascent); λ = 1 is the discounted reward
    to go minus the value, bootstrapped at the end of the rollout: the n-step advantage of A2C (Mnih et al. 2016, Alg. S3).
    """
    error = torch.where(valid, td_error(reward, value, next_value, terminated, discount), 0.0)
    keeps = discount * trace_decay * (valid & ~(terminated | truncated)).float()
    return discounted_sum(error, keeps)


def reward_to_go(
    reward: Tensor, next_value: Tensor, terminated: Tensor, truncated: Tensor, valid: Tensor, *, discount: float
) -> Tensor:
    """G_t = r_t + γ G_{t+1}, [T, n]; γ V(s′) stands for what was not seen, after a truncation and the last row.

    Williams 1992 (REINFORCE); notes §10.3. Where there is no V, pass zeros and drop the rows that `reaches_termination` denies.
    """
    ended = terminated | truncated
    follows = torch.cat([valid[1:], torch.zeros_like(valid[:1])]) & ~ended  # the next row continues this episode
    tail = torch.where(follows | terminated, 0.0, discount * next_value)
    return discounted_sum(torch.where(valid, reward + tail, 0.0), discount * (valid & follows).float())


def reaches_termination(terminated: Tensor, truncated: Tensor) -> Tensor:
    """Rows [T, n] whose episode terminates within the rollout, so that their reward to go is known to its end."""
    known, rows = torch.zeros_like(terminated[0]), []
    for t in range(len(terminated) - 1, -1, -1):
        known = terminated[t] | (known & ~truncated[t])
        rows.append(known)
    return torch.stack(rows[::-1])


def discounted_sum(term: Tensor, keep: Tensor) -> Tensor:
    """x_t = term_t + keep_t x_{t+1} from the last row back, x_T = 0; [T, n]."""
    total, rows = torch.zeros_like(term[0]), []
    for t in range(len(term) - 1, -1, -1):
        total = term[t] + keep[t] * total
        rows.append(total)
    return torch.stack(rows[::-1])
