"""Ensemble dynamics and dreams: alignment, resets and ends; dreams as environments; the counted MDP as a dream."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import generative
from generative.world.protocol import WorldModel, standard_normal
from generative.world.transitions import transitions
from mpagents.dream import Dream
from mpagents.dream_beside import Beside
from mpagents.python_api import make_agent
from mpagents.recording import RecordingSpec, record
from mpagents.tabular.dream import FiniteDream
from mpagents.tabular.mdp import FiniteMDP
from mpagents.torch_env import ArraySpec, TorchVectorEnv


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def walk(n: int, num_steps: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A point that the action moves by ±0.1: x′ = x + 0.1 a, reward x′; it ends at |x′| > 0.5 and begins anew at once at 0."""
    x, led, ended, rows = torch.zeros(n, 1), torch.zeros(n, 1), torch.ones(n, dtype=torch.bool), []
    for _ in range(num_steps):
        x = torch.where(ended[:, None], 0.0, x + 0.1 * led)
        terminated = (x[:, 0].abs() > 0.45) & ~ended
        reward = torch.where(ended, 0.0, x[:, 0])
        rows.append({"x": x, "action": led, "reward": reward, "terminated": terminated, "first": ended})
        ended = terminated
        led = (2 * torch.randint(2, (n, 1), generator=generator) - 1).float()
        led = torch.where(ended[:, None], 0.0, led)
    return {name: torch.stack([row[name] for row in rows], 1) for name in rows[0]}


