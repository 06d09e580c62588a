"""The agent that learns in imagination: what it stores, sees and remembers; resume to the bit; controls and known optima."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn

from generative.model import GenerativeModel
from mpagents.agents.agent import Spaces
from mpagents.agents.imagination import Imagination
from mpagents.environments import EnvironmentSpec, make_vector, spaces_of
from mpagents.evaluation import evaluate, policy_table
from mpagents.python_api import make_agent
from mpagents.results.checkpoint import load_checkpoint, save_checkpoint
from mpagents.snapshot import restore, snapshot
from mpagents.tabular.policy_evaluation import evaluate_policy
from tests.test_trial import same_state

TINY = {"collect_steps": 40, "updates": 3, "batch_size": 4, "dreams": 8, "horizon": 4, "rollouts": 2, "judged_steps": 9}
POLE = EnvironmentSpec("CartPole-v1", label="pole")
BALL = EnvironmentSpec("envs:Catch-v0", label="ball", kwargs={"size": 16})
SEEING = {"memory": 8, "embedding": 8, "latent_size": 2, "classes": 4, "hidden": [8]}  # of a small world_model
LAKE = EnvironmentSpec("FrozenLake-v1", label="lake")


class Counting(gymnasium.Env):
    """Observes (episode, step); an episode ends after three steps, the odd ones by truncation."""

    observation_space, action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,)), gymnasium.spaces.Discrete(2)
    episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action):
        self.t += 1
        over = self.t == 3
        seen = np.array([self.episode, self.t], np.float32)
        return seen, 10.0 * self.t + action, over and self.episode % 2 == 0, over and self.episode % 2 == 1, {}


@dataclass(frozen=True)
class RememberingConfig:
    in_features: int
    action_size: int


class Remembering(GenerativeModel):
    """A world whose state is all that was filtered since the episode began: Σ observations and actions, and the steps."""

    Config = RememberingConfig
    num_noise = 0

    def __init__(self, config):
        super().__init__(config)
        self.weight = nn.Parameter(torch.zeros(()))

    def loss(self, batch, player="model", *, generator):
        return (self.weight - 1) ** 2, {}

    def begin(self, x):
        return (torch.cat([x, torch.zeros(len(x), self.config.action_size + 1)], dim=1),)

    def posterior(self, batch):
        n, length, _ = batch["x"].shape
        return (self.begin(batch["x"].flatten(0, 1))[0].unflatten(0, (n, length)),), ~batch["terminated"]

    def filter(self, state, action, x, first):
        moved = torch.cat([x, state[0][:, x.shape[1] : -1] + action, state[0][:, -1:] + 1], dim=1)
        return (torch.where(first[:, None], self.begin(x)[0], moved),)

    def imagine(self, state, action, noise, temperature):
        return state, torch.zeros(len(action)), torch.zeros(len(action))

    def observation(self, state):
        return state[0][:, : self.config.in_features]

    def features(self, state):
        return state[0]


def counting(autoreset, n=2):
    return SyncVectorEnv([Counting] * n, autoreset_mode=autoreset)


def run(agent, env, num_steps):
    return [(step, dict(metrics)) for step, metrics in agent.train(env, num_steps)]


@pytest.mark.parametrize("autoreset", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_experience_has_the_action_that_led_and_no_autoreset_row(autoreset):
    env = counting(autoreset)
    agent = make_agent("imagination", env, seed=0, num_envs=2, model="tests.test_imagination:Remembering", **TINY)
    run(agent, env, 40)
    columns, runs = agent.world.experience.rows()
    for begin, end in runs:
        rows = {name: column[begin:end] for name, column in columns.items()}
        episode, t = rows["x"].T
        assert (rows["first"] == (t == 0)).all()
        assert t.tolist() == [i % 4 for i in range(len(t))] and (np.diff(episode) == (t[1:] == 0)).all()
        assert (rows["action"][t == 0] == -1).all() and set(rows["action"][t > 0]) == {0, 1}
        np.testing.assert_array_equal(rows["reward"], np.where(t > 0, 10 * t + rows["action"], 0))
        assert (rows["terminated"] == ((t == 3) & (episode % 2 == 0))).all()


def test_experience_keeps_the_last_rows_in_order():
    env = counting(AutoresetMode.NEXT_STEP, 1)
    agent = make_agent("imagination", env, seed=0, model="tests.test_imagination:Remembering", **TINY | {"num_rows": 18})
    run(agent, env, 80)
    columns, runs = agent.world.experience.rows()
    newer, older = (columns["x"][begin:end] for begin, end in runs)
    time = np.concatenate([older, newer]) @ [4, 1]  # a row's number since training began
    assert len(time) == 18 and (np.diff(time) == 1).all()


def test_memory_sees_the_actions_that_led_and_is_forgotten_at_an_episode_s_start():
    """The same in training and in `predict`, which carries it in the state."""
    env = counting(AutoresetMode.NEXT_STEP)
    agent = make_agent("imagination", env, seed=0, num_envs=2, model="tests.test_imagination:Remembering", **TINY)
    seen = []
    see = agent.world.see
    agent.world.see = lambda *given: seen.append(see(*given)[0]) or see(*given)
    run(agent, env, 40)
    for stream in np.stack(seen, 1):  # episode, t, both actions' counts, steps
        assert (stream[:, 4] == stream[:, 1]).all()  # so many steps were filtered, and the resetting call forgets
        assert (stream[:, 2] + stream[:, 3] == stream[:, 4]).all()
    agent.world.see = see
    state, counts = None, np.zeros(2)
    for t in range(3):
        x = np.array([[7.0, t]], np.float32)
        action, state = agent.predict(x, state, np.array([t == 0]))
        assert np.allclose(state[0][0, 2:4], counts) and state[0][0, 4] == t
        counts[action[0]] += 1
    assert agent.predict(x, state, np.array([True]))[1][0][0, 2:].tolist() == [0, 0, 0]


QUICK_DQN = {"inner": "dqn", "inner_settings": {"learning_starts": 32, "train_every": 16}}


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        (POLE, {}),
        (POLE, QUICK_DQN),
        (POLE, QUICK_DQN | {"real_share": 0.5}),
        (LAKE, {}),
        (LAKE, {"inner": "actor_critic"}),
        (LAKE, QUICK_DQN | {"real_share": 0.5}),
        (BALL, {"settings": SEEING}),
        (BALL, {"settings": {"past": 1, "channels": [4], "seen": [4], "features": 8}, "model": "diffusion_world_model"}),
    ],
    ids=["actor_critic", "dqn", "dqn mixed", "counts planned", "counts dreamt", "counts mixed", "frames", "frames denoised"],
)
def test_imagination_resumes_to_the_bit(spec, settings, tmp_path):
    settings = {"log_every": 40, **TINY, **settings}
    env, expected = make_vector(spec, 1), []
    agent = make_agent("imagination", env, seed=3, **settings)
    for step, metrics in agent.train(env, 160):
        expected.append((step, metrics))
        if step == 80:
            kept = {"agent": agent.state_dict(), "env": snapshot(env)}
            path = save_checkpoint(tmp_path, step, kept, keep=1)
            agent.predict(env.observation_space.sample(), deterministic=True)  # shifts nothing in training
    kept, other_env = load_checkpoint(path), make_vector(spec, 1)
    other = make_agent("imagination", other_env, seed=3, **settings)
    other.load_state_dict(kept["agent"])
    restore(other_env, kept["env"])
    other.predict(env.observation_space.sample(), deterministic=True)
    assert plain(other.train(other_env, 160)) == plain(expected[2:])
    assert same_state(agent.state_dict(), other.state_dict())


def plain(yields):
    return [(step, {name: float(value) for name, value in metrics.items()}) for step, metrics in yields]


def test_imagination_stops_at_a_lost_loss():
    class Broken(Counting):
        def step(self, action):
            seen, _, *rest = super().step(action)
            return seen, float("nan"), *rest

    env = SyncVectorEnv([Broken])
    with pytest.raises(FloatingPointError, match="the loss is nan at step 40"):
        run(make_agent("imagination", env, seed=0, **TINY), env, 80)


def test_imagination_control_never_fits_its_world():
    env = make_vector(POLE, 1)
    agent = make_agent("imagination", env, seed=0, **TINY | {"updates": 0})
    before = {name: value.clone() for name, value in agent.world.model.state_dict().items()}
    policy = agent.dreamer.inner.parameters.clone()
    run(agent, env, 80)
    assert all(torch.equal(before[name], value) for name, value in agent.world.model.state_dict().items())
    assert not torch.equal(policy, agent.dreamer.inner.parameters)


def test_imagination_control_counts_nothing_of_a_finite_mdp():
    env = make_vector(EnvironmentSpec("FrozenLake-v1"), 1)
    agent = make_agent("imagination", env, seed=0, updates=0)
    run(agent, env, 500)
    counts = agent.world.counts
    assert counts.visits.sum() == 0 and counts.starts.sum() > 1


def test_imagination_refuses_what_it_cannot_learn():
    box, vector, two = gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.Box(-1, 1, (3,)), gymnasium.spaces.Discrete(2)
    for config, observation, action, message in (
        ({}, gymnasium.spaces.Discrete(3), box, "expected Discrete"),
        ({"model": "vae"}, vector, box, "imagines nothing"),
        ({"model": "ensemble_dynamics"}, gymnasium.spaces.Discrete(3), two, "expected vectors or frames, or model 'auto'"),
        ({"length": 1}, vector, box, "length is 1; expected at least 2"),
        (
            {"length": 4, "model": "diffusion_world_model", "settings": {"past": 4}},
            vector,
            box,
            "length is 4; expected at least 5",
        ),
        ({"settings": {"num_member": 2}}, vector, box, "did you mean 'num_members'"),
        ({"inner_settings": {"epoch": 2}}, vector, box, "did you mean 'epochs'"),
        ({"inner": "dqn"}, vector, box, "needs Discrete"),
        ({"inner": "value_iteration"}, vector, box, "solves counts of Discrete observations"),
        ({"real_share": 0.5}, vector, two, "expected dqn"),
        ({"real_share": 0.5, "inner": "dqn", "inner_settings": {"prioritised": True}}, vector, two, "not prioritised"),
        ({"real_share": 0.5, "inner": "dqn", "model": "world_model"}, vector, two, "has a memory"),
        ({}, gymnasium.spaces.Box(-1, 1, (2, 3)), box, r"expected Discrete from 0, vectors"),
        ({}, gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8), two, r"stacked \[K, H, W\]; expected \[H, W, C\]"),
        ({}, gymnasium.spaces.Discrete(3, start=1), two, "numbers from 0"),
        ({}, gymnasium.spaces.Discrete(3), gymnasium.spaces.Discrete(2, start=1), "numbers from 0"),
        ({"inner_settings": {"recurrent": 8}}, vector, two, "recurrent is 8; expected false"),
    ):
        with pytest.raises(ValueError, match=message):
            Imagination.check(Imagination.Config(**config), Spaces(observation, action))
    with pytest.raises(ValueError, match="expected a discount below 1"):
        Imagination.check(Imagination.Config(), Spaces(gymnasium.spaces.Discrete(3), two, discount=1.0))


def test_frozen_lake_is_solved_in_the_counted_world():
    """At least 95 % of the optimum's 0.542 in the true MDP, from 10,000 steps."""
    env = make_vector(LAKE, 1)
    mdp = spaces_of(env.envs[0]).mdp
    agent = make_agent("imagination", env, seed=0)
    run(agent, env, 10_000)
    assert evaluate_policy(mdp, policy_table(agent, mdp)) @ mdp.initial >= 0.95 * 0.542


