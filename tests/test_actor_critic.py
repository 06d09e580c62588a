"""Policy gradients: returns and losses against numbers worked out by hand, laws, and tasks whose answer is known."""

from __future__ import annotations

import copy
import json
import math
import re
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.classic.cartpole import CartPole
from envs.classic.cartpole import vector as vector_cartpole
from mpagents.deep.losses import clipped_ratio, normalised, policy_gradient
from mpagents.deep.normalisation import ObservationScale, RewardScale
from mpagents.deep.observations import ObservationCodec
from mpagents.deep.policies import Categorical, Gaussian, masked_logits
from mpagents.deep.returns import gae, reaches_termination, reward_to_go
from mpagents.python_api import make_agent
from mpagents.results.checkpoint import load_latest
from mpagents.torch_env import ArraySpec, TorchVectorEnv
from mpagents.trial import run_trial
from tests.test_trial import interrupt, rows, same_state, trial

DECAY = {"start": 5e-3, "end": 0.0}
A2C = {"epochs": 1, "clip_ratio": None, "normalise_advantage": False, "normalise_rewards": False}


class Steps(gym.Env):
    """What to do is seen; an episode of `length` steps terminates or, with `truncates`, is cut. The seen number pays 1."""

    action_space = gym.spaces.Discrete(2)
    observation_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self, length=1, truncates=False):
        self.length, self.truncates = length, truncates

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.elapsed = 0
        return self._see(), {}

    def step(self, action):
        self.elapsed += 1
        reward = float(action == self.seen)
        ended = self.elapsed >= self.length
        return self._see(), reward, ended and not self.truncates, ended and self.truncates, {}

    def _see(self):
        self.seen = int(self.np_random.integers(2))
        return np.array([2.0 * self.seen - 1], np.float32)


class Target(Steps):
    """One step: pays −(a − 0.5)² for a in [−1, 3], so the mean to be learned is 0.5, and −0.25 in units of the bounds."""

    action_space = gym.spaces.Box(-1, 3, (1,))

    def step(self, action):
        assert self.action_space.contains(action)
        return np.zeros(1, np.float32), -(float(action[0] - 0.5) ** 2), True, False, {}


class Masked(Steps):
    """Action 0 pays most and is forbidden; the mask says so."""

    def reset(self, *, seed=None, options=None):
        observation, _ = super().reset(seed=seed)
        return observation, {"action_mask": np.array([0, 1], np.int8)}

    def step(self, action):
        assert action == 1
        observation, _, *ends, _ = super().step(action)
        return observation, 0.5, *ends, {"action_mask": np.array([0, 1], np.int8)}


class TwoStates(gym.Env):
    """Action 1 goes to state 1 (from anywhere), 0 to state 0; staying in 1 pays 1. At γ = 0.5: V*(0) = 1, V*(1) = 2."""

    observation_space, action_space = gym.spaces.Discrete(2), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.s, self.elapsed = 0, 0
        return self.s, {}

    def step(self, action):
        reward = float(self.s == 1 and action == 1)
        self.s, self.elapsed = int(action), self.elapsed + 1
        return self.s, reward, False, self.elapsed == 10, {}


def vector(env, n=8, mode=AutoresetMode.NEXT_STEP, **kwargs):
    return SyncVectorEnv([lambda: env(**kwargs)] * n, autoreset_mode=mode)


def taught(name, env, steps, seed=0, discount=0.99, **config):
    agent = make_agent(name, env, seed=seed, discount=discount, **config)
    for _ in agent.train(env, steps):
        pass
    return agent


def column(*values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype).unsqueeze(1)


# three steps that end by termination, a reset row, two steps that are cut by a limit, one that goes on
REWARD = column(1.0, 2.0, 3.0, 99.0, 1.0, 1.0, 5.0)
VALUE = column(0.5, 1.0, 1.5, 77.0, 2.0, 3.0, 4.0)
NEXT_VALUE = column(1.0, 1.5, 66.0, 55.0, 3.0, 8.0, 6.0)
TERMINATED = column(0, 0, 1, 0, 0, 0, 0, dtype=torch.bool)
TRUNCATED = column(0, 0, 0, 0, 0, 1, 0, dtype=torch.bool)
VALID = column(1, 1, 1, 0, 1, 1, 1, dtype=torch.bool)
ROLLOUT = (REWARD, VALUE, NEXT_VALUE, TERMINATED, TRUNCATED, VALID)


