"""Deep Q-learning: targets worked out by hand, the replay's frames and ends, exploration, and answers that are known."""

from __future__ import annotations

import copy
import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from mpagents.agents.agent import Spaces
from mpagents.agents.dqn import DQN
from mpagents.deep import optimisers, targets
from mpagents.deep.collection import Transition
from mpagents.deep.exploration import epsilon_greedy, greedy, random_action
from mpagents.deep.observations import ObservationCodec
from mpagents.deep.prioritised import Priorities
from mpagents.deep.replay import Replay
from mpagents.deep.replay_memory import bytes_per_slot, check_memory
from mpagents.environments import EnvironmentSpec, make_vector
from mpagents.python_api import make_agent
from tests.test_trial import check_resumed_to_the_bit, same_state, trial

NUMBER = ObservationCodec(gym.spaces.Box(-1e9, 1e9, (1,)))
QUICK = {"hidden_sizes": (32,), "learning_starts": 100, "compile": False, "target_every": 50, "replay_size": 5_000}
QUICK |= {"train_every": 1, "n_step": 3}


# Targets


def test_targets_by_hand():
    q = torch.tensor([[1.0, 3.0], [5.0, 2.0]])
    target_q = torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    mask = torch.tensor([[True, False], [True, True]])
    assert targets.max_value(target_q).tolist() == [20, 40]
    assert targets.max_value(target_q, mask).tolist() == [10, 40]
    assert targets.double_value(q, target_q).tolist() == [20, 30]
    assert targets.double_value(q, target_q, mask).tolist() == [10, 30]
    assert targets.double_value(q, target_q, torch.zeros_like(mask)).tolist() == [20, 30]  # all forbidden: nothing is
    y = targets.td_target(torch.tensor([1.0, 2.0]), torch.tensor([0.9, 0.0]), torch.tensor([10.0, 30.0]))
    assert torch.allclose(y, torch.tensor([10.0, 2.0]))
    assert targets.huber(torch.tensor([0.5, -3.0])).tolist() == [0.125, 2.5]
    combined = targets.dueling(torch.tensor([[1.0]]), torch.tensor([[2.0, 4.0]]))
    assert combined.tolist() == [[0.0, 2.0]]


def test_targets_refuse_to_broadcast_and_pass_no_gradient():
    with pytest.raises(AssertionError):
        targets.td_target(torch.zeros(2, 1), torch.zeros(2), torch.zeros(2))
    value = torch.ones(2, requires_grad=True)
    assert not targets.td_target(torch.zeros(2), torch.ones(2), value).requires_grad


# Observations


def test_observations_are_stored_under_any_key_and_rows_first():
    number = gym.spaces.Box(-1, 1, (2,))
    space = gym.spaces.Dict({"joint.speed": number, ".at": gym.spaces.Tuple((number, gym.spaces.Discrete(3, start=1)))})
    codec = ObservationCodec(space)
    x = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    stored = codec.store({"joint.speed": np.asfortranarray(x), ".at": (x + 1, np.array([1, 3]))})
    assert {name: leaf.tolist() for name, leaf in stored.items()} == {
        "joint.speed": [[1, 2], [3, 4]], ".at.0": [[2, 3], [4, 5]], ".at.1": [1, 3],
    }  # fmt: skip
    assert stored["joint.speed"].flags.c_contiguous
    vector, _ = codec.prepare({name: torch.from_numpy(leaf) for name, leaf in stored.items()})
    assert vector.shape == (2, codec.vector_size) == (2, 7)


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((9, 8), (1, 9, 8)),
        ((9, 8, 3), (3, 9, 8)),
        ((4, 9, 8), (4, 9, 8)),
        ((1, 9, 8), (1, 9, 8)),
        ((9, 8, 6), (6, 9, 8)),
        ((2, 9, 8, 3), (6, 9, 8)),
        ((1, 9), None),
        ((9, 1, 3), None),
    ],
)
def test_frames_are_told_from_other_numbers_by_their_shape(shape, seen):
    assert ObservationCodec(gym.spaces.Box(0, 255, shape, np.uint8)).image_shape == seen