class Walk:
    def sample(self, n: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return walk(n, 12, generator)


def build(**config):
    torch.manual_seed(0)
    return generative.build("ensemble_dynamics", **{"in_features": 1, "action_size": 1, "hidden_sizes": (16, 16), **config})


@pytest.fixture(scope="module")
def fitted():
    """An ensemble that has learned the walk."""
    model = build()
    for _ in generative.fit(model, Walk(), steps=300, batch_size=48, learning_rate=1e-2, keep="last", validation=0.0):
        pass
    return model.requires_grad_(False)


def test_protocol_is_kept_and_normal_numbers_come_from_uniform_ones():
    assert isinstance(build(), WorldModel)
    drawn = standard_normal(torch.rand(100_000, generator=seeded()))
    assert drawn.mean().abs() < 0.02 and abs(drawn.std() - 1) < 0.01
    assert standard_normal(torch.tensor([0.0, 1.0])).isfinite().all()


def test_transitions_pair_the_action_that_led_and_drop_resets():
    batch = {
        "x": torch.tensor([[[1.0], [2.0], [9.0], [4.0], [0.0]]]),
        "action": torch.tensor([[[0.0], [0.5], [0.0], [-0.5], [0.0]]]),
        "reward": torch.tensor([[0.0, 7.0, 0.0, 8.0, 0.0]]),
        "terminated": torch.tensor([[False, True, False, False, False]]),
        "first": torch.tensor([[True, False, True, False, False]]),
        "mask": torch.tensor([[True, True, True, True, False]]),
    }
    step = transitions(batch, torch.float32)
    assert step.weight.tolist() == [1, 0, 1, 0]  # the second is an autoreset, the last isn't recorded
    kept = step.weight > 0
    assert step.before[kept].tolist() == [[1], [9]] and step.after[kept].tolist() == [[2], [4]]
    assert step.action[kept].tolist() == [[0.5], [-0.5]] and step.reward[kept].tolist() == [7, 8]


def test_ensemble_learns_the_step_the_reward_and_the_end_of_the_next_state(fitted):
    x = torch.tensor([[-0.4], [-0.2], [0.0], [0.3], [0.4]])
    action = torch.tensor([[-1.0], [1.0], [-1.0], [1.0], [1.0]])
    (after,), reward, end = fitted.imagine((x,), action, torch.rand(5, fitted.num_noise, generator=seeded()), 0.0)
    torch.testing.assert_close(after, x + 0.1 * action, atol=0.02, rtol=0)
    torch.testing.assert_close(reward, (x + 0.1 * action)[:, 0], atol=0.03, rtol=0)
    assert (end > 0.5).tolist() == [True, False, False, False, True]  # 0.4 stands, and only what is reached from it ends


def test_autoreset_rows_teach_nothing(fitted):
    """A model taught with the marks taken away believes in jumps home: the error that dropping these rows avoids."""
    batch = walk(64, 12, seeded(5))
    with torch.no_grad():
        right = fitted.loss(batch, generator=seeded())[1]["squared_error"]
        wrong = fitted.loss(batch | {"first": torch.zeros_like(batch["first"])}, generator=seeded())[1]["squared_error"]
    assert wrong > 20 * right


def test_members_differ_by_the_bootstrap_and_own_members_are_those_of_the_ensemble():
    model, own = build(in_features=2), build(in_features=2, members="own")
    own.load_state_dict(model.state_dict())
    x, action, noise = torch.randn(7, 2), torch.randn(7, 1), torch.rand(7, 3, generator=seeded())
    with torch.no_grad():
        kept = own.imagine((x,), action, noise[:, :2])[0][0]
        for i, member in enumerate([0, 0, 1, 1, 2, 2, 3]):  # runs of ⌈7/5⌉ dreams
            chosen = noise.clone()
            chosen[:, 2] = (member + 0.5) / 5
            torch.testing.assert_close(kept[i], model.imagine((x,), action, chosen)[0][0][i])
    model.loss(walk(1, 3, seeded()) | {"x": torch.randn(1, 3, 2)}, generator=seeded(1))[0].backward()
    gradient = next(model.dynamics.parameters()).grad
    assert not torch.allclose(gradient[0] / gradient[0].norm(), gradient[1] / gradient[1].norm(), atol=1e-2)


def test_a_first_batch_without_a_transition_measures_nothing():
    model = generative.build("ensemble_dynamics", in_features=3, action_size=2).train()
    batch = {"x": torch.randn(4, 2, 3), "action": torch.zeros(4, 2, 2), "reward": torch.zeros(4, 2)}
    batch |= {"terminated": torch.zeros(4, 2, dtype=torch.bool), "first": torch.ones(4, 2, dtype=torch.bool)}
    assert not model.change.measured
    model.loss(batch, generator=torch.Generator().manual_seed(0))
    assert not model.change.measured
    batch["first"][:, 1] = False
    assert model.loss(batch, generator=torch.Generator().manual_seed(0))[0].isfinite()
    assert model.change.measured and model.change.mean.isfinite().all()


def test_observations_are_the_callers_own():
    alone, meddled = (gymnasium.make_vec("envs:TorchCartPole-v1", num_envs=4) for _ in range(2))
    seen = alone.reset(seed=0)[0].copy()
    meddled.reset(seed=0)[0][:] = 9
    for _ in range(5):
        left, seen = meddled.step(np.ones(4, int))[0], alone.step(np.ones(4, int))[0]
        assert np.array_equal(left, seen)
        left[:] = 9


def test_temperature_scales_the_spread_of_a_step():
    model = build(members="own", num_members=1)
    x, noise = torch.zeros(2_000, 1), torch.rand(2_000, 1, generator=seeded())
    with torch.no_grad():
        still, one, two = (model.imagine((x,), x, noise, t)[0][0] for t in (0.0, 1.0, 2.0))
    assert still.std() == 0
    torch.testing.assert_close(two - still, 2 * (one - still))


def test_ensemble_refuses_batches_by_name():
    model, batch = build(), walk(2, 4, seeded())
    for change, message in (
        ({"x": batch["x"][:, :, 0]}, "expected sequences"),
        ({"action": batch["action"].repeat(1, 1, 2)}, "set action_size to its width"),
        ({"x": batch["x"] / 0}, "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            model.loss(batch | change, generator=seeded())
    with pytest.raises(ValueError, match="no reward, terminated"):
        model.loss({name: batch[name] for name in ("x", "action")}, generator=seeded())
    with pytest.raises(ValueError, match="at least 2"):
        model.loss({name: value[:, :1] for name, value in batch.items()}, generator=seeded())


def dream(model, horizon=6, **settings):
    return Dream(model, (torch.tensor([[0.0], [0.4]]),), ArraySpec(low=(-1.0,), high=(1.0,)), horizon=horizon, **settings)


def test_dream_ends_by_the_model_and_is_cut_at_its_horizon_with_the_final_observation(fitted):
    env = TorchVectorEnv(dream(fitted, temperature=0.0), 8)
    obs, _ = env.reset(seed=0)
    assert set(obs[:, 0].tolist()) <= {0.0, np.float32(0.4)}
    for t in range(6):
        before = obs
        obs, _, terminated, truncated, infos = env.step(np.ones((8, 1), np.float32))
        reached = infos.get("final_obs", obs)
        np.testing.assert_allclose(reached, before + 0.1, atol=0.03)
        assert (terminated == (reached[:, 0] > 0.45)).all()
        if t < 5:
            assert not truncated.any()
    idle = TorchVectorEnv(dream(fitted, temperature=0.0), 4)
    idle.reset(seed=0)
    cuts = [idle.step(np.zeros((4, 1), np.float32))[3].all() for _ in range(12)]
    assert cuts == [t % 6 == 5 for t in range(12)]


def test_dream_draws_its_ends_where_asked(fitted):
    class Doubtful:
        num_noise, features = 0, staticmethod(lambda state: state[0])
        observation = features

        @staticmethod
        def imagine(state, action, noise, temperature):
            return state, torch.ones(len(state[0])), torch.full((len(state[0]),), 0.3)

    start = (torch.zeros(1, 2),)
    for ends, share in (("threshold", 0.0), ("draw", 0.3)):
        env = Dream(Doubtful, start, ArraySpec(num=2), horizon=5, ends=ends)
        ended = env.step((torch.zeros(4_000, 2),), torch.zeros(4_000), torch.rand(4_000, 1, generator=seeded()))[2]
        assert ended.float().mean() == pytest.approx(share, abs=0.03)
    with pytest.raises(ValueError, match="starts hold no state"):
        Dream(Doubtful, (torch.zeros(0, 2),), ArraySpec(num=2), horizon=5)
    for wrong, message in (
        ({"ends": "drawn"}, "ends is 'drawn'; expected 'threshold' or 'draw'"),
        ({"observes": "frames"}, "observes is 'frames'; expected 'observation' or 'features'"),
        ({"temperature": -1.0}, "temperature is -1.0; expected 0 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            Dream(Doubtful, start, ArraySpec(num=2), horizon=5, **wrong)


def test_dream_is_one_graph_without_breaks(fitted):
    env, noise = dream(fitted), torch.rand(3, fitted.num_noise + 1, generator=seeded())
    state, action = env.reset(noise), torch.ones(3, 1)
    torch.compiler.reset()
    traced = torch.compile(env.step, backend="eager", fullgraph=True)
    for one, two in zip(traced(state, action, noise)[1:], env.step(state, action, noise)[1:]):
        assert torch.equal(one, two)


SMALL = {"hidden_sizes": [8], "num_envs": 4}
DREAMERS = {
    "dqn": {**SMALL, "learning_starts": 32, "train_every": 16},
    "reinforce": SMALL,
    "actor_critic": {**SMALL, "rollout_steps": 8, "epochs": 1},
    "sb3": {"algorithm": "DQN", "num_envs": 4},
    "imagination": {
        "num_envs": 4,
        "collect_steps": 40,
        "updates": 2,
        "dreams": 4,
        "horizon": 4,
        "rollouts": 1,
        "judged_steps": 4,
    },
    "random": {},
}


@pytest.mark.parametrize("name", DREAMERS)
def test_every_kind_of_agent_trains_in_a_dream_by_the_registry(fitted, name):
    """Two actions, −1 and 1, of the same dream; nothing of the agent is told that it dreams."""

    class Signs(Dream):
        def step(self, state, action, noise):
            after, reward, end = self.model.imagine(state, 2.0 * action[:, None] - 1.0, noise[:, :-1], self.temperature)
            return after, reward, end > 0.5

    env = TorchVectorEnv(Signs(fitted, (torch.zeros(1, 1),), ArraySpec(num=2), horizon=6), 4)
    agent = make_agent(name, env, seed=0, **DREAMERS[name])
    assert [step for step, _ in agent.train(env, 160)][-1] == 160
    assert set(np.ravel(agent.predict(np.zeros((4, 1), np.float32), deterministic=True)[0])) <= {0, 1}


def test_actor_critic_learns_in_a_dream_where_to_go(fitted):
    """The walk pays x′ until it ends at 0.5: what an agent learns in the dream is to go right."""
    env = TorchVectorEnv(dream(fitted, horizon=4), 16)
    agent = make_agent("actor_critic", env, seed=0, rollout_steps=8, log_every=128, compile=False)
    for _ in agent.train(env, 6_000):
        pass
    assert (agent.predict(np.zeros((1, 1), np.float32), deterministic=True)[0] > 0).all()


def test_finite_dream_follows_the_frequencies_of_its_mdp():
    mdp = FiniteMDP.from_arrays(
        [[[0.2, 0.5, 0.3], [0, 0, 1]], [[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 0, 1]]],
        [[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]],
        discount=0.9, initial=[0.75, 0.25, 0.0],
    )  # fmt: skip
    env, n = FiniteDream(mdp, horizon=None), 20_000
    noise = torch.rand(n, 1, generator=seeded())
    assert torch.bincount(env.reset(noise)[0], minlength=3).div(n).tolist() == pytest.approx([0.75, 0.25, 0], abs=0.02)
    (after,), _, _ = env.step((torch.zeros(n, dtype=torch.int64),), torch.zeros(n, dtype=torch.int64), noise)
    assert torch.bincount(after).div(n).tolist() == pytest.approx([0.2, 0.5, 0.3], abs=0.02)
    for temperature, shares in ((0.0, [0, 1, 0]), (0.5, [4 / 38, 25 / 38, 9 / 38])):
        tempered = FiniteDream(mdp, horizon=None, temperature=temperature)
        (after,), _, _ = tempered.step((torch.zeros(n, dtype=torch.int64),), torch.zeros(n, dtype=torch.int64), noise)
        assert torch.bincount(after, minlength=3).div(n).tolist() == pytest.approx(shares, abs=0.02)
    with pytest.raises(ValueError, match="temperature is -1; expected 0 or more"):
        FiniteDream(mdp, horizon=None, temperature=-1)
    edges = torch.tensor([[0.0], [1.0 - 2**-24]])
    for s, a in np.ndindex(3, 2):
        (ends_at,), reward, _ = env.step((torch.full((2,), s),), torch.full((2,), a), edges)
        allowed = np.flatnonzero(mdp.transition_matrix().toarray()[s * 2 + a])
        assert set(ends_at.tolist()) <= set(allowed)
        assert (reward == mdp.expected_reward[s, a]).all()


class Level:
    """A world of frames [2, 3, 1] of one grey level, which is its state: actions add to it, and so does noise."""

    num_noise = 1

    @staticmethod
    def posterior(batch):
        return (batch["x"][..., 0, 0, 0].float(),), batch["mask"]

    @staticmethod
    def imagine(state, action, noise, temperature):
        return (state[0] + action[:, 0] + temperature * noise[:, 0],), action[:, 0], torch.zeros(len(action))

    @staticmethod
    def observation(state):
        return state[0].to(torch.uint8)[:, None, None, None].expand(-1, 2, 3, 1)


def recorded_levels():
    """Three sequences from 10, 20 and 30, of 4, 5 and 2 rows, that rise by twice their actions 1, 2, 3, …"""
    led = torch.arange(5.0).expand(3, 5)
    level = torch.tensor([[10.0], [20.0], [30.0]]) + 2 * led.cumsum(1)
    mask = torch.arange(5) < torch.tensor([[4], [5], [2]])
    x = (level * mask).to(torch.uint8)[..., None, None, None].expand(-1, -1, 2, 3, 1)
    return {"x": x, "action": (led * mask)[..., None], "mask": mask}


def test_recorded_episodes_are_dreamt_again_under_their_own_actions_beside_what_was_real():
    env = Beside(Level, recorded_levels(), ArraySpec(num=4), seen=2)
    state = env.reset(torch.tensor([[0.0], [0.6]]))  # the third sequence is too short
    for row, real, dreamt in ((1, [12, 22], [12, 22]), (2, [16, 26], [14, 24]), (3, [22, 32], [17, 27])):
        picture = env.render(state)
        assert picture.shape == (2, 128, 64 * 7, 3)  # 2 rows, 3 + 1 + 3 columns
        real_part, gap, dreamt_part = picture.split([3 * 64, 64, 3 * 64], dim=2)
        assert (real_part == torch.tensor(real).view(2, 1, 1, 1)).all() and (gap == 128).all()
        assert (dreamt_part == torch.tensor(dreamt).view(2, 1, 1, 1)).all()
        if row < 3:
            state, reward, over = env.step(state, torch.zeros(2), torch.rand(2, 1))
            assert reward.tolist() == [row + 1] * 2 and over.tolist() == [row == 2, False]


def test_recorded_episodes_are_cut_at_the_horizon():
    env = TorchVectorEnv(Beside(Level, recorded_levels(), ArraySpec(num=4), seen=2, horizon=1), 2)
    env.reset(seed=0)
    assert env.step(np.zeros(2, int))[3].all()


def test_beside_refuses_vectors_and_sequences_that_were_seen_whole():
    batch = recorded_levels()
    with pytest.raises(ValueError, match="only frames can be shown"):
        Beside(Level, batch | {"x": batch["x"].float()}, ArraySpec(num=4))
    for seen in (0, 5):
        with pytest.raises(ValueError, match=f"seen is {seen}; expected at least 1 and fewer than the 5 rows"):
            Beside(Level, batch, ArraySpec(num=4), seen=seen)


def test_recorded_episodes_of_frames_are_dreamt_again_by_the_environment_s_id(tmp_path):
    record(RecordingSpec("envs:Catch-v0", steps=120), tmp_path / "catch", show="never")
    torch.manual_seed(0)
    generative.save(generative.build("world_model", shape=(32, 32, 1), action_size=3), tmp_path / "world.safetensors")
    files = {"path": str(tmp_path / "world.safetensors"), "recording": str(tmp_path / "catch")}
    env = gymnasium.make("envs:WorldModel-v0", **files, actions="recorded", seen=3, render_mode="rgb_array")
    env.reset(seed=0)
    steps, over = 0, False
    while not over:
        assert env.render().shape == (128, 4 * 65, 3)
        _, _, over, _, _ = env.step(0)
        steps += 1
    assert steps == 14  # an episode's 17 rows, of which 3 were seen
    with pytest.raises(ValueError, match="expected 'chosen' or 'recorded'"):
        gymnasium.make("envs:WorldModel-v0", **files, actions="real")


def test_trained_model_is_an_environment_by_its_id(tmp_path):
    record(RecordingSpec("CartPole-v1", steps=600), tmp_path / "pole", show="never")
    source = generative.source("recording", folder=str(tmp_path / "pole"), length=8, actions="led")
    model = build(in_features=4, action_size=2)
    for _ in generative.fit(model, source, steps=20, batch_size=32):
        pass
    generative.save(model, tmp_path / "world.safetensors")
    files = {"path": str(tmp_path / "world.safetensors"), "recording": str(tmp_path / "pole")}
    env = gymnasium.make("envs:WorldModel-v0", **files, max_episode_steps=7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(env.unwrapped)
    assert env.action_space == gymnasium.spaces.Discrete(2) and env.observation_space.shape == (4,)
    many = gymnasium.make_vec("envs:WorldModel-v0", num_envs=50, **files, starts="first", max_episode_steps=7)
    obs, _ = many.reset(seed=0)
    assert np.abs(obs).max() <= 0.05  # CartPole's first states
    assert np.abs(TorchVectorEnv(many.unwrapped.torch_env, 9).reset(seed=0)[0]).max() <= 0.05
    with pytest.raises(ValueError, match="expected 'visited' or 'first'"):
        gymnasium.make_vec("envs:WorldModel-v0", num_envs=2, **files, starts="last")
