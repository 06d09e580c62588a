"""Vector environments from a specification: native ones are as good as single ones, snapshots continue to the bit; videos."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace

import gymnasium as gym
import imageio.v2 as imageio
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from mpagents import evaluation
from mpagents.environments import NATIVE_FROM, EnvironmentSpec, capped, examine, make, make_vector
from mpagents.evaluation import evaluate
from mpagents.results.checkpoint import load_checkpoint, save_checkpoint
from mpagents.snapshot import is_begun, is_exact, restore, snapshot
from mpagents.trial import run_trial
from mpagents.video import record
from tests.test_trial import same_state, trial

POLE = EnvironmentSpec("CartPole-v1")


class Constant:
    """Always takes one action."""

    def __init__(self, action):
        self.action = action

    def predict(self, observation, state=None, episode_start=None, deterministic=False, action_masks=None):
        return np.full(len(observation), self.action), state


class Camera(gym.Env):
    """Observes frames and doesn't render; the frame's shade is the step's number."""

    observation_space, action_space = gym.spaces.Box(0, 255, (5, 7), np.uint8), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros((5, 7), np.uint8), {}

    def step(self, action):
        self.t += 1
        return np.full((5, 7), 20 * self.t, np.uint8), 1.0, self.t == 6, False, {}


class Endless(gym.Env):
    """Never ends, pays 1 a step, and can't be seen."""

    observation_space, action_space = gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}


@pytest.mark.parametrize("kwargs", [{}, {"sutton_barto_reward": True}], ids=str)
def test_native_cartpole_is_the_single_one(kwargs):
    spec = EnvironmentSpec("CartPole-v1", kwargs=kwargs, max_episode_steps=25)
    native, singles = make_vector(spec, 8), [make(spec) for _ in range(8)]
    assert not isinstance(native, SyncVectorEnv)
    assert native.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert (native.single_observation_space, native.single_action_space) == (
        make(spec).observation_space,
        make(spec).action_space,
    )
    rng = np.random.default_rng(0)

    def follow(i, observation):
        singles[i].reset()
        assert np.abs(observation[i]).max() <= 0.05
        singles[i].unwrapped.state = native.state[:, i].copy()

    observation, _ = native.reset(seed=1)
    for i in range(8):
        follow(i, observation)
    ended, endings = np.zeros(8, bool), {"terminated": 0, "truncated": 0}
    for _ in range(300):
        action = np.where(np.arange(8) < 4, rng.integers(2, size=8), observation[:, 2] + observation[:, 3] > 0)
        observation, reward, terminated, truncated, _ = native.step(action)
        for i in range(8):
            if ended[i]:
                follow(i, observation)
                assert (reward[i], terminated[i], truncated[i]) == (0, False, False)
            else:
                expected = singles[i].step(int(action[i]))
                assert np.allclose(observation[i], expected[0], atol=1e-6)
                assert (reward[i], terminated[i], truncated[i]) == expected[1:4]
        ended = terminated | truncated
        endings["terminated"] += terminated.sum()
        endings["truncated"] += truncated.sum()
    assert min(endings.values()) > 10


def test_native_cartpole_starts_differ_and_follow_the_seed():
    starts = [make_vector(POLE, 6).reset(seed=seed)[0] for seed in (1, 1, 2)]
    assert np.array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], starts[2])
    assert len(np.unique(starts[0], axis=0)) == 6


@pytest.mark.parametrize(
    ("spec", "num_envs", "native"),
    [
        (POLE, NATIVE_FROM, True),
        (POLE, NATIVE_FROM - 1, False),
        (replace(POLE, native=False), 8, False),
        (replace(POLE, wrappers=("gymnasium.wrappers:FlattenObservation",)), 8, False),
        (EnvironmentSpec("envs:TorchCartPole-v1"), 8, True),
        (EnvironmentSpec("Acrobot-v1"), 8, False),
        (EnvironmentSpec("tests.test_environments:Camera"), 8, False),
        (EnvironmentSpec("envs:RiverSwim-v0"), 8, False),
    ],
)
def test_make_vector_takes_native_ones_where_they_serve(spec, num_envs, native):
    env = make_vector(spec, num_envs)
    assert isinstance(env, SyncVectorEnv) != native
    assert env.num_envs == num_envs
    assert env.single_observation_space == examine(spec)[0].observation


def test_unit_box_scales_finite_bounds_and_keeps_resume_exact():
    spec = EnvironmentSpec("MountainCar-v0", wrappers=("envs.wrappers:unit_box",))
    env = make_vector(spec, 2)
    assert env.single_observation_space == gym.spaces.Box(-1, 1, (2,))
    observation, _ = env.reset(seed=0)
    positions = np.array([single.unwrapped.state[0] for single in env.envs])  # in −1.2 … 0.6
    np.testing.assert_allclose(observation[:, 0], (positions + 0.3) / 0.9, atol=1e-6)
    assert is_exact(env)
    with pytest.raises(ValueError, match="finite bounds"):
        make(replace(spec, id="CartPole-v1"))