def test_collector_loaded_anew_stands_where_the_state_was_taken():
    env = vector(TwoStates, 2)
    collector = trained(env, 100, learning_starts=100).collector
    state = copy.deepcopy(collector.state_dict())
    taken = copy.deepcopy(state)
    for _ in range(2):
        collector.load_state_dict(state)
        assert same_state(collector.state_dict(), taken)
        env.restored = True
        collector.attach(env)
        collector.step(np.ones(2, np.int64))
    assert same_state(state, taken)


# Replay


def transition(next_obs, *, reward=0.0, terminated=False, truncated=False, valid=True):
    n = len(next_obs)
    flags = [np.broadcast_to(np.asarray(flag, bool), n).copy() for flag in (terminated, truncated, valid)]
    return Transition(np.broadcast_to(np.float32(reward), n).copy(), flags[0], flags[1], {"": next_obs}, flags[2])


def numbers_replay(size=100, lengths=(4,), *, n_step=1, ends="terminated", discount=0.5, priorities=None):
    """Episodes of one environment that observe 10·episode + t; rewards are 1, 2, 4, …"""
    replay = Replay(NUMBER, size, discount=discount, n_step=n_step, priorities=priorities)
    for episode, length in enumerate(lengths):
        for t in range(length):
            obs = {"": np.array([[10.0 * episode + t]], np.float32)}
            step = transition(obs[""] + 1, reward=2.0**t, **{ends: t == length - 1})
            replay.add(obs, np.array([t % 2]), step, np.array([t == 0]))
    return replay


def gathered(replay, obs):
    """The batch of the transition that begins at the newest observation of that value."""
    (slot,) = np.flatnonzero((replay.rings[""][:, 0] == obs) & replay.follows)
    return {name: value[0].tolist() for name, value in replay.gather(np.array([slot])).items()}


@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_replay_n_step_stops_at_an_episodes_end_and_bootstraps_after_truncation(ends):
    replay = numbers_replay(lengths=(4, 3), n_step=3, ends=ends)
    whole = gathered(replay, 0)
    assert whole["reward"] == 1 + 0.5 * 2 + 0.25 * 4
    assert whole["next_obs."] == [3]
    assert whole["discount"] == 0.125
    cut = gathered(replay, 2)
    assert cut["reward"] == 4 + 0.5 * 8
    assert cut["next_obs."] == [4]
    assert cut["discount"] == (0.0 if ends == "terminated" else 0.25)


def test_replay_n_step_stops_at_the_write_head():
    replay = Replay(NUMBER, 100, discount=0.5, n_step=3)
    for t in range(2):
        obs = {"": np.array([[float(t)]], np.float32)}
        replay.add(obs, np.zeros(1, np.int64), transition(obs[""] + 1, reward=1.0), np.array([t == 0]))
    newest = gathered(replay, 1)
    assert (newest["reward"], newest["discount"], newest["next_obs."]) == (1.0, 0.5, [2.0])
    assert gathered(replay, 0)["discount"] == 0.25