def test_gae_cuts_at_ends_and_bootstraps_truncations_as_worked_out_by_hand():
    # γ = λ = 0.5; δ = 1, 1.75, 1.5 | reset | 0.5, 2 | 4
    expected = column(1 + 0.25 * (1.75 + 0.25 * 1.5), 1.75 + 0.25 * 1.5, 1.5, 0.0, 0.5 + 0.25 * 2, 2.0, 4.0)
    torch.testing.assert_close(gae(*ROLLOUT, discount=0.5, trace_decay=0.5), expected)


def test_gae_lambda_zero_equals_one_step_td_of_the_notes():
    error = REWARD + 0.9 * NEXT_VALUE * ~TERMINATED - VALUE
    torch.testing.assert_close(gae(*ROLLOUT, discount=0.9, trace_decay=0.0), torch.where(VALID, error, 0.0))


def test_gae_lambda_one_equals_monte_carlo_minus_baseline():
    to_go = reward_to_go(REWARD, NEXT_VALUE, TERMINATED, TRUNCATED, VALID, discount=0.5)
    # 1 + 2/2 + 3/4, 2 + 3/2, 3 | reset | 1 + (1 + 8/2)/2, 1 + 8/2 | 5 + 6/2
    torch.testing.assert_close(to_go, column(2.75, 3.5, 3.0, 0.0, 3.5, 5.0, 8.0))
    torch.testing.assert_close(gae(*ROLLOUT, discount=0.5, trace_decay=1.0), torch.where(VALID, to_go - VALUE, 0.0))
    known = reaches_termination(TERMINATED, TRUNCATED)
    assert known.squeeze().tolist() == [True, True, True, False, False, False, False]


def test_gae_of_the_row_before_padding_bootstraps():
    valid = column(1, 1, 0, dtype=torch.bool)
    no = torch.zeros_like(valid)
    found = gae(
        column(1.0, 1.0, 9.0), column(0.0, 0.0, 9.0), column(0.0, 2.0, 9.0), no, no, valid, discount=0.5, trace_decay=1.0
    )
    torch.testing.assert_close(found, column(2.0, 2.0, 0.0))
    to_go = reward_to_go(column(1.0, 1.0, 9.0), column(0.0, 2.0, 9.0), no, no, valid, discount=0.5)
    torch.testing.assert_close(to_go, column(2.0, 2.0, 0.0))


def test_policies_log_prob_entropy_and_frequencies_are_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    logits, action = torch.tensor([0.3, -1.0, 2.0]), torch.tensor(1)
    theirs = torch.distributions.Categorical(logits=logits)
    head = Categorical(3)
    torch.testing.assert_close(head.log_prob(logits, action), theirs.log_prob(action))
    torch.testing.assert_close(head.entropy(logits), theirs.entropy())
    drawn = head.sample(logits, head.noise((20_000,), generator)).bincount(minlength=3) / 20_000
    torch.testing.assert_close(drawn, theirs.probs, atol=0.015, rtol=0)
    box = gym.spaces.Box(np.array([-2, -np.inf], np.float32), np.array([4, np.inf], np.float32))
    output, action = torch.tensor([0.5, -1.0, 0.1, -0.7]), torch.tensor([2.0, 3.0])
    theirs = torch.distributions.Independent(torch.distributions.Normal(output[:2], output[2:].exp()), 1)
    torch.testing.assert_close(Gaussian(box).log_prob(output, action), theirs.log_prob(action))
    torch.testing.assert_close(Gaussian(box).entropy(output), theirs.entropy())
    # 2.0 lies beyond the bound 1, which is 4 for the environment; an unbounded action is passed as it is
    assert Gaussian(box).for_environment(action.numpy()[None]).tolist() == [[4.0, 3.0]]


def test_actor_critic_learns_from_the_unclipped_action():
    env = vector(Target)
    agent = make_agent("actor_critic", env, initial_log_std=1.0, epochs=1, clip_ratio=None)
    seen = []
    agent.learn = lambda rollout, state: seen.append(rollout["action"].clone()) or {"loss": torch.zeros(())}
    list(agent.train(env, 500))
    assert torch.cat(seen).abs().max() > 1.5  # the environment's assertion holds: what it got was within its bounds


