"""One contract for every registered agent."""

from __future__ import annotations

import dataclasses
import json

import gymnasium as gym
import numpy as np
import pytest

from mpagents.agents import AGENTS, agent_class
from mpagents.agents.agent import Spaces
from mpagents.configuration import InvalidInput, validate
from mpagents.environments import EnvironmentSpec, make_vector, spaces_of
from mpagents.evaluation import evaluate
from mpagents.python_api import make_agent
from mpagents.results.checkpoint import load_checkpoint, save_checkpoint
from tests.test_trial import same_state

LAKE = EnvironmentSpec("FrozenLake-v1", label="lake")
STEPS = 3_000
# Small rollouts that divide the budget, and few updates: the contract is about the agent, not about what it reaches.
QUICK = {
    "sb3": {"settings": {"n_steps": 250, "batch_size": 250, "n_epochs": 1}},
    "actor_critic": {"epochs": 2},
    "reinforce": {"value_updates": 2},
    "dqn": {"train_every": 10},
    "imagination": {"collect_steps": 1_500, "dreams": 16, "horizon": 8, "rollouts": 2, "judged_steps": 20},
}
WITHOUT_MASKS = {"sb3"}  # Stable-Baselines3's algorithms know none, in training and in acting
LEARNERS = [name for name in AGENTS if not getattr(agent_class(name), "planner", False)]


def build(name, seed=1, **config):
    return make_agent(name, make_vector(LAKE, 1), seed=seed, **QUICK.get(name, {}), **config)


def trained(name, seed=1):
    env = make_vector(LAKE, 1)
    agent = make_agent(name, env, seed=seed, **QUICK.get(name, {}))
    return agent, [(step, dict(metrics)) for step, metrics in agent.train(env, STEPS)]


@pytest.mark.parametrize("name", AGENTS)
def test_agent_same_seed_same_metrics_and_state(name):
    (one, first), (two, second) = trained(name), trained(name)
    assert first == second
    assert same_state(one.state_dict(), two.state_dict())


@pytest.mark.parametrize("name", LEARNERS)
def test_agent_another_seed_learns_otherwise(name):
    assert not same_state(trained(name, 1)[0].state_dict(), trained(name, 2)[0].state_dict())


@pytest.mark.parametrize("name", AGENTS)
def test_agent_state_round_trips_through_a_checkpoint(name, tmp_path):
    agent, _ = trained(name)
    state = load_checkpoint(save_checkpoint(tmp_path, 1, agent.state_dict(), keep=1))
    other = build(name)
    other.load_state_dict(state)
    assert same_state(other.state_dict(), agent.state_dict())
    states = np.arange(16)
    if hasattr(agent, "action_probabilities"):
        assert np.array_equal(agent.action_probabilities(states), other.action_probabilities(states))
    assert np.array_equal(agent.predict(states)[0], other.predict(states)[0])


@pytest.mark.parametrize("name", AGENTS)
def test_agent_yields_steps_to_the_budget_and_no_further(name):
    agent, yields = trained(name)
    steps = [step for step, _ in yields]
    assert steps == sorted(steps)
    if name in LEARNERS:
        assert steps[-1] == STEPS
        assert list(agent.train(make_vector(LAKE, 1), STEPS)) == []


@pytest.mark.parametrize("name", AGENTS)
def test_agent_predicts_batches_in_the_action_space(name):
    agent, _ = trained(name)
    actions, state = agent.predict(np.zeros(50, np.int64), deterministic=True)
    assert actions.shape == (50,)
    assert state is None
    assert all(agent.spaces.action.contains(a) if hasattr(agent, "spaces") else 0 <= a < 4 for a in actions)
    if name not in WITHOUT_MASKS:
        masks = np.tile(np.array([0, 0, 1, 0], np.int8), (50, 1))
        assert set(agent.predict(np.zeros(50, np.int64), action_masks=masks)[0]) == {2}
    if hasattr(agent, "action_probabilities"):
        for deterministic in (True, False):
            probabilities = agent.action_probabilities(np.arange(16), deterministic)
            assert probabilities.shape == (16, 4)
            assert np.allclose(probabilities.sum(axis=1), 1)


@pytest.mark.parametrize("name", LEARNERS)
def test_agent_evaluation_leaves_training_untouched(name):
    spaces = spaces_of(gym.make("FrozenLake-v1"))
    outcomes = []
    for judged in (True, False):
        env = make_vector(LAKE, 1)
        agent = make_agent(name, env, seed=1, **QUICK.get(name, {}))
        for _ in agent.train(env, STEPS):
            if judged:
                evaluate(agent, LAKE, spaces, episodes=3, seed=5)
        outcomes.append(agent.state_dict())
    assert same_state(*outcomes)


def is_deep(name):
    return any(field.name == "device" for field in dataclasses.fields(agent_class(name).Config))


NUMBERS, VECTOR, BOX = gym.spaces.Discrete(4), gym.spaces.Box(0, 1, (4,)), gym.spaces.Box(0, 1, (1,))
TEXT = gym.spaces.Text(5)
IMPOSSIBLE = [(name, NUMBERS, TEXT) for name in AGENTS] + [(name, TEXT, NUMBERS) for name in AGENTS]
IMPOSSIBLE += [(name, VECTOR, NUMBERS) for name in AGENTS if not is_deep(name)]
IMPOSSIBLE += [(name, NUMBERS, BOX) for name in AGENTS if not is_deep(name) or name == "dqn"]


@pytest.mark.parametrize(("name", "observation", "action"), [case for case in IMPOSSIBLE if case[0] != "random"], ids=str)
def test_agent_refuses_impossible_spaces_by_name(name, observation, action):
    cls = agent_class(name)
    with pytest.raises(ValueError, match=r"expected|needs"):
        cls.check(cls.Config(), Spaces(observation, action))


@pytest.mark.parametrize("name", AGENTS)
def test_agent_config_is_plain_frozen_and_strict(name):
    config = agent_class(name).Config()
    assert validate(type(config), json.loads(json.dumps(dataclasses.asdict(config)))) == config
    with pytest.raises(InvalidInput, match="unknown key"):
        validate(type(config), {"no_such_setting": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.alpha = 2


@pytest.mark.parametrize("name", LEARNERS)
def test_agent_is_taken_by_stable_baselines3_evaluation(name):
    from stable_baselines3.common.evaluation import evaluate_policy

    agent, _ = trained(name)
    mean, _ = evaluate_policy(agent, gym.make("FrozenLake-v1"), n_eval_episodes=5, warn=False)
    assert 0 <= mean <= 1