def test_replay_ring_wraps_with_right_successors_and_never_draws_what_was_overwritten():
    replay = numbers_replay(size=23, lengths=(5,) * 9, n_step=2)
    rng = np.random.default_rng(0)
    batch = replay.gather(replay.draw(2_000, rng))
    obs, next_obs = (batch[name][:, 0].numpy() for name in ("obs.", "next_obs."))
    assert set(np.unique(obs // 10)) <= {5, 6, 7, 8}  # 23 slots hold the last three episodes of 6 slots, and more
    assert np.array_equal(next_obs, np.minimum(obs + 2, obs // 10 * 10 + 5))
    assert len(np.unique(obs)) >= 15
    counts = np.unique(obs, return_counts=True)[1]
    assert counts.min() > 0.6 * counts.mean()  # uniform


def test_replay_resets_never_enter_and_environments_stay_apart():
    replay = Replay(NUMBER, 100, discount=0.9)
    for t in range(12):  # environment 1 resets at t = 5
        obs = {"": np.array([[t], [100 + t]], np.float32)}
        step = transition(obs[""] + 1, truncated=[False, t == 4], valid=[True, t != 5])
        replay.add(obs, np.array([0, 1]), step, np.array([t == 0, t in (0, 6)]))
    batch = replay.gather(replay.draw(1_000, np.random.default_rng(0)))
    seen = set(batch["obs."][:, 0].tolist())
    assert seen == set(range(12)) | {100 + t for t in range(12) if t != 5}
    assert torch.equal(batch["next_obs."], batch["obs."] + 1)
    assert torch.equal(batch["action"], (batch["obs."][:, 0] >= 100).long())


@pytest.mark.parametrize("frame", [(6, 5), (6, 5, 2)])
@pytest.mark.parametrize("padding", ["reset", "zero"])
def test_replay_stacked_frames_are_stored_once_and_come_back(padding, frame):
    space = gym.spaces.Box(0, 255, (3, *frame), np.uint8)
    replay = Replay(ObservationCodec(space), 60, discount=0.9)
    replay.stack, replay.lead = {"": 3}, 2  # three channels are taken for colours, unless told otherwise
    rng, kept = np.random.default_rng(0), {}
    for length in (9, 1, 14, 7, 11, 13, 8):
        frames = rng.integers(0, 256, (length + 1, *frame), dtype=np.uint8)
        before = np.zeros_like(frames[:1]) if padding == "zero" else frames[:1]
        history = np.concatenate([before, before, frames])
        for t in range(length):
            obs, after = history[None, t : t + 3], history[None, t + 1 : t + 4]
            replay.add({"": obs}, np.zeros(1, np.int64), transition(after, truncated=t == length - 1), np.array([t == 0]))
            kept[obs.tobytes()] = after
    assert replay.rings[""].shape == (60, *frame)
    batch = replay.gather(replay.draw(500, rng))
    for obs, after in zip(batch["obs."].numpy(), batch["next_obs."].numpy()):
        assert np.array_equal(kept[obs.tobytes()][0], after)


def test_replay_refuses_stacks_that_do_not_roll():
    codec = ObservationCodec(gym.spaces.Box(0, 255, (4, 6, 5), np.uint8))
    replay, rng = Replay(codec, 60, discount=0.9), np.random.default_rng(0)
    obs, after = rng.integers(0, 256, (2, 1, 4, 6, 5), dtype=np.uint8)
    with pytest.raises(ValueError, match="frame_stack: false"):
        replay.add({"": obs}, np.zeros(1, np.int64), transition(after), np.array([True]))
    whole = Replay(codec, 60, discount=0.9, frame_stack=False)
    whole.add({"": obs}, np.zeros(1, np.int64), transition(after), np.array([True]))
    assert np.array_equal(whole.gather(np.array([0]))["next_obs."].numpy(), after)


def test_replay_keeps_masks_that_are_told_from_the_first_step_on():
    replay = Replay(NUMBER, 20, discount=0.5)
    for t in range(2):
        obs = np.full((1, 1), float(t), np.float32)
        step = transition(obs + 1)._replace(next_mask=np.array([[True, t == 1]]))
        replay.add({"": obs}, np.zeros(1, np.int64), step, np.array([t == 0]), None if t == 0 else np.array([[True, False]]))
    assert replay.gather(np.array([0, 1]))["next_mask"].tolist() == [[True, False], [True, True]]


def test_replay_too_small_for_its_rings_is_refused_before_anything_starts():
    spaces = Spaces(gym.spaces.Box(0, 255, (4, 6, 5), np.uint8), gym.spaces.Discrete(2))
    DQN.check(DQN.Config(replay_size=20, num_envs=2, n_step=5), Spaces(gym.spaces.Discrete(3), gym.spaces.Discrete(2)))
    with pytest.raises(ValueError, match="too small for 2 environments and n_step 5; expected at least 20"):
        DQN.check(DQN.Config(replay_size=19, num_envs=2, n_step=5), spaces)


def test_replay_of_a_million_atari_frames_fits_8_gib_and_what_cannot_fit_is_refused(monkeypatch):
    spaces = Spaces(gym.spaces.Box(0, 255, (4, 84, 84), np.uint8), gym.spaces.Discrete(6))
    slot = bytes_per_slot(ObservationCodec(spaces.observation), True, 6)
    assert 1_000_000 * slot <= 8 * 2**30
    check_memory(1_000_000, slot, 8 * 2**30)
    monkeypatch.setattr("mpagents.agents.dqn.available_memory", lambda: 4 * 2**30)
    with pytest.raises(ValueError, match=r"replay_size 1,000,000 needs 6\.6 GiB .* 4\.0 GiB are available; expected at most"):
        DQN.check(DQN.Config(replay_size=1_000_000), spaces)


def test_replay_state_round_trips_with_priorities():
    def build():
        return numbers_replay(size=23, lengths=(5,) * 9, n_step=2, priorities=Priorities(0.6))

    one, two = build(), Replay(NUMBER, 23, discount=0.5, n_step=2, priorities=Priorities(0.6))
    one.priorities.update(np.flatnonzero(one.follows)[:5], np.arange(5.0))
    two.load_state_dict(one.state_dict())
    assert same_state(one.state_dict(), two.state_dict())
    assert np.array_equal(one.priorities.tree, two.priorities.tree)
    draws = [replay.priorities.draw(64, 0.5, np.random.default_rng(0)) for replay in (one, two)]
    assert same_state(*draws)


def test_priorities_draw_in_proportion_and_weigh_against_it():
    priorities = Priorities(alpha=0.5)
    priorities.allocate(5)
    priorities.add(np.arange(4))
    assert priorities.leaves.tolist() == [1, 1, 1, 1, 0]
    priorities.update(np.array([0, 1, 2]), np.array([4.0, -9.0, 0.25]))
    shares = np.array([2, 3, 0.5, 1, 0]) / 6.5
    slots, weights = priorities.draw(65_000, 0.4, np.random.default_rng(0))
    assert np.allclose(np.bincount(slots, minlength=5) / 65_000, shares, atol=2e-3)
    raw = (4 * shares[slots]) ** -0.4
    assert np.allclose(weights, raw / raw.max(), rtol=1e-5)
    priorities.add(np.array([4]))
    assert priorities.leaves[4] == pytest.approx(3.0)  # a new one at the largest priority
    priorities.remove(np.array([1, 4]))
    assert set(priorities.draw(1_000, 1.0, np.random.default_rng(0))[0]) == {0, 2, 3}
    assert priorities.count == 3


# Exploration, target network, optimisers


def test_epsilon_greedy_masks_hold_greedily_and_at_random():
    q = np.array([[1.0, 9.0, 3.0]] * 4)
    mask = np.array([[True, False, True]] * 4)
    noise = np.linspace(0, 0.999, 4)
    assert set(greedy(q, mask)) == {2}
    assert random_action(noise, 3, mask).tolist() == [0, 0, 2, 2]
    assert random_action(noise, 3).tolist() == [0, 0, 1, 2]
    drawn = epsilon_greedy(q, 0.5, np.stack([[0.1, 0.9, 0.1, 0.9], noise]), 3, mask)
    assert drawn.tolist() == [0, 2, 2, 2]  # each environment explores, or not, on its own


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_optimisers_equal_torchs(name):
    torch.manual_seed(0)
    ours = torch.randn(50)
    theirs = torch.nn.Parameter(ours.clone())
    reference = {
        "adam": lambda: torch.optim.Adam([theirs], lr=0.01),
        "rmsprop": lambda: torch.optim.RMSprop([theirs], lr=0.01, alpha=0.99, eps=1e-5),
    }[name]()
    state = getattr(optimisers, f"{name}_state")(ours)
    for _ in range(100):
        gradient = torch.randn(50)
        theirs.grad = gradient.clone()
        reference.step()
        getattr(optimisers, name)(ours, gradient, state, torch.tensor(0.01))
    assert torch.allclose(ours, theirs, atol=1e-6)


def trained(env, num_steps, seed=0, watch=None, discount=0.99, **config):
    agent = make_agent("dqn", env, seed=seed, discount=discount, **{**QUICK, **config})
    for step, metrics in agent.train(env, num_steps):
        if watch:
            watch(agent, step, metrics)
    return agent


def test_dqn_counts_environment_steps_with_four_environments():
    seen = []
    env = make_vector(EnvironmentSpec("CartPole-v1", label="c"), 4)
    config = {"num_envs": 4, "log_every": 100, "epsilon": {"start": 1.0, "end": 0.0, "fraction": 0.5}, "learning_starts": 800}
    config |= {"target_every": 300, "learning_rate": 0.001}
    before = None

    def watch(agent, step, metrics):
        nonlocal before
        updates = int(agent.moments["step"])
        seen.append((step, metrics["rollout/exploration_rate"], updates, torch.equal(agent.target, before)))
        before = agent.target.clone()

    agent = make_agent("dqn", env, **{**QUICK, **config})
    before = agent.target.clone()
    for step, metrics in agent.train(env, 1_000):
        watch(agent, step, metrics)
    assert 1_000 <= seen[-1][0] < 1_004
    for step, epsilon, updates, same in seen:
        assert epsilon == pytest.approx(max(0.0, 1 - step / 500), abs=0.009)
        assert abs(updates - max(0, step - 800)) <= 4
        assert same == (step // 300 == (step - 100) // 300 or step < 800), step


def test_dqn_polyak_target_follows_by_tau():
    env = make_vector(EnvironmentSpec("CartPole-v1", label="c"), 1)
    agent = make_agent("dqn", env, **{**QUICK, "tau": 0.25, "log_every": 1})
    before = None
    for step, _ in agent.train(env, 130):
        if step > 101:
            assert torch.allclose(agent.target, 0.75 * before + 0.25 * agent.parameters, atol=1e-6)
        before = agent.target.clone()
    assert step == 130


# Environments with known answers


class Identity(gym.Env):
    """Reward 1 for naming the number that is seen; endless, cut every 10 steps. Action 3 is forbidden, and paid 5."""

    observation_space, action_space = gym.spaces.Discrete(3), gym.spaces.Discrete(4)
    taken: set = set()  # noqa: RUF012

    def _seen(self):
        return int(self.np_random.integers(3)), {"action_mask": np.array([1, 1, 1, 0], np.int8)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, (self.number, info) = 0, self._seen()
        return self.number, info

    def step(self, action):
        Identity.taken.add(int(action))
        reward = 5.0 if action == 3 else float(action == self.number)
        self.t += 1
        self.number, info = self._seen()
        return self.number, reward, False, self.t == 10, info


class TwoStates(gym.Env):
    """In state s action a leads to state a and pays s + a; terminates never, is cut every 5 steps. γ = 0.5."""

    observation_space, action_space = gym.spaces.Discrete(2), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.s = 0, int(self.np_random.integers(2))
        return self.s, {}

    def step(self, action):
        reward, self.s, self.t = float(self.s + action), int(action), self.t + 1
        return self.s, reward, False, self.t == 5, {}


def vector(cls, n, mode=AutoresetMode.NEXT_STEP):
    return SyncVectorEnv([cls] * n, autoreset_mode=mode)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP], ids=str)
@pytest.mark.parametrize(
    "config", [{"prioritised": True, "n_step": 1}, {"double": False, "dueling": True, "num_envs": 3}], ids=str
)
def test_dqn_names_what_it_sees_and_never_takes_or_values_a_forbidden_action(mode, config):
    Identity.taken.clear()
    env = vector(Identity, config.get("num_envs", 1), mode)
    agent = trained(env, 700, discount=0.5, learning_rate={"start": 5e-3, "end": 0.0}, **config)
    assert Identity.taken == {0, 1, 2}
    masks = np.tile([True, True, True, False], (3, 1))
    assert agent.predict(np.arange(3), deterministic=True, action_masks=masks)[0].tolist() == [0, 1, 2]
    q = agent.acting.judge(np.arange(3), None)[0]
    assert np.allclose(q[:, :3].max(axis=1), 2.0, atol=0.3)  # 1 + γ + …; more if a forbidden value leaked into targets


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP], ids=str)
def test_dqn_learns_the_values_of_two_states_bootstrapping_after_truncation(mode):
    # Staying in 1 pays 2 for ever: Q*(1, 1) = 2 / (1 − γ) = 4; Q*(0, 1) = 1 + γ 4 = 3; Q*(s, 0) = s + γ Q*(0, 1).
    rate = {"start": 5e-3, "end": 0.0}
    agent = trained(vector(TwoStates, 1, mode), 900, discount=0.5, n_step=1, epsilon=1.0, learning_rate=rate)
    q = agent.acting.judge(np.arange(2), None)[0]
    assert np.allclose(q, [[1.5, 3.0], [2.5, 4.0]], atol=0.1)
    assert agent.predict(np.arange(2), deterministic=True)[0].tolist() == [1, 1]


def test_dqn_probabilities_are_its_policys():
    agent = trained(vector(Identity, 1), 200, epsilon=0.4)
    masks = np.tile([True, True, False, False], (3, 1))
    soft = agent.action_probabilities(np.arange(3), deterministic=False, action_masks=masks)
    hard = agent.action_probabilities(np.arange(3), action_masks=masks)
    assert np.allclose(soft, 0.6 * hard + 0.4 * masks / 2)
    assert np.array_equal(hard.argmax(axis=1), agent.predict(np.arange(3), deterministic=True, action_masks=masks)[0])


def test_dqn_refuses_continuous_actions_with_the_fix():
    spaces = Spaces(gym.spaces.Box(0, 1, (4,)), gym.spaces.Box(-1, 1, (1,)))
    with pytest.raises(ValueError, match=r"Box.*needs Discrete ones \(actor_critic"):
        DQN.check(DQN.Config(), spaces)


def test_dqn_stops_where_the_loss_is_not_finite():
    agent = make_agent("dqn", vector(TwoStates, 1), **{**QUICK, "learning_rate": 1e30, "max_grad_norm": 1e30})
    with pytest.raises(FloatingPointError, match="diverged"):
        for _ in agent.train(vector(TwoStates, 1), 3_000):
            pass


# Compiled, and resumed


@pytest.mark.parametrize(
    "config",
    [pytest.param({}, marks=pytest.mark.slow), {"prioritised": True, "dueling": True, "tau": 0.01, "n_step": 1}],
    ids=["periodic", "all"],
)
def test_dqn_compiled_is_the_eager_one_within_rounding(config):
    """One and the same experience, so that rounding can't lead to other actions."""
    agents = []
    for use in (False, True):
        env = make_vector(EnvironmentSpec("CartPole-v1", label="c"), 1)
        agents.append(trained(env, 220, epsilon=1.0, **{**config, "compile": use}))
    eager, compiled = (agent.state_dict() for agent in agents)
    assert int(compiled["moments"]["step"]) == 120
    for name in ("parameters", "target"):
        assert torch.allclose(eager[name], compiled[name], atol=1e-5)
    assert np.allclose(eager["q"], compiled["q"], atol=1e-4)
    assert not torch.equal(eager["parameters"], eager["target"])


@pytest.mark.parametrize(
    ("env", "config"),
    [
        ("CartPole-v1", {"num_envs": 2, "train_every": 3, "updates": 2}),
        ("CartPole-v1", {"prioritised": True}),
        ("FrozenLake-v1", {}),
    ],
    ids=["two", "prioritised", "lake"],
)
def test_dqn_trial_resumes_to_the_bit(tmp_path, env, config):
    agent = {"name": "dqn", **QUICK, "hidden_sizes": [32], "log_every": 100, **config}
    spec = trial(agent, env, steps=600, evaluation={"every": 300, "episodes": 2}, checkpoint={"every": 100, "keep": 9})
    check_resumed_to_the_bit(spec, tmp_path, (100, 400))


def test_dqn_learns_from_dict_observations_with_stacked_frames():
    class Both(gym.Env):
        observation_space = gym.spaces.Dict(
            {"camera": gym.spaces.Box(0, 255, (4, 12, 12), np.uint8), "speed": gym.spaces.Box(-1, 1, (2,))}
        )
        action_space = gym.spaces.Discrete(2, start=3)

        def _seen(self):
            return {"camera": np.stack(self.frames[-4:]), "speed": self.np_random.random(2, np.float32)}

        def _frame(self):
            return self.np_random.integers(0, 256, (12, 12), dtype=np.uint8)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.frames = [self._frame() for _ in range(4)]
            return self._seen(), {}

        def step(self, action):
            assert action in (3, 4)
            self.frames.append(self._frame())
            return self._seen(), 1.0, False, len(self.frames) == 11, {}

    agent = trained(vector(Both, 2, AutoresetMode.SAME_STEP), 130, num_envs=2, batch_size=8)
    assert agent.replay.rings["camera"].shape[1:] == (12, 12)
    assert int(agent.moments["step"]) == 30
    assert torch.isfinite(agent.parameters).all()


def test_dqn_defaults_are_the_published_ones_where_they_matter():
    config = dataclasses.asdict(DQN.Config())
    assert config["max_grad_norm"] == 10
    assert config["huber"]