def test_masked_actions_have_no_probability_and_are_never_taken():
    mask = torch.tensor([[True, False], [False, False]])
    logits = masked_logits(torch.tensor([[0.0, 9.0], [1.0, 3.0]]), mask)
    assert logits[0].softmax(-1).tolist() == [1.0, 0.0]
    assert logits[1].tolist() == [1.0, 3.0]  # all forbidden: nothing is
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        for name in ("actor_critic", "reinforce"):
            agent = taught(name, vector(Masked, 2, mode, length=3), 300)
            assert agent.predict(np.ones((4, 1)), action_masks=np.array([[0, 1]] * 4, np.int8))[0].tolist() == [1] * 4


def test_masks_told_from_the_first_step_on_are_learned_from():
    class Late(Masked):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed)[0], {}

        def step(self, action):
            observation, _, *ends, infos = super().step(1)
            return observation, float(action == 0), *ends, infos

    for name, config in (("actor_critic", {"rollout_steps": 8, "log_every": 1}), ("reinforce", {"max_steps": 8})):
        agent = make_agent(name, env := vector(Late, 2, length=100), **config)
        seen, learn = [], agent.learn
        agent.learn = lambda batch, *more, seen=seen, learn=learn: seen.append(batch["mask"].clone()) or learn(batch, *more)
        next(agent.train(env, 32))
        assert seen[0].shape == (8, 2, 2)
        assert seen[0][0].all() and not seen[0][1:, :, 0].any()


def test_ppo_with_one_epoch_and_minibatch_has_the_policy_gradient():
    log_prob = torch.tensor([-0.3, -2.0, -0.7], requires_grad=True)
    advantage, weight = torch.tensor([1.5, -2.0, 7.0]), torch.tensor([1.0, 1.0, 0.0])
    (ours,) = torch.autograd.grad(clipped_ratio(log_prob, log_prob.detach(), advantage, weight, 0.2), log_prob)
    (plain,) = torch.autograd.grad(policy_gradient(log_prob, advantage, weight), log_prob)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(plain, torch.tensor([-0.75, 1.0, 0.0]))  # descent of −log π · A: ascent on log π · A
    agents = [taught("actor_critic", vector(Steps), 2_000, **{**A2C, "clip_ratio": clip}) for clip in (None, 0.2)]
    torch.testing.assert_close(*(agent.parameters for agent in agents), atol=1e-5, rtol=1e-4)


def test_clipped_ratio_stops_where_the_ratio_has_left_its_interval():
    new, old = torch.tensor([0.5, 0.5, -0.5], requires_grad=True), torch.zeros(3)
    advantage = torch.tensor([1.0, -1.0, 1.0])
    loss = clipped_ratio(new, old, advantage, torch.ones(3), 0.2)
    assert loss.item() == pytest.approx(-(1.2 - math.exp(0.5) + math.exp(-0.5)) / 3)
    (gradient,) = torch.autograd.grad(loss, new)
    assert gradient.tolist() == pytest.approx([0.0, math.exp(0.5) / 3, -math.exp(-0.5) / 3])


def test_normalised_advantage_ignores_rows_without_weight_and_keeps_a_batch_of_one():
    weight = torch.tensor([1.0, 1.0, 0.0])
    torch.testing.assert_close(normalised(torch.tensor([1.0, 3.0, 50.0]), weight)[:2], torch.tensor([-1.0, 1.0]))
    one = torch.tensor([1.0, 0.0, 0.0])
    assert normalised(torch.tensor([4.0, 3.0, 50.0]), one)[0] == 4.0


def test_moments_merge_exactly_and_reward_scale_is_the_returns_deviation():
    parts = gym.spaces.Dict({"joints": gym.spaces.Box(-9, 9, (3,)), "room": gym.spaces.Discrete(5)})
    x = np.random.default_rng(0).normal(2, 5, (1000, 3)).astype(np.float32)
    observations, valid, room = ObservationScale(ObservationCodec(parts)), np.arange(1000) < 990, np.arange(1000) % 5
    for begin, end in ((0, 1), (1, 10), (10, 500), (500, 1000)):
        rows = slice(begin, end)
        observations.update({"joints": x[rows], "room": room[rows]}, valid[rows])
    scaled = observations({"joints": x, "room": room})
    np.testing.assert_allclose(scaled["joints"], (x - x[valid].mean(0)) / x[valid].std(0), atol=1e-4)
    assert scaled["room"] is room
    reward, no, yes = np.array([[1.0], [2.0], [4.0]]), np.zeros((3, 1), bool), np.ones((3, 1), bool)
    scale = RewardScale(0.5)
    first = scale(reward[:2], no[:2], yes[:2])  # returns 1, 2.5
    np.testing.assert_allclose(first, reward[:2] / np.std([1, 2.5]), rtol=1e-5)
    np.testing.assert_allclose(scale(reward[2:], no[2:], yes[2:]), 4 / np.std([1, 2.5, 5.25]), rtol=1e-5)


