"""Stable-Baselines3's algorithms in our studies: the same weights as by themselves, true endings, checked keywords."""

from __future__ import annotations

import random

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv

from mpagents.agents.agent import Spaces
from mpagents.agents.sb3 import StableBaselines3
from mpagents.configuration import InvalidInput, validate
from mpagents.deep.sb3_env import SameStepVecEnv
from mpagents.deep.sb3_settings import keywords
from mpagents.environments import EnvironmentSpec, examine, make_vector
from mpagents.evaluation import evaluate
from mpagents.python_api import make_agent
from mpagents.results.checkpoint import load_checkpoint, save_checkpoint
from mpagents.seeding import derive
from mpagents.trained import load_trained
from mpagents.trial import run_trial
from tests.test_trial import interrupt, rows, same_state, trial

MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP]
SMALL = {"A2C": {}, "PPO": {"n_steps": 64, "batch_size": 64, "n_epochs": 2}, "DQN": {"buffer_size": 900},
         "SAC": {"learning_starts": 50, "train_freq": 4, "batch_size": 16},
         "TD3": {"learning_starts": 50, "action_noise": 0.1, "train_freq": [1, "episode"], "gradient_steps": 5},
         "DDPG": {"learning_starts": 250, "batch_size": 16}}  # fmt: skip