def test_make_vector_gives_the_autoreset_mode_asked_for():
    env = make_vector(POLE, 8, AutoresetMode.SAME_STEP)
    assert isinstance(env, SyncVectorEnv)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP


@pytest.mark.parametrize("num_envs", [1, 8])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "tests.test_environments:Endless"])
def test_make_vector_honours_the_limit(env_id, num_envs):
    env = make_vector(EnvironmentSpec(env_id, max_episode_steps=4), num_envs)
    env.reset(seed=0)
    cut = [env.step(np.zeros(num_envs, np.int64))[3].all() for _ in range(9)]
    assert [i for i, all_cut in enumerate(cut, 1) if all_cut] == [4, 9]


@pytest.mark.parametrize(
    ("env_id", "asked", "limit"),
    [("CartPole-v1", None, None), ("CartPole", None, None), ("CartPole-v1", 70_000, 10_000), ("CliffWalking-v1", None, 10_000),
     ("tests.test_environments:Endless", None, 10_000), ("envs:RiverSwim-v0", 9, 9)],
)  # fmt: skip
def test_capped_only_shortens(env_id, asked, limit):
    assert capped(EnvironmentSpec(env_id, max_episode_steps=asked), 10_000).max_episode_steps == limit


def test_evaluation_cuts_endless_episodes_and_says_so(monkeypatch):
    monkeypatch.setattr(evaluation, "EPISODE_LIMIT", 30)
    spec = EnvironmentSpec("tests.test_environments:Endless")
    figures = evaluate(Constant(0), spec, examine(spec)[0], episodes=10, seed=1)
    assert figures == {"mean_reward": 30, "std_reward": 0, "mean_ep_length": 30, "truncated": 1}


def test_evaluation_on_a_native_environment_is_that_on_single_ones():
    """Falling to one side takes 8 to 10 steps, whatever steps the poles."""
    figures = [
        evaluate(Constant(0), spec, examine(spec)[0], episodes=400, seed=1) for spec in (POLE, replace(POLE, native=False))
    ]
    assert figures[0]["mean_reward"] == pytest.approx(figures[1]["mean_reward"], abs=0.2)
    assert figures[0]["std_reward"] == pytest.approx(figures[1]["std_reward"], abs=0.2)


@pytest.mark.parametrize(
    ("spec", "num_envs", "mode"),
    [(POLE, 8, AutoresetMode.NEXT_STEP), (POLE, 2, AutoresetMode.NEXT_STEP), (POLE, 2, AutoresetMode.SAME_STEP),
     (EnvironmentSpec("CartPole-v1", kwargs={"sutton_barto_reward": True}, max_episode_steps=12), 8, AutoresetMode.NEXT_STEP),
     (EnvironmentSpec("Pendulum-v1", max_episode_steps=20), 2, AutoresetMode.SAME_STEP)],
)  # fmt: skip
def test_snapshot_continues_to_the_bit(spec, num_envs, mode, tmp_path):
    env, other = make_vector(spec, num_envs, mode), make_vector(spec, num_envs, mode)
    assert is_exact(env)
    assert not is_begun(env)
    assert snapshot(env) is None
    env.reset(seed=3)
    env.action_space.seed(3)
    actions = [env.action_space.sample() for _ in range(150)]
    for action in actions[:61]:
        env.step(action)
    state = load_checkpoint(save_checkpoint(tmp_path, 1, {"env": snapshot(env)}, keep=1))["env"]
    restore(other, state)
    for action in actions[61:]:
        one, two = env.step(action), other.step(action)
        assert all(np.array_equal(a, b) for a, b in zip(one[:4], two[:4]))
    assert same_state(snapshot(env), snapshot(other))


def test_snapshot_is_taken_once_and_for_all():
    """What the environment does afterwards doesn't reach into it."""
    env = make_vector(POLE, 8)
    env.reset(seed=1)
    state = snapshot(env)
    before = json.dumps(state, default=lambda array: array.tolist())
    for _ in range(20):
        env.step(np.zeros(8, np.int64))
    assert json.dumps(state, default=lambda array: array.tolist()) == before


@pytest.mark.parametrize(
    ("env", "grade"),
    [("FrozenLake-v1", "exact"), ("Blackjack-v1", "exact"), ("tests.test_environments:Numbered", "episode-boundary")],
)
def test_trial_says_how_exactly_it_resumes(env, grade, tmp_path):
    status = run_trial(trial("q_learning", {"id": env, "label": "env"}, steps=2_000), tmp_path)
    assert status["resume"] == grade
    assert json.loads((tmp_path / "env/q_learning/seed=3/status.json").read_text())["resume"] == grade