def test_reward_scale_forgets_episodes_that_a_reset_dropped():
    scale, no = RewardScale(0.5), np.zeros((2, 1), np.bool_)
    for begins, gathered in ((True, 1.5), (False, 1.875), (True, 1.5)):
        flags = {"terminated": no, "truncated": no, "valid": ~no, "first": np.array([[begins], [False]])}
        scale.rescale(SimpleNamespace(reward=np.ones((2, 1), np.float32), flags=flags))
        assert scale.state_dict()["return"].tolist() == [gathered]


def test_actor_critic_normalisers_are_kept_and_frozen_in_evaluation():
    env = vector(Steps, length=4)
    agent = taught("actor_critic", env, 1_000, normalise_observations=True, normalise_rewards=True)
    state = agent.state_dict()
    assert state["scale"]["moments"][""][2] > 900
    before = copy.deepcopy(state["scale"])
    agent.predict(np.ones((500, 1), np.float32))
    assert same_state(before, agent.state_dict()["scale"])
    other = make_agent("actor_critic", env, seed=5, normalise_observations=True, normalise_rewards=True)
    other.load_state_dict(state)
    assert same_state(other.state_dict(), state)
    assert agent.collector.metrics()["rollout/ep_rew_mean"] > 1.5  # raw


@pytest.mark.parametrize("name", ["actor_critic", "reinforce"])
def test_agent_learns_the_same_in_both_autoreset_modes(name):
    rollouts = []
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        env = vector(Steps, 1, mode, length=4, truncates=True)
        agent = make_agent(name, env, seed=1, **({"rollout_steps": 100} if name == "actor_critic" else {}))
        kept = []

        def learn(rollout, *_, kept=kept):
            kept.append({key: value for key, value in rollout.items() if key not in ("obs", "next_obs")} | rollout["obs"])
            kept[-1] = {key: value.clone() for key, value in kept[-1].items()} | {"next": rollout["next_obs"][""].clone()}
            return {"loss": torch.zeros(())}

        agent.learn = learn
        agent.acting.choose = lambda collector, state, noise: ((collector.obs[""][:, 0] > 0).astype(np.int64), state)
        list(agent.train(env, 40))
        rollouts.append({key: torch.cat([r[key][r["valid"]] for r in kept]) for key in kept[0]})
    assert len(rollouts[0]["reward"]) == 40
    assert rollouts[0]["truncated"].sum() == 10
    assert same_state(*rollouts)


@pytest.mark.parametrize("name", ["actor_critic", "reinforce"])
def test_agent_learns_to_do_what_it_sees(name):
    agent = taught(name, vector(Steps, length=5), 4_000)
    assert agent.predict(np.array([[-1.0], [1.0]]), deterministic=True)[0].tolist() == [0, 1]
    assert agent.collector.metrics()["rollout/ep_rew_mean"] > 4.5


@pytest.mark.parametrize("baseline", ["none", "mean", "value"])
def test_reinforce_learns_with_every_baseline(baseline):
    agent = taught("reinforce", vector(Steps, 2, length=3), 3_000, baseline=baseline)
    assert agent.predict(np.array([[-1.0], [1.0]]), deterministic=True)[0].tolist() == [0, 1]


def test_reinforce_drops_what_is_not_seen_to_its_end_without_a_baseline():
    env = vector(Steps, 2, length=3, truncates=True)
    agent = make_agent("reinforce", env, baseline="none")
    start = agent.parameters.clone()
    with pytest.warns(UserWarning, match="set baseline: value"):
        list(agent.train(env, 500))
    assert torch.equal(start, agent.parameters)