class Staggered(gym.Env):
    """Episodes of 2, 3, 4, … steps in turn, ended by termination and by truncation in turn; observes (episode, step)."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, kind="box", offset=0):
        self.kind, self.episode = kind, offset
        parts = {"box": gym.spaces.Box(0, 1e6, (2,)), "discrete": gym.spaces.Discrete(1_000)}
        self.observation_space = gym.spaces.Dict(parts) if kind == "dict" else parts[kind]

    def _observe(self):
        parts = {"box": np.array([self.episode, self.t], np.float32), "discrete": 20 * self.episode + self.t}
        return parts if self.kind == "dict" else parts[self.kind]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._observe(), {}

    def step(self, action):
        self.t += 1
        ended = self.t == 2 + self.episode % 5
        cut = self.episode % 2 == 0
        return self._observe(), float(self.t), ended and not cut, ended and cut, {}


class Identity(gym.Env):
    """Pays 1 for naming the number seen; ten steps."""

    observation_space = action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.number = 0, int(self.np_random.integers(3))
        return self.number, {}

    def step(self, action):
        reward = float(action == self.number)
        self.t, self.number = self.t + 1, int(self.np_random.integers(3))
        return self.number, reward, False, self.t == 10, {}


@pytest.mark.parametrize("kind", ["box", "discrete", "dict"])
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_sb3_env_is_stable_baselines3s_own_vector_environment(mode, num_envs, kind):
    makers = [lambda i=i: Staggered(kind, i) for i in range(num_envs)]
    ours = SameStepVecEnv(Spaces(makers[0]().observation_space, gym.spaces.Discrete(2)), num_envs)
    ours.attach(SyncVectorEnv(makers, autoreset_mode=mode), seed=1)
    theirs = DummyVecEnv([lambda make=make: Monitor(make()) for make in makers])
    assert same_state(ours.reset(), dict_of(theirs.reset()))
    for _ in range(40):
        mine, other = ours.step(np.zeros(num_envs, np.int64)), theirs.step(np.zeros(num_envs, np.int64))
        assert same_state(mine[0], dict_of(other[0]))
        assert np.array_equal(mine[1], other[1])
        assert np.array_equal(mine[2], other[2])
        for told, expected in zip(mine[3], other[3]):
            assert same_state(told.get("terminal_observation"), expected.get("terminal_observation"))
            assert told.get("TimeLimit.truncated", False) == expected["TimeLimit.truncated"]
            assert [told.get("episode", {}).get(key) for key in "rl"] == [expected.get("episode", {}).get(key) for key in "rl"]


def dict_of(observation):
    return dict(observation) if isinstance(observation, dict) else observation


def test_sb3_env_refuses_what_it_cannot_follow():
    native = make_vector(EnvironmentSpec("CartPole-v1"), 8)
    assert not isinstance(native, SyncVectorEnv)
    ours = SameStepVecEnv(Spaces(native.single_observation_space, native.single_action_space), 8)
    with pytest.raises(ValueError, match="SAME_STEP"):
        ours.attach(native, 0)
    with pytest.raises(ValueError, match="expected 8"):
        ours.attach(make_vector(EnvironmentSpec("CartPole-v1"), 2), 0)


def vector(env_id, num_envs, mode=AutoresetMode.SAME_STEP):
    return SyncVectorEnv([lambda: gym.make(env_id)] * num_envs, autoreset_mode=mode)


def alone(algorithm, env_id, steps, num_envs, settings):
    """Stable-Baselines3 as its users run it, with the seeds that ours derives."""
    env = DummyVecEnv([lambda: Monitor(gym.make(env_id))] * num_envs)
    model = getattr(stable_baselines3, algorithm)("MlpPolicy", env, seed=derive(1, "sb3"), device="cpu", **settings)
    env.seed(1)
    return model.learn(steps)


@pytest.mark.parametrize(
    ("algorithm", "mode", "num_envs"),
    [("A2C", 0, 2), ("A2C", 1, 2), ("PPO", 1, 1), ("DQN", 1, 1), ("DQN", 1, 2), ("SAC", 0, 2), ("TD3", 1, 1), ("DDPG", 1, 1)],
)
def test_sb3_learns_the_same_weights_as_by_itself(algorithm, mode, num_envs):
    env_id = "CartPole-v1" if algorithm in ("A2C", "PPO", "DQN") else "Pendulum-v1"
    env, settings = vector(env_id, num_envs, MODES[mode]), SMALL[algorithm]
    agent = make_agent("sb3", env, seed=1, algorithm=algorithm, num_envs=num_envs, settings=settings, log_every=70)
    steps = []
    for step, _ in agent.train(env, 300):
        np.random.rand(3), random.random(), torch.rand(3)  # noqa: NPY002 - others draw, too
        steps.append(step)
    plain = dict(settings)
    if algorithm == "TD3":
        plain |= {"action_noise": NormalActionNoise(np.zeros(1), np.full(1, 0.1)), "train_freq": (1, "episode")}
    model = alone(algorithm, env_id, 300, num_envs, plain)
    assert steps[-1] == model.num_timesteps
    assert len(steps) > 1
    assert same_state(agent.model.policy.state_dict(), model.policy.state_dict())


def test_sb3_schedules_run_over_the_whole_budget():
    env = vector("CartPole-v1", 1)
    settings = {"exploration_fraction": 0.5, "learning_rate": {"start": 1e-3, "end": 0.0}, "learning_starts": 50}
    agent = make_agent("sb3", env, algorithm="DQN", settings=settings | {"buffer_size": 500}, log_every=100)
    told = dict(agent.train(env, 400))
    assert [told[step]["rollout/exploration_rate"] for step in (100, 200, 400)] == pytest.approx([0.525, 0.05, 0.05])
    assert [told[step]["train/learning_rate"] for step in (100, 200)] == pytest.approx([7.5e-4, 5e-4])


def test_sb3_noise_has_the_shape_of_the_actions():
    noise = keywords({"action_noise": 0.1}, gym.spaces.Box(-1, 1, (2, 3)))["action_noise"]
    assert noise().shape == (2, 3)


def test_sb3_schedule_of_ours_is_a_function_of_the_progress_that_remains():
    env = vector("CartPole-v1", 1)
    agent = make_agent("sb3", env, seed=1, algorithm="A2C", settings={"learning_rate": {"start": 1e-3, "end": 0.0}})
    list(agent.train(env, 200))
    model = alone("A2C", "CartPole-v1", 200, 1, {"learning_rate": lambda remaining: 1e-3 - (1 - remaining) * 1e-3})
    ours, theirs = agent.model.policy.state_dict(), model.policy.state_dict()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"learnin_rate": 1e-3}, "did you mean 'learning_rate'"),
        ({"buffer_size": 5}, "PPO has no such keyword"),
        ({"gamma": 0.9}, "discount belongs to the environment"),
        ({"seed": 1}, "the study sets it"),
    ],
)
def test_sb3_keywords_are_checked_by_name(settings, told):
    with pytest.raises(InvalidInput, match=told):
        validate(StableBaselines3.Config, {"algorithm": "PPO", "settings": settings})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"policy_kwargs": {"net_arc": [8]}}, "net_arc"),
        ({"policy_kwargs": {"activation_fn": "tanhh"}}, "did you mean 'tanh'"),
        ({"policy_kwargs": {"optimizer_class": "os:system"}}, "expected 'package.module:Class'"),
        ({"n_steps": 1}, "n_steps"),
        ({"learning_rate": {"start": 1.0}}, "missing"),
        ({"n_steps": 2.5}, "float"),
    ],
)
def test_sb3_values_are_checked_before_anything_starts(settings, told):
    config = validate(StableBaselines3.Config, {"settings": settings})
    with pytest.raises(ValueError, match=told):
        StableBaselines3.check(config, Spaces(gym.spaces.Discrete(3), gym.spaces.Discrete(2)))


def test_sb3_takes_policies_as_plain_data():
    kwargs = {"net_arch": [8, 4], "activation_fn": "relu", "optimizer_class": "torch.optim:RMSprop"}
    agent = make_agent("sb3", vector("CartPole-v1", 1), algorithm="A2C", settings={"policy_kwargs": kwargs})
    shapes = [tuple(p.shape) for p in agent.model.policy.mlp_extractor.policy_net.parameters()]
    assert shapes == [(8, 4), (8,), (4, 8), (4,)]
    assert type(agent.model.policy.optimizer) is torch.optim.RMSprop


FRAMES = gym.spaces.Box(0, 255, (40, 40, 3), np.uint8)


@pytest.mark.parametrize(
    ("algorithm", "observation", "action", "told"),
    [
        ("DQN", FRAMES, gym.spaces.Box(0, 1, (1,)), "DQN needs Discrete"),
        ("SAC", FRAMES, gym.spaces.Discrete(2), "SAC needs Box"),
        ("PPO", gym.spaces.Tuple([FRAMES]), gym.spaces.Discrete(2), "needs Box"),
        ("PPO", gym.spaces.Dict({"a": gym.spaces.Dict({"b": FRAMES})}), gym.spaces.Discrete(2), "flat Dict"),
        ("PPO", gym.spaces.Discrete(3, start=1), gym.spaces.Discrete(2), "from 0"),
        ("PPO", gym.spaces.Discrete(3), gym.spaces.Box(-np.inf, np.inf, (1,)), "finite lower and upper bound"),
    ],
)
def test_sb3_refuses_impossible_spaces_by_name(algorithm, observation, action, told):
    with pytest.raises(ValueError, match=told):
        StableBaselines3.check(StableBaselines3.Config(algorithm=algorithm), Spaces(observation, action))


@pytest.mark.parametrize(
    ("observation", "policy"),
    [
        (FRAMES, "ActorCriticCnnPolicy"),
        (gym.spaces.Box(0, 255, (4, 84, 84), np.uint8), "ActorCriticCnnPolicy"),
        (gym.spaces.Box(0, 255, (8, 8, 3), np.uint8), "ActorCriticPolicy"),
        (gym.spaces.Dict({"a": FRAMES, "b": gym.spaces.Discrete(3)}), "MultiInputActorCriticPolicy"),
    ],
)
def test_sb3_policy_is_chosen_by_the_observations(observation, policy):
    agent = StableBaselines3(StableBaselines3.Config(), Spaces(observation, gym.spaces.Discrete(2)), seed=0)
    assert type(agent.model.policy).__name__ == policy
    batch = gym.vector.utils.batch_space(observation, 3).sample()
    assert agent.predict(batch, deterministic=True)[0].shape == (3,)


def test_sb3_solves_the_identity_and_both_evaluations_agree():
    spec = EnvironmentSpec("tests.test_sb3:Identity", max_episode_steps=10)
    env = make_vector(spec, 4)
    settings = {"n_steps": 32, "batch_size": 64, "learning_rate": 0.003}
    agent = make_agent("sb3", env, discount=0.0, num_envs=4, settings=settings)
    list(agent.train(env, 2_000))
    assert evaluate(agent, spec, examine(spec)[0], episodes=10, seed=3)["mean_reward"] == 10
    assert evaluate_policy(agent, Monitor(Identity()), n_eval_episodes=10) == (10, 0)


@pytest.mark.parametrize("algorithm", ["PPO", "SAC", "DQN"])
def test_sb3_checkpoint_holds_no_code_and_learning_goes_on(algorithm, tmp_path):
    env_id = "Pendulum-v1" if algorithm == "SAC" else "CartPole-v1"

    def build():
        env = vector(env_id, 1)
        return env, make_agent("sb3", env, seed=1, algorithm=algorithm, settings=SMALL[algorithm], log_every=20)

    env, agent = build()
    list(agent.train(env, 256))
    path = save_checkpoint(tmp_path, 256, agent.state_dict(), keep=1)
    assert {file.suffix for file in path.iterdir()} == {".json", ".safetensors"}
    resumed = []
    for _ in range(2):
        env, other = build()
        other.load_state_dict(load_checkpoint(path))
        assert same_state(other.state_dict(), agent.state_dict())
        updates, done = other.model._n_updates, {}
        for step, _ in other.train(env, 512):
            done[step] = other.model._n_updates - updates
        waits = min(256, getattr(other.model, "learning_starts", 0))
        assert all((count > 0) == (step > 256 + waits) for step, count in done.items())
        resumed.append(other.state_dict())
    assert same_state(*resumed)


def test_sb3_trial_says_that_its_resume_is_approximate(tmp_path):
    agent = {"name": "sb3", "settings": {"n_steps": 100, "batch_size": 50, "n_epochs": 1}, "log_every": 100}
    keys = {"steps": 600, "evaluation": {"every": 300, "episodes": 2}, "checkpoint": {"every": 200, "keep": 2}}
    spec = trial(agent, "CartPole-v1", **keys)
    interrupt(spec, tmp_path, 400)
    status = run_trial(spec, tmp_path)
    assert status["status"] == "finished", status["error"]
    assert status["resume"] == "approximate"
    assert status["steps"] == 600
    steps = [row["step"] for row in rows(tmp_path / spec.path)]
    assert steps == sorted(set(steps))
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "train/loss"} <= rows(tmp_path / spec.path)[-1].keys()
    assert load_trained(tmp_path / spec.path)[1].predict(np.zeros((2, 4), np.float32))[0].shape == (2,)


def test_sb3_stops_at_a_nan_reward(tmp_path):
    status = run_trial(trial("sb3", {"id": "tests.test_trial:Nan", "label": "nan"}), tmp_path)
    assert status["status"] == "failed"
    assert "nan" in status["error"]["message"]
