"""The gambler's problem (Sutton & Barto 2018, Example 4.3): stakes on a coin until the goal or ruin."""

from __future__ import annotations

import numpy as np

from envs.finite.checks import check_count, check_probability
from envs.finite.environment import FiniteEnv
from mpagents.tabular.mdp import FiniteMDP


def gambler(*, p_heads: float = 0.4, goal: int = 100, render_mode: str | None = None) -> FiniteEnv:
    """The state is the capital, 0 … `goal`; heads wins the stake, tails loses it; 1 on reaching the goal, else 0; γ = 1.

    Action a stakes a + 1, clipped to min(s, goal − s): every action is legal, and several may mean the same stake. Starts with
    any capital in 1 … goal − 1 alike; ends at 0 and at the goal. The value of s is the probability of winning from it: for
    p_heads < ½ bold play, a stake of min(s, goal − s), is optimal (one of many), V(goal/2) = p_heads, V(goal/4) = p_heads².

    p_heads: in [0, 1]. goal: at least 2. Raises ValueError otherwise.
    """
    check_probability("p_heads", p_heads)
    check_count("goal", goal, 2)
    capital = np.arange(goal + 1)[:, None]
    stake = np.minimum(np.arange(1, goal // 2 + 1), np.minimum(capital, goal - capital))  # [S, A]; 0 where all is over
    next_capital = np.stack([capital + stake, capital - stake], axis=2)  # [S, A, 2]
    initial = np.zeros(goal + 1)
    initial[1:-1] = 1.0 / (goal - 1)
    mdp = FiniteMDP.from_successors(
        next_capital,
        np.broadcast_to([p_heads, 1.0 - p_heads], next_capital.shape),
        (next_capital == goal).astype(np.float64),
        discount=1.0,
        initial=initial,
        terminal=[0, goal],
    )
    names = [f"stake {a + 1}" for a in range(goal // 2)]
    return FiniteEnv(mdp, action_names=names, render_mode=render_mode)