def test_actor_critic_learns_a_gaussian_policy():
    agent = taught("actor_critic", vector(Target), 8_000, learning_rate=3e-3, initial_log_std=-1.0)
    assert agent.predict(np.zeros((1, 1)), deterministic=True)[0].item() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    "config", [{}, {**A2C, "rollout_steps": 1, "gae_lambda": 0.0, "num_envs": 8}], ids=["ppo", "one-step TD"]
)
def test_actor_critic_finds_the_policy_and_values_of_two_states(config):
    env = vector(TwoStates)
    agent = taught("actor_critic", env, 12_000, discount=0.5, **{"learning_rate": DECAY, "normalise_rewards": False, **config})
    assert agent.action_probabilities(np.arange(2)).argmax(axis=1).tolist() == [1, 1]
    value = agent.network({"": torch.tensor([[0, 1]])}, torch.zeros(1, 2, dtype=torch.bool), ())[1]
    torch.testing.assert_close(value, torch.tensor([[1.0, 2.0]]), atol=0.15, rtol=0)  # cut episodes go on in the value


MEMORY = {"recurrent": 16, "hidden_sizes": [16], "rollout_steps": 16, "learning_rate": 5e-3, "minibatches": 1}


def memory_score(config, steps, length=3):
    import mpagents.evaluation
    from mpagents.environments import EnvironmentSpec, make_vector, spaces_of

    spec = EnvironmentSpec("envs:Memory-v0", kwargs={"length": length})
    agent = taught("actor_critic", make_vector(spec, 8), steps, **config)
    spaces = spaces_of(gym.make("envs:Memory-v0", length=length))
    return mpagents.evaluation.evaluate(agent, spec, spaces, episodes=50, seed=1)["mean_reward"]


def test_actor_critic_remembers_with_an_lstm_and_not_without():
    assert memory_score(MEMORY, 12_000) == 1.0
    assert abs(memory_score({**MEMORY, "recurrent": False}, 3_000)) < 0.5


def test_recurrent_predict_carries_its_state_and_forgets_at_episode_starts():
    env = vector(Steps)
    agent = make_agent("actor_critic", env, recurrent=4)
    observation = np.array([[0.3], [-0.2]], np.float32)
    _, fresh = agent.predict(observation)
    _, carried = agent.predict(observation, fresh, np.array([False, False]))
    _, mixed = agent.predict(observation, fresh, np.array([True, False]))
    assert fresh[0].shape == (2, 4)
    assert not np.allclose(carried[0], fresh[0])
    np.testing.assert_allclose(mixed[0], [fresh[0][0], carried[0][1]])


def test_recurrent_learning_runs_over_the_states_that_acted():
    env = vector(Steps, 4, length=5)
    agent = make_agent("actor_critic", env, recurrent=4, rollout_steps=12)
    seen = []
    learn, choose = agent.learn, agent.acting.choose

    def watch(rollout, state):
        states = agent.network(rollout["obs"], rollout["first"], state)[2]
        seen.append((states[0][-1].clone(), agent.state[0]))
        return learn(rollout, state)

    agent.learn = watch
    assert choose
    list(agent.train(env, 96))
    for again, acted in seen[:2]:
        torch.testing.assert_close(again, acted)


@pytest.mark.parametrize(
    ("agent", "env"),
    [
        (
            {
                "name": "actor_critic",
                "num_envs": 3,
                "rollout_steps": 16,
                "minibatches": 3,
                "epochs": 2,
                "normalise_observations": True,
            },
            "CartPole-v1",
        ),
        ({"name": "actor_critic", "num_envs": 2, "rollout_steps": 8, "recurrent": 8, "epochs": 2}, "envs:Memory-v0"),
        ({"name": "actor_critic", "num_envs": 5, **A2C, "rollout_steps": 5}, "envs:TorchCartPole-v1"),
        ({"name": "actor_critic", "num_envs": 2, "rollout_steps": 32, "epochs": 2}, "Pendulum-v1"),
        ({"name": "reinforce", "num_envs": 2, "baseline": "mean"}, "CartPole-v1"),
    ],
    ids=["ppo", "lstm", "fused", "gaussian", "reinforce"],
)
def test_trial_of_policy_gradients_resumes_to_the_bit(tmp_path, agent, env):
    evaluation, checkpoint = {"every": 1_500, "episodes": 3}, {"every": 500, "keep": 9}
    spec = trial(agent, env, steps=3_000, evaluation=evaluation, checkpoint=checkpoint)
    status = run_trial(spec, tmp_path / "whole")
    assert status["status"] == "finished", status["error"]
    interrupt(spec, tmp_path / "cut", 1_200)
    interrupt(spec, tmp_path / "cut", 2_200)
    run_trial(spec, tmp_path / "cut")
    assert rows(tmp_path / "cut" / spec.path) == rows(tmp_path / "whole" / spec.path)
    ours, theirs = (load_latest(tmp_path / root / spec.path / "checkpoint")[1] for root in ("whole", "cut"))
    for key in ("agent", "env"):
        assert same_state(ours[key], theirs[key]), key


