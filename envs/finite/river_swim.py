"""RiverSwim: a river whose far end pays richly and whose near end pays a little, for free (Strehl & Littman 2008).

"An analysis of model-based interval estimation for Markov decision processes", J. Comput. Syst. Sci. 74(8). Many papers rescale
the rewards to 0.005 and 1, and some use other probabilities (Osband et al. 2013: 0.35 / 0.6 / 0.05, from the leftmost state).
"""

from __future__ import annotations

import numpy as np

from envs.finite.checks import check_count, check_number
from envs.finite.environment import FiniteEnv
from mpagents.tabular.mdp import FiniteMDP

LEFT, RIGHT = 0, 1
ADVANCE, STAY, DRIFT = 0.3, 0.6, 0.1  # swimming right between the banks


def river_swim(
    *, num_states: int = 6, left_reward: float = 5.0, right_reward: float = 10_000.0, render_mode: str | None = None
) -> FiniteEnv:
    """Left always goes one state left; at the left bank it stays and pays `left_reward`.

    Right advances with 0.3, stays with 0.6 and drifts back with 0.1; at the left bank it advances with 0.3, else stays; at the
    right bank it stays with 0.3, for `right_reward`, else drifts back. Starts in state 1 or 2; never ends; γ = 0.95. By
    default it is optimal always to swim right: 668.81 a step in the long run, against 5 at the left bank.

    num_states: at least 3. Raises ValueError otherwise.
    """
    check_count("num_states", num_states, 3)
    check_number("left_reward", left_reward)
    check_number("right_reward", right_reward)
    transition = np.zeros((num_states, 2, num_states))
    reward = np.zeros((num_states, 2, num_states))
    last, s = num_states - 1, np.arange(num_states)
    transition[s, LEFT, np.maximum(s - 1, 0)] = 1.0
    inner = s[1:-1]
    transition[inner, RIGHT, inner + 1] = ADVANCE
    transition[inner, RIGHT, inner] = STAY
    transition[inner, RIGHT, inner - 1] = DRIFT
    transition[0, RIGHT, [0, 1]] = 1.0 - ADVANCE, ADVANCE
    transition[last, RIGHT, [last, last - 1]] = ADVANCE, 1.0 - ADVANCE
    reward[0, LEFT, 0], reward[last, RIGHT, last] = left_reward, right_reward
    initial = np.isin(s, [1, 2]) / 2
    mdp = FiniteMDP.from_arrays(transition, reward, discount=0.95, initial=initial)
    grid = ["+SS" + "." * (num_states - 4) + "+"] if num_states > 3 else ["+SS"]
    return FiniteEnv(mdp, grid=grid, action_names=("left", "right"), render_mode=render_mode)
