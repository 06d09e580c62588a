"""The chain: patience against a small sure reward (Dearden, Friedman & Russell 1998; Strens 2000)."""

from __future__ import annotations

import numpy as np

from envs.finite.checks import check_count, check_number, check_probability
from envs.finite.environment import FiniteEnv
from mpagents.tabular.mdp import FiniteMDP

FORWARD, BACK = 0, 1


def chain(
    *,
    num_states: int = 5,
    slip: float = 0.2,
    end_reward: float = 10.0,
    back_reward: float = 2.0,
    render_mode: str | None = None,
) -> FiniteEnv:
    """Forward goes one state on for nothing; in the last state it stays and pays `end_reward`.

    Back returns to the first state for `back_reward`. With probability `slip` the other action happens. Starts in the first
    state; never ends (a phase of Strens is 1000 steps); γ = 0.99. Optimal: always forward, which earns
    0.8⁴·0.8·10 + 0.2·2 = 3.6768 a step in the long run (Strens' 3677 per phase).

    num_states: at least 2. slip: in [0, 1]. Raises ValueError otherwise.
    """
    check_count("num_states", num_states, 2)
    check_probability("slip", slip)
    check_number("end_reward", end_reward)
    check_number("back_reward", back_reward)
    last, s = num_states - 1, np.arange(num_states)
    onward, to_first = np.minimum(s + 1, last), np.zeros_like(s)
    paid_onward, paid_back = np.where(s == last, end_reward, 0.0), np.full(num_states, back_reward)
    mdp = FiniteMDP.from_successors(
        np.stack([[onward, to_first], [to_first, onward]]).transpose(2, 0, 1),  # [S, A, 2]: as meant, slipped
        np.broadcast_to([1.0 - slip, slip], (num_states, 2, 2)),
        np.stack([[paid_onward, paid_back], [paid_back, paid_onward]]).transpose(2, 0, 1),
        discount=0.99,
        initial=s == 0,
    )
    grid = ["S" + "." * (num_states - 2) + "+"]
    return FiniteEnv(mdp, grid=grid, action_names=("forward", "back"), render_mode=render_mode)