class Numbered(gym.Env):
    """A user's environment whose state nothing here knows."""

    observation_space, action_space = gym.spaces.Discrete(3), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return 0, {}

    def step(self, action):
        self.t += 1
        return self.t % 3, float(action), self.t == 5, False, {}


@pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="needs mpagents[atari]")
def test_native_atari_observes_stacks_pays_raw_and_keeps_its_mode_to_itself():
    spec = EnvironmentSpec("ALE/Pong-v5", max_episode_steps=30)
    shared = dict(VectorEnv.metadata)
    envs = {mode: make_vector(spec, 2, mode) for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)}
    assert VectorEnv.metadata == shared
    assert examine(spec)[0].observation.shape == (4, 84, 84)
    for mode, env in envs.items():
        assert env.metadata["autoreset_mode"] == mode
        env.reset(seed=0)
        cut = [env.step(np.zeros(2, np.int64))[3].all() for _ in range(31)]
        assert cut.index(True) + 1 <= 30  # no-ops at the start count
        assert not is_exact(env)


def frames(path):
    return [np.asarray(frame) for frame in imageio.get_reader(path)]


@pytest.mark.parametrize("name", ["out.mp4", "out.gif"])
def test_video_has_a_frame_for_every_state(name, tmp_path):
    told = record(Constant(1), POLE, tmp_path / "videos" / name, episodes=2, seed=1)
    assert [8 <= value <= 11 for value in told["returns"]] == [True, True]
    seen = frames(tmp_path / "videos" / name)
    assert told["frames"] == sum(told["returns"]) + 2  # every step's end, and two starts
    # Equal neighbours are one longer frame of a GIF.
    assert len(seen) == told["frames"] if name.endswith("mp4") else told["frames"] - 5 <= len(seen) <= told["frames"]
    assert seen[0].shape[:2] == (400, 600)
    assert not np.array_equal(seen[0], seen[8])
    assert [path.name for path in (tmp_path / "videos").iterdir()] == [name]


def test_video_of_what_the_agent_sees_where_nothing_renders(tmp_path):
    told = record(Constant(1), EnvironmentSpec("tests.test_environments:Camera"), tmp_path / "a.gif", episodes=1, seed=1)
    assert told["returns"] == [6.0]
    assert [int(frame[0, 0, 0]) for frame in frames(tmp_path / "a.gif")] == [0, 20, 40, 60, 80, 100, 120]


@pytest.mark.parametrize(
    ("env_id", "name", "told"),
    [("CartPole-v1", "out.avi", r"\.mp4 or \.gif"), ("tests.test_environments:Endless", "out.mp4", "renders no frames")],
)
def test_video_says_what_it_cannot_do(env_id, name, told, tmp_path):
    with pytest.raises(ValueError, match=told):
        record(Constant(1), EnvironmentSpec(env_id), tmp_path / name, episodes=1, seed=1)
    assert not (tmp_path / name).exists()


def test_evaluate_command_records_a_video(cli, tmp_path):
    spec = trial("q_learning", steps=2_000)
    run_trial(spec, tmp_path)
    done = cli("evaluate", spec.path, "--episodes", 2, "--video", "lake.mp4", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["episodes"] == len(told["video"]["returns"]) == 2
    assert len(frames(tmp_path / "lake.mp4")) == told["video"]["frames"]
    done = cli("evaluate", spec.path, "--video", "lake.txt")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert ".mp4 or .gif" in done.stderr


def test_tabular_trials_import_no_torch(tmp_path):
    """It would cost each worker process 1.7 s."""
    import subprocess

    code = (
        "import sys; from pathlib import Path; from mpagents.study import Study; from mpagents.trial import run_trial\n"
        "values = {'name': 't', 'envs': ['FrozenLake-v1'], 'agents': ['q_learning'], 'seeds': [0], 'steps': 500}\n"
        "(spec,) = Study.from_values(values).trials().trials\n"
        f"assert run_trial(spec, Path({str(tmp_path)!r}))['status'] == 'finished'\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_make_says_how_to_install_what_an_environment_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)  # as where it isn't installed
    with pytest.raises(ValueError, match=r"module 'ale_py' is not installed; pip install 'mpagents\[atari\]'"):
        make(EnvironmentSpec("ale_py:ALE/Pong-v5"))
    with pytest.raises(ValueError, match="module 'no_such_package' is not installed"):
        make(EnvironmentSpec("no_such_package:Thing-v0"))