@pytest.mark.parametrize("name", ["actor_critic", "reinforce"])
def test_trial_with_a_nan_reward_stops_with_a_clear_error(tmp_path, name):
    status = run_trial(trial({"name": name}, {"id": "tests.test_trial:Nan", "label": "nan"}), tmp_path)
    assert status["status"] == "failed"
    assert "environment 'tests.test_trial:Nan' gave the reward nan" in status["error"]["message"]


@pytest.mark.parametrize("name", ["actor_critic", "reinforce"])
def test_trial_with_a_loss_that_overflows_stops_with_a_clear_error(tmp_path, name):
    status = run_trial(trial({"name": name, "learning_rate": 1e38}, "CartPole-v1"), tmp_path)
    assert status["status"] == "failed"
    assert re.search(r"loss is (nan|inf) at step \d+", status["error"]["message"])


def test_actor_critic_config_refuses_what_cannot_work():
    from mpagents.agents.actor_critic import ActorCritic
    from mpagents.configuration import InvalidInput, validate

    with pytest.raises(InvalidInput, match="epochs is 4 without a clip_ratio"):
        validate(ActorCritic.Config, {"epochs": 4, "clip_ratio": None})
    with pytest.raises(InvalidInput, match="minibatches ≤ num_envs"):
        validate(ActorCritic.Config, {"recurrent": 8, "minibatches": 16})
    with pytest.raises(InvalidInput, match="minibatches is 4 of a rollout of 3 steps; expected at most 3"):
        validate(ActorCritic.Config, {"num_envs": 1, "rollout_steps": 3, "minibatches": 4})
    with pytest.raises(ValueError, match="expected Discrete"):
        make_agent("actor_critic", SyncVectorEnv([lambda: gym.make("Taxi-v4")]), hidden_sizes=[4]).check(
            ActorCritic.Config(), type("S", (), {"observation": gym.spaces.Discrete(2), "action": gym.spaces.MultiBinary(2)})
        )
    assert json.loads(json.dumps(validate(ActorCritic.Config, {"recurrent": 8}).recurrent)) == 8


def test_actor_critic_budget_below_a_rollout_suits_states_that_do_not_count_from_zero():
    class FromThree(TwoStates):
        observation_space = gym.spaces.Discrete(2, start=3)

        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed)[0] + 3, {}

        def step(self, action):
            state, *rest = super().step(action)
            return state + 3, *rest

    agent = taught("actor_critic", vector(FromThree, 2), 10, rollout_steps=32)
    assert torch.isfinite(agent.parameters).all()


@pytest.mark.slow
@pytest.mark.parametrize("config", [A2C | {"rollout_steps": 5}, {"epochs": 2}], ids=["a2c", "ppo"])
def test_actor_critic_compiled_equals_eager(config):
    env = lambda: gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode="vector_entry_point")  # noqa: E731
    eager, fast = (taught("actor_critic", env(), 1_500, **config, compile=use) for use in (False, True))
    torch.testing.assert_close(fast.parameters, eager.parameters, atol=1e-3, rtol=1e-2)