@pytest.mark.slow
def test_cartpole_is_held_after_1500_real_steps():
    env = make_vector(POLE, 1)
    agent = make_agent("imagination", env, seed=0)
    run(agent, env, 1_500)
    assert evaluate(agent, POLE, spaces_of(env.envs[0]), episodes=20, seed=7)["mean_reward"] >= 475


class Endless(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (1,)), gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return self.np_random.uniform(-1, 1, 1).astype(np.float32), 1.0, False, False, {}


@pytest.mark.parametrize("limit", [None, 20])
def test_dreams_are_judged_as_long_as_real_episodes_and_not_where_no_beginning_is_kept(limit):
    gymnasium.register("Endless-v0", entry_point=Endless, max_episode_steps=limit)
    settings = {"num_rows": 100, "updates": 2, "dreams": 4, "horizon": 3, "rollouts": 1, "collect_steps": 50, "log_every": 50}
    env = gymnasium.make_vec("Endless-v0", num_envs=1, vectorization_mode="sync")
    found = [metrics for _, metrics in make_agent("imagination", env, seed=0, **settings).train(env, 200)]
    if limit:
        assert found[-1]["dream/real_return"] == limit and abs(found[-1]["dream/gap"]) < 1
    else:
        assert "dream/return" in found[0] and "dream/return" not in found[-1]
