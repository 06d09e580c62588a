"""Every agent of ours that learns, wherever it can, in our environments and Gymnasium's: cut twice, the same to the bit."""

from __future__ import annotations

from dataclasses import fields

import gymnasium
import pytest

import envs
from mpagents.agents import AGENTS, agent_class
from mpagents.configuration import InvalidInput
from tests.test_trial import check_resumed_to_the_bit, trial

NEEDS_MORE = {"WorldModel-v0", "MiniGrid-v0"}  # a trained model, with which it is tested; a package
GYMNASIUM = ["FrozenLake-v1", "CliffWalking-v1", "Taxi-v4", "Blackjack-v1", "CartPole-v1", "Acrobot-v1", "MountainCar-v0",
             "MountainCarContinuous-v0", "Pendulum-v1"]  # fmt: skip
ENVIRONMENTS = [*GYMNASIUM, *(f"envs:{name}" for name in envs.ENTRY_POINTS if name not in NEEDS_MORE)]
SMALL = {"hidden_sizes": [16]}
SETTINGS = {  # small enough that a pair takes a second or two
    "dqn": {**SMALL, "learning_starts": 40, "train_every": 8, "batch_size": 8, "replay_size": 120},
    "actor_critic": {**SMALL, "rollout_steps": 24, "epochs": 1, "num_envs": 2},
    "reinforce": {**SMALL, "value_updates": 1},
    "imagination": {"collect_steps": 100, "updates": 2, "dreams": 4, "horizon": 4, "rollouts": 1, "judged_steps": 4,
                    "batch_size": 4, "length": 4, "inner": "actor_critic", "inner_settings": {**SMALL, "epochs": 1}},
}  # fmt: skip
LEARNERS = [name for name in AGENTS if name != "sb3" and not getattr(agent_class(name), "planner", False)]


def pair(agent, env):
    """The trial's specification, or None where the agent can't learn there."""
    keys = {"steps": 320, "evaluation": {"every": 160, "episodes": 2}, "checkpoint": {"every": 80, "keep": 2}}
    often = {"log_every": 20} if any(field.name == "log_every" for field in fields(agent_class(agent).Config)) else {}
    agent = {"name": agent, **often, **SETTINGS.get(agent, {})}
    try:
        return trial(agent, {"id": env, "label": "here", "max_episode_steps": 70}, **keys)
    except InvalidInput as error:
        assert "expected" in str(error) or "needs" in str(error)
        return None


def test_every_environment_has_an_agent_that_learns_there():
    assert all(any(pair(agent, env) for agent in LEARNERS) for env in ENVIRONMENTS)
    assert set(GYMNASIUM) <= set(gymnasium.registry)


@pytest.mark.slow
@pytest.mark.parametrize("env", ENVIRONMENTS)
@pytest.mark.parametrize("agent", LEARNERS)
def test_a_trial_cut_twice_is_the_trial_that_never_stopped(tmp_path, agent, env):
    spec = pair(agent, env)
    if spec is None:
        pytest.skip(f"{agent} can't learn in {env}")
    assert check_resumed_to_the_bit(spec, tmp_path, (100, 230))["resume"] == "exact"
