"""Evaluation: the deterministic policy's mean return, on environments and seeds of its own; exact regret on finite MDPs.

An episode ends at the environment's limit, else after 10,000 steps; what was cut is counted in `truncated`. On a finite MDP
episodes are simulated from its arrays, which is the same process thousands of times faster. Nothing of the agent's
training changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpagents.agents.agent import Agent, Spaces
from mpagents.environments import EnvironmentSpec, capped, make_vector
from mpagents.seeding import derive, generator
from mpagents.tabular.compiled import kernel
from mpagents.tabular.mdp import FiniteMDP
from mpagents.tabular.simulation import autoreset_mode, draw_transition, world_of

EPISODE_LIMIT = 10_000  # steps
NUM_ENVS = 8  # environments stepped together


@kernel
def play_episodes(world, cumulative_policy, limit, rng, returns, lengths, truncated):
    """Play one episode per entry of the outputs [n] under a policy [S, A], cumulated over actions."""
    num_actions = cumulative_policy.shape[1]
    for i in range(returns.size):
        s = np.searchsorted(world.initial, rng.random(), side="right")
        while True:
            u, a = rng.random(), 0
            while a < num_actions - 1 and cumulative_policy[s, a] <= u:
                a += 1
            k = draw_transition(world.row_start, world.transitions, s * num_actions + a, rng)
            returns[i] += world.transitions[k].reward
            lengths[i] += 1
            if world.transitions[k].terminated:
                break
            if lengths[i] >= limit:
                truncated[i] = True
                break
            s = world.transitions[k].next_state


def policy_table(agent: Any, mdp: FiniteMDP) -> np.ndarray:
    """The agent's deterministic policy as probabilities [S, A], ties averaged where the agent tells them."""
    states = np.arange(mdp.num_states)
    if hasattr(agent, "action_probabilities"):
        return agent.action_probabilities(states, deterministic=True)
    actions, _ = agent.predict(states, deterministic=True)
    return np.eye(mdp.num_actions)[np.asarray(actions)]


def evaluate(agent: Agent, spec: EnvironmentSpec, spaces: Spaces, *, episodes: int, seed: int) -> dict[str, float]:
    """mean_reward, std_reward (population), mean_ep_length, truncated (share of episodes), and regret where it is known."""
    if spaces.mdp is not None and not getattr(agent, "recurrent", False):  # a policy with memory is no table
        policy = policy_table(agent, spaces.mdp)
        outcome = _simulate(policy, spaces, episodes, seed)
        return _figures(*outcome) | _regret(policy, spaces.mdp)
    return _figures(*_step_environments(agent, spec, episodes, seed))


def _figures(returns: np.ndarray, lengths: np.ndarray, truncated: np.ndarray) -> dict[str, float]:
    return {
        "mean_reward": float(returns.mean()),
        "std_reward": float(returns.std()),
        "mean_ep_length": float(lengths.mean()),
        "truncated": float(truncated.mean()),
    }


def _regret(policy: np.ndarray, mdp: FiniteMDP) -> dict[str, float]:
    """Exact regret; left out where, at γ = 1, the policy never ends and so has no value."""
    from mpagents.tabular.endings import ImproperPolicyError
    from mpagents.tabular.planning import regret

    try:
        return {"regret": regret(mdp, policy)}
    except ImproperPolicyError:
        return {}


def _simulate(policy: np.ndarray, spaces: Spaces, episodes: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert spaces.mdp is not None
    world = world_of(spaces.mdp, spaces.max_episode_steps, spaces.mdp.num_actions)
    outcome = np.zeros(episodes), np.zeros(episodes, np.int64), np.zeros(episodes, np.bool_)
    limit = min(world.max_episode_steps, EPISODE_LIMIT)
    play_episodes(world, np.cumsum(policy, axis=1), limit, generator(seed, "evaluation"), *outcome)
    return outcome


def _step_environments(
    agent: Agent, spec: EnvironmentSpec, episodes: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each of n environments plays its share of the episodes, so that short episodes aren't favoured."""
    n = min(episodes, NUM_ENVS)
    env = make_vector(capped(spec, EPISODE_LIMIT), n)
    next_step = autoreset_mode(env) == "NextStep"
    shares = np.array([(episodes + i) // n for i in range(n)])
    observation, infos = env.reset(seed=derive(seed, "evaluation"))
    state, first = None, np.ones(n, np.bool_)
    returns, lengths = np.zeros(n), np.zeros(n, np.int64)
    outcomes: list[tuple[float, int, bool]] = []
    resetting = np.zeros(n, np.bool_)
    while (shares > 0).any():
        masks = infos.get("action_mask")
        action, state = agent.predict(observation, state, first, deterministic=True, action_masks=masks)
        observation, reward, terminated, truncated, infos = env.step(action)
        stepped = ~resetting
        returns[stepped] += reward[stepped]
        lengths[stepped] += 1
        ended = stepped & (terminated | truncated)
        for i in np.flatnonzero(ended):
            if shares[i] > 0:
                outcomes.append((returns[i], int(lengths[i]), bool(truncated[i] and not terminated[i])))
            shares[i] -= 1
            returns[i], lengths[i] = 0.0, 0
        first = resetting if next_step else ended
        resetting = ended if next_step else resetting
    env.close()
    played = np.array(outcomes)
    return played[:, 0], played[:, 1], played[:, 2]
