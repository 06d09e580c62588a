"""Garnets: random MDPs of a given size and branching (Archibald, McKinnon & Thomas 1995; Bhatnagar et al. 2009)."""

from __future__ import annotations

import numpy as np

from envs.finite.checks import check_count
from envs.finite.environment import FiniteEnv
from mpagents.tabular.mdp import FiniteMDP


def garnet(
    *,
    num_states: int = 30,
    num_actions: int = 4,
    branching: int = 3,
    instance_seed: int = 0,
    render_mode: str | None = None,
) -> FiniteEnv:
    """Each pair (s, a) leads to `branching` different states, drawn uniformly.

    Their probabilities are the pieces of [0, 1] cut at branching − 1 uniform points; the reward of a pair is drawn from N(0, 1)
    and paid without noise (σ = 0 in Bhatnagar et al.). Starts anywhere; never ends; γ = 0.95.

    instance_seed: draws the MDP; `reset(seed=…)` only draws its episodes. branching: 1 … num_states, else ValueError.

    >>> int((garnet(num_states=5, branching=2).mdp.transition_matrix() > 0).sum())  # 5 states × 4 actions × 2
    40
    """
    check_count("num_states", num_states, 1)
    check_count("num_actions", num_actions, 1)
    check_count("branching", branching, 1)
    check_count("instance_seed", instance_seed, 0)
    if branching > num_states:
        raise ValueError(f"branching is {branching}; expected at most num_states = {num_states}")
    rng = np.random.default_rng(instance_seed)
    successors = [rng.choice(num_states, branching, replace=False) for _ in range(num_states * num_actions)]
    cuts = np.sort(rng.random((num_states, num_actions, branching - 1)), axis=2)
    mdp = FiniteMDP.from_successors(
        np.reshape(successors, (num_states, num_actions, branching)),
        np.diff(cuts, axis=2, prepend=0.0, append=1.0),
        rng.standard_normal((num_states, num_actions)),
        discount=0.95,
    )
    return FiniteEnv(mdp, render_mode=render_mode)