def test_torch_cartpole_steps_as_gymnasiums_and_keeps_its_limit():
    ours = vector_cartpole(2, max_episode_steps=5)
    theirs = gym.make("CartPole-v1").unwrapped
    ours.reset(seed=3)
    theirs.reset(seed=0)
    rng = np.random.default_rng(0)
    state = rng.uniform([-2.3, -2, -0.2, -2], [2.3, 2, 0.2, 2], (200, 4)).astype(np.float32)
    action = rng.integers(2, size=200)
    (after,), reward, terminated = CartPole().step((torch.tensor(state),), torch.tensor(action), torch.zeros(200, 4))
    for i in range(200):
        theirs.state, theirs.steps_beyond_terminated = state[i].astype(np.float64), None
        observation, expected, ended, _, _ = theirs.step(action[i])
        np.testing.assert_allclose(after[i], observation, atol=1e-6, rtol=1e-6)
        assert (reward[i], terminated[i]) == (expected, ended)
    ends = []
    for _ in range(6):
        *_, truncated, infos = ours.step(np.array([0, 1]))
        ends.append(truncated.all())
    assert ends == [False, False, False, False, True, False]
    assert "final_obs" not in infos
    assert np.abs(ours.observe()).max() < 0.5


def test_actor_critic_fused_iteration_learns_what_the_loop_does():
    agents = []
    for fuse in (True, False):
        env = vector_cartpole(4, max_episode_steps=30)
        agent = make_agent("actor_critic", env, **A2C, rollout_steps=8, compile=False)
        if not fuse:
            agent._iterate = lambda env, rollout, agent=agent: agent.learn(loop(agent, env, rollout), ())
        list(agent.train(env, 2_000))
        agents.append(agent)
    assert agents[0].collector.num_episodes > 50
    assert agents[0].collector.metrics() == agents[1].collector.metrics()
    torch.testing.assert_close(*(agent.parameters for agent in agents), atol=1e-5, rtol=1e-4)


def test_actor_critic_fused_iteration_gives_the_environment_scaled_and_clipped_actions():
    class Pays:
        """The action, which is also what is seen."""

        observation, action = ArraySpec(low=(-9.0,), high=(9.0,)), ArraySpec(low=(-1.0,), high=(3.0,))
        noise_shape, max_episode_steps = (1,), 5

        def reset(self, noise):
            return (torch.zeros(len(noise), 1),)

        def step(self, state, action, noise):
            assert ((action >= -1) & (action <= 3)).all()
            return (action,), action[:, 0], torch.zeros(len(action), dtype=torch.bool)

        def observe(self, state):
            return state[0]

    agents = []
    for fuse in (True, False):
        env = TorchVectorEnv(Pays(), 4)
        agent = make_agent("actor_critic", env, **A2C, rollout_steps=8, initial_log_std=1.0, compile=False)
        if not fuse:
            agent._iterate = lambda env, rollout, agent=agent: agent.learn(loop(agent, env, rollout), ())
        list(agent.train(env, 500))
        agents.append(agent)
    assert agents[0].collector.metrics() == agents[1].collector.metrics()
    torch.testing.assert_close(*(agent.parameters for agent in agents), atol=1e-5, rtol=1e-4)
    head = Gaussian(gym.spaces.Box(np.array([-2, -np.inf], np.float32), np.array([4, 1], np.float32)))
    assert head.for_torch(torch.tensor([[0.5, -7.0], [2.0, 2.0]])).tolist() == [[2.5, -7.0], [4.0, 1.0]]


def loop(agent, env, rollout):
    """A rollout step by step through the Gymnasium interface, with the noise that the fused one draws."""
    noise = agent.head.noise(rollout.reward.shape, agent.rng)
    drawn = iter(env.noise(len(noise), 2))
    plain, env.noise = env.noise, lambda *_: next(drawn)
    with torch.inference_mode():
        for t in range(len(noise)):
            rollout.write_observation(t, agent.collector)
            action, _ = agent.acting.choose(agent.collector, (), noise[t])
            rollout.write_transition(t, action, agent.collector.step(agent.head.for_environment(action)))
    env.noise = plain
    return rollout.tensors()


def test_fused_training_resumes_to_the_bit():
    config = A2C | {"rollout_steps": 8, "compile": False, "log_every": 100}
    env = vector_cartpole(4)
    agent = make_agent("actor_critic", env, **config)
    steps = agent.train(env, 2_000)
    while next(steps)[0] < 900:
        pass
    saved, where = copy.deepcopy((agent.state_dict(), env.snapshot()))
    list(steps)
    env = vector_cartpole(4)
    env.restore(where)
    env.restored = True
    other = make_agent("actor_critic", env, seed=9, **config)
    other.load_state_dict(saved)
    list(other.train(env, 2_000))
    assert same_state(other.state_dict(), agent.state_dict())
