"""Recordings: which action led to which observation, windows within episodes, files that are whole or refused."""

from __future__ import annotations

import json

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.pixels.catch import draw
from generative import recordings
from generative.recordings import Recording
from mpagents import recording as recording_module
from mpagents import scenes, trained
from mpagents.collecting import Collector, View, is_picture_space, random_policy
from mpagents.configuration import validate
from mpagents.environment_source import EnvironmentSource
from mpagents.environments import EnvironmentSpec
from mpagents.recording import RecordingSpec, parse_size, record
from mpagents.study import Study
from mpagents.trial import run_trial

HERE = "tests.test_recording"
pytestmark = pytest.mark.filterwarnings("ignore:.*share an object")  # Echo's, on purpose


class Echo(gymnasium.Env):
    """Observes (step of the episode, last action or −1, episode), reward 10 · step + action; odd episodes are truncated."""

    observation_space, action_space = Box(-9, 999, (3,), np.float32), Discrete(3, start=2)

    def __init__(self, steps: int = 4, fresh: bool = False) -> None:
        self.steps, self.episode, self.fresh = steps, -1, fresh
        self.seen = np.zeros(3, np.float32)  # one buffer, used again and again

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.seen = self.seen.copy() if self.fresh else self.seen
        self.seen[:] = 0, -1, self.episode
        return self.seen, {}

    def step(self, action):
        assert self.seen[0] < self.steps, "stepped after the end"
        self.seen[:2] = self.seen[0] + 1, action - 2
        ended, cut = self.seen[0] == self.steps, self.episode % 2 == 1
        return self.seen, 10.0 * self.seen[0] + (action - 2), bool(ended and not cut), bool(ended and cut), {}


class Dot(gymnasium.Env):
    """A white line of one pixel on black, 16 × 64; info tells where it is."""

    observation_space, action_space = Box(0, 255, (16, 64, 3), np.uint8), Discrete(2)

    def _seen(self):
        frame = np.zeros((16, 64, 3), np.uint8)
        frame[:, self.column] = 255
        return frame, {"state": np.array([self.column, 7.0])}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.column = 10
        return self._seen()

    def step(self, action):
        self.column += 1
        frame, info = self._seen()
        return frame, 0.0, self.column == 54, False, info


class Forgetful(Dot):
    """Tells where the line is now and then."""

    def step(self, action):
        return *super().step(action)[:4], {"state": np.zeros(2)} if self.column % 2 else {}


class Lonely(Dot):
    """Of all copies only one tells where the line is."""

    copies = 0

    def reset(self, *, seed=None, options=None):
        Lonely.copies += 1
        frame, info = super().reset(seed=seed)
        return frame, info if Lonely.copies == 1 else {}


def last_action_plus_one(observation, rng):
    return 2 + int(observation[1] + 1) % 3


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "cache_folder", lambda: tmp_path / "cache")


def recorded(tmp_path, env=f"{HERE}:Echo", name="r", **settings):
    folder = tmp_path / name
    record(RecordingSpec(env, **{"steps": 60, "num_envs": 3, **settings}), folder, show="quiet")
    return folder


def everything(reading: Recording) -> dict[str, np.ndarray]:
    batch = reading.windows.at(torch.arange(len(reading)))
    return {key: value.numpy() for key, value in batch.items()}


def check_echo(rows):
    """Rows [N] of Echo, in order: what stands beside an observation is what led to it."""
    x, first, ended = rows["x"], rows["first"], rows["terminated"] | rows["truncated"]
    assert (x[:, 0] == 0).tolist() == first.tolist() and first.sum() > 5
    assert (x[:, 0] == 4).tolist() == ended.tolist() and ended.sum() > 5  # the last observation is there, and is the end
    assert np.array_equal(rows["terminated"][ended], x[ended, 2] % 2 == 0)
    assert np.array_equal(rows["action"], x[:, 1])  # −1 where none led there
    assert np.array_equal(rows["reward"], np.where(first, 0, 10 * x[:, 0] + x[:, 1]))
    following = np.flatnonzero(ended)[:-1] + 1
    assert first[following].all()  # nothing between an end and the next beginning


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_rows_hold_the_action_that_led_to_their_observation(mode):
    spec = validate(EnvironmentSpec, {"id": f"{HERE}:Echo", "native": False})
    collector = Collector(spec, View(), random_policy(0), 2, seed=0)
    collector.env, collector.next_step = (
        SyncVectorEnv([lambda: Echo(fresh=True)] * 2, autoreset_mode=mode),
        mode == AutoresetMode.NEXT_STEP,
    )
    streams = [[], []]
    for _ in range(40):
        for stream, new in zip(streams, collector.step()):
            stream += new
    for stream in streams:
        check_echo({key: np.stack([row[key] for row in stream]) for key in stream[0]})
    assert not np.array_equal([row["action"] for row in streams[0]], [row["action"] for row in streams[1]])


def test_recording_gives_what_was_recorded_memory_mapped(tmp_path):
    folder = recorded(tmp_path)
    reading = Recording(str(folder))
    assert len(reading) == 60 and isinstance(reading.windows.columns["x"], np.memmap)
    check_echo({key: np.asarray(value) for key, value in reading.windows.columns.items()})
    batch = reading.sample(500, torch.Generator().manual_seed(0))
    assert batch["x"].dtype == torch.float32 and batch["x"].shape == (500, 3) and batch["action"].shape == (500, 3)
    assert len({tuple(row) for row in batch["x"].tolist()}) > 20


def test_recording_aligns_the_actions_as_it_is_told(tmp_path):
    folder = recorded(tmp_path)
    led, taken = (everything(Recording(str(folder), actions=how)) for how in ("led", "taken"))
    none = led["x"][:, 1] < 0
    assert np.array_equal(led["action"], np.eye(3)[led["x"][:, 1].astype(int)] * ~none[:, None])
    last = led["x"][:, 0] == 4
    for row in range(59):  # the action beside x_t is seen in x_{t+1}; upon an episode's last observation none is taken
        seen = led["x"][row + 1, 1]
        ends = last[row] or led["first"][row + 1]
        assert taken["action"][row].tolist() == ([0, 0, 0] if ends else np.eye(3)[int(seen)].tolist())


def test_sequences_stay_within_an_episode(tmp_path):
    folder = recorded(tmp_path)
    found = everything(Recording(str(folder), length=3))
    assert found["mask"].all() and found["x"].shape == (len(found["x"]), 3, 3)
    assert (np.diff(found["x"][..., 0]) == 1).all() and (np.diff(found["x"][..., 2]) == 0).all()
    assert len(found["x"]) == 3 * 4 * 3  # of each copy's 4 episodes of 5 rows: 3 starts each
    padded = everything(Recording(str(folder), length=7))
    assert len(padded["x"]) == 3 * 4 and (padded["mask"].sum(1) == 5).all() and padded["mask"][:, :5].all()
    assert (padded["x"][:, 5:] == 0).all() and (padded["reward"][:, 5:] == 0).all() and padded["first"][:, 0].all()


def test_crossing_sequences_run_on_but_not_into_another_copy(tmp_path):
    found = everything(Recording(str(recorded(tmp_path)), length=7, crossing=True))
    assert len(found["x"]) == 3 * (20 - 7 + 1) and found["mask"].all()
    steps, episodes = found["x"][..., 0], found["x"][..., 2]
    assert (found["first"] == (steps == 0)).all()
    assert (np.diff(episodes) == found["first"][:, 1:]).all()  # the next episode, and no other
    assert found["first"].any(1).all()


def test_stacks_look_back_within_the_episode_the_oldest_first(tmp_path):
    found = everything(Recording(str(recorded(tmp_path)), stack=3, stride=2))
    steps = found["x"].reshape(60, 3, 3)[..., 0]
    now = steps[:, 2]
    assert np.array_equal(steps, np.stack([np.maximum(now - 4, 0), np.maximum(now - 2, 0), now], 1))


def test_split_holds_out_whole_episodes(tmp_path):
    reading = Recording(str(recorded(tmp_path, steps=300)), length=2)
    rest, held_out = reading.split(0.2, seed=3)
    assert len(rest) + len(held_out) == len(reading) and 0.15 < len(held_out) / len(reading) < 0.3
    episodes = [set(part.begins[part.starts].tolist()) for part in (rest, held_out)]
    assert not episodes[0] & episodes[1]
    single = Recording(str(recorded(tmp_path, name="one", steps=5, num_envs=1)), length=2)
    rest, held_out = single.split(0.5, seed=0)
    assert rest.starts.tolist() == [0] and held_out.starts.tolist() == [2, 3]  # row 1's window would reach into row 2


def test_frames_are_resized_without_aliasing_with_the_state_that_info_offers(tmp_path):
    folder = recorded(tmp_path, f"{HERE}:Dot", view=View((4, 16), grey=True), steps=45, num_envs=1)
    found = everything(Recording(str(folder), target="state"))
    assert found["x"].shape == (45, 4, 16, 1) and found["x"].dtype == np.uint8
    brightness = found["x"].astype(float).sum((1, 2, 3))
    assert brightness.std() / brightness.mean() < 0.02  # a line thinner than a pixel is never lost
    centre = (found["x"].astype(float).sum((1, 3)) * (np.arange(16) + 0.5) * 4).sum(1) / found["x"].sum((1, 2, 3))
    assert np.abs(centre - (found["state"][:, 0] + 0.5)).max() < 0.7  # and its place is read to a part of a pixel
    assert np.array_equal(found["state"], found["target"])
    colour = everything(Recording(str(recorded(tmp_path, f"{HERE}:Dot", name="c", steps=4, num_envs=1))))
    assert colour["x"].shape == (4, 16, 64, 3) and (colour["x"][1, 0, :, 0].nonzero()[0] == [11]).all()


def test_rendered_frames_stand_beside_the_vector_observation(tmp_path):
    folder = recorded(tmp_path, "CartPole-v1", view=View((32, 32)), steps=24, num_envs=2)
    found = everything(Recording(str(folder)))
    assert found["x"].shape == (24, 32, 32, 3) and found["state"].shape == (24, 4)
    vectors = everything(Recording(str(recorded(tmp_path, "CartPole-v1", name="v", steps=24, num_envs=2))))
    assert np.array_equal(found["state"], vectors["x"]) and np.array_equal(found["action"], vectors["action"])


def test_equal_seeds_give_equal_files_and_others_other_ones(tmp_path):
    one, same, other = (recorded(tmp_path, name=name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert (one / "00000.npz").read_bytes() == (same / "00000.npz").read_bytes() != (other / "00000.npz").read_bytes()
    assert (one / "manifest.json").read_bytes() == (same / "manifest.json").read_bytes()


def test_scripted_and_mixed_policies(tmp_path):
    rows = {}
    for epsilon in (0.0, 0.5):
        folder = recorded(tmp_path, name=f"e{epsilon}", policy=f"{HERE}:last_action_plus_one", epsilon=epsilon, steps=600)
        rows[epsilon] = everything(Recording(str(folder)))["x"]
    assert np.array_equal(rows[0.0][:, 1], [[-1, 0, 1, 2, 0][int(step)] for step in rows[0.0][:, 0]])
    scripted = [[-1, 0, 1, 2, 0][int(step)] for step in rows[0.5][:, 0]]
    agreement = np.mean((rows[0.5][:, 1] == scripted)[rows[0.5][:, 0] == 1])
    assert 0.5 < agreement < 0.85  # ½ + ½ · ⅓


def test_trained_policy_acts_as_its_agent(tmp_path):
    values = {"name": "t", "envs": ["FrozenLake-v1"], "agents": ["q_learning"], "seeds": [0], "steps": 20_000}
    (spec,) = Study.from_values(values).trials().trials
    run_trial(spec, tmp_path)
    folder = recorded(tmp_path, "FrozenLake-v1", policy=str(tmp_path / spec.path), steps=200)
    found = everything(Recording(str(folder)))
    acted = found["action"].any(1)
    from mpagents.trained import load_trained

    agent = load_trained(tmp_path / spec.path)[1]
    state = found["x"].argmax(1)
    chosen = agent.predict(state, deterministic=True)[0]
    unique = np.array([len(set(agent.predict(np.full(20, s), deterministic=True)[0])) == 1 for s in range(16)])
    compared = acted & unique[state]
    assert compared.sum() > 100 and (found["action"].argmax(1) == chosen)[compared].all()


def interrupting(observation, rng):
    if observation[2] == 6:
        raise KeyboardInterrupt
    return 2


def test_an_interrupted_recording_keeps_what_it_has_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(recording_module, "SHARD_BYTES", 500)
    folder = tmp_path / "r"
    spec = RecordingSpec(f"{HERE}:Echo", steps=300, num_envs=2, policy=f"{HERE}:interrupting")
    with pytest.raises(KeyboardInterrupt, match=r"interrupted: 62 of 300 rows are kept in .*r"):
        record(spec, folder, show="quiet")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert not manifest["complete"] and manifest["rows"] == 62 and len(manifest["shards"]) > 2
    with pytest.warns(UserWarning, match=r"was interrupted: 62 of 300 rows"):
        check_echo({key: np.asarray(value) for key, value in Recording(str(folder)).windows.columns.items()})
    with pytest.raises(ValueError, match=r"holds a recording of 62 rows; discard it with --fresh"):
        record(spec, folder, show="quiet")
    record(RecordingSpec(f"{HERE}:Echo", steps=4), folder, fresh=True, show="quiet")
    assert len(Recording(str(folder))) == 4 and len(list(folder.glob("*.npz"))) == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="holds other things than a recording"):
        record(spec, tmp_path / "other", fresh=True, show="quiet")
    assert (tmp_path / "other" / "thesis.txt").exists()


def test_damaged_and_foreign_recordings_are_refused(tmp_path):
    folder = recorded(tmp_path)
    manifest, shard = json.loads((folder / "manifest.json").read_text()), (folder / "00000.npz").read_bytes()

    def refused(message, **changes):
        (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))
        with pytest.raises(ValueError, match=message):
            len(Recording(str(folder)))

    (folder / "00000.npz").write_bytes(shard[:-1] + b"x")
    refused("00000.npz is damaged or was altered")
    (folder / "00000.npz").unlink()
    refused("00000.npz is missing")
    np.savez(folder / "00000.npz", x=np.array([{}], object))  # pickled
    digest = recording_module.hashlib.sha256((folder / "00000.npz").read_bytes()).hexdigest()
    refused("is no shard of a recording", shards=[{**manifest["shards"][0], "sha256": digest}])
    refused(r"names the shard '\.\./x'", shards=[{"file": "../x", "sha256": "", "counts": [1]}])
    refused("columns of other things than numbers", columns={"x": {"dtype": "|O", "shape": []}})
    refused("format 9, of a newer version", format=9)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="damaged or no recording's"):
        len(Recording(str(folder)))
    assert not list(recordings.cache_folder().glob("*"))  # nothing half unpacked is left


def test_recording_is_read_from_its_cache_alone_and_a_damaged_cache_is_named(tmp_path):
    folder = recorded(tmp_path)
    before = everything(Recording(str(folder)))
    (folder / "00000.npz").unlink()  # the manifest still says what was in it
    assert np.array_equal(everything(Recording(str(folder)))["x"], before["x"])
    (unpacked,) = recordings.cache_folder().iterdir()
    (unpacked / "x.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"the cached .*x.npy is damaged .*delete"):
        len(Recording(str(folder)))


@pytest.mark.parametrize(
    ("shape", "kept"), [((32, 32, 4), (32, 32, 4)), ((4, 84, 84), (84, 84, 1)), ((84, 84, 12), (84, 84, 12))]
)
def test_all_channels_that_are_last_are_recorded_and_of_stacked_frames_the_newest(shape, kept):
    frame = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    seen = View().picture(frame)
    assert np.array_equal(seen, frame if shape == kept else frame[-1, :, :, None])
    assert View((8, 6)).picture(frame).shape == (8, 6, kept[2])
    assert is_picture_space(gymnasium.spaces.Box(0, 255, shape, np.uint8))


def test_what_cannot_be_recorded_is_refused(tmp_path, monkeypatch):
    agent = type("Agent", (), {"remembers_actions": True})()
    monkeypatch.setattr(trained, "load_trained", lambda *_: (None, agent, None))
    for settings, message in [
        ({"view": View((8, 8))}, "renders no frames"),
        ({"policy": "greedy"}, "policy is 'greedy'; expected random, a trial's folder, or module:function"),
        ({"settings": ("kwargz.steps=3",)}, "unknown key; did you mean 'kwargs'"),
        ({"epsilon": 2.0}, "epsilon 2.0; expected"),
        ({"epsilon": 0.1, "policy": str(tmp_path)}, "reckons with the actions that it took"),
    ]:
        with pytest.raises(ValueError, match=message):
            recorded(tmp_path, **settings)
    with pytest.raises(ValueError, match="an observation's state is there only sometimes, or changes its form"):
        recorded(tmp_path, f"{HERE}:Forgetful", name="f")
    with pytest.raises(ValueError, match="offers `state` sometimes: give it in every reset and step"):
        recorded(tmp_path, f"{HERE}:Lonely", name="l")
    with pytest.raises(ValueError, match="size is '32'; expected height and width"):
        parse_size("32", False)
    with pytest.raises(ValueError, match=r"no 99 rows in a run: expected length at most 20"):
        len(Recording(str(recorded(tmp_path, settings=("kwargs.steps=400",))), length=99, crossing=True))


def test_environment_source_draws_from_what_it_saw_last():
    spec = validate(EnvironmentSpec, {"id": f"{HERE}:Echo", "native": False})
    made = EnvironmentSource(spec, num_envs=2, memory=40, reuse=2.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        batch = made.sample(8, generator)
    assert made.collector.num_steps + 1 == 50 * 8 // (2 * 2)  # each row is drawn twice, on average
    assert batch["x"][:, 2].min() >= (made.collector.num_steps - 20) // 5  # nothing older than 20 rows a copy
    _, held_out = made.split(0.1, 0)
    assert len(held_out) == 40


@pytest.mark.parametrize("env", ["CartPole-v1", "Taxi-v4"])
def test_environment_source_resumes_to_the_bit(env):
    spec = validate(EnvironmentSpec, {"id": env, "native": False})
    whole, other = (EnvironmentSource(spec, num_envs=2, memory=64, seed=1) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        whole.sample(16, generator)
    state, noise = whole.state_dict(), generator.get_state()
    expected = [whole.sample(16, generator) for _ in range(20)]
    other.load_state_dict(state)
    generator.set_state(noise)
    for batch in expected:
        again = other.sample(16, generator)
        assert all(torch.equal(batch[key], again[key]) for key in batch)


def test_minigrid_captions_labels_and_state(tmp_path):
    pytest.importorskip("minigrid")
    env = "minigrid:MiniGrid-BlockedUnlockPickup-v0"
    settings = ("kwargs.highlight=false", "kwargs.tile_size=8")
    folder = recorded(tmp_path, env, steps=60, num_envs=2, view=View((24, 44)), settings=settings, seed=4)
    reading = Recording(str(folder))
    found = everything(reading)
    assert found["label"].shape == (60, 24, 44) and found["state"].shape == (60, 4)
    cells = found["label"].reshape(60, 6, 4, 11, 4)  # 4 pixels a cell
    assert (cells == cells[:, :, :1, :, :1]).all()
    for row in range(60):
        column, line, _, carrying = found["state"][row]
        assert np.argwhere(cells[row, :, 0, :, 0] == scenes.CLASSES.index("agent")).tolist() == [[line, column]]
        types = [scenes.CLASSES[number] for number in np.unique(cells[row])]
        words = reading.caption(found["text"][row]).split()
        assert words[0] == "a" and {words[2], words[-1]} <= {*types, scenes.CLASSES[int(carrying)]}
    wall = found["label"] == scenes.CLASSES.index("wall")
    grey = np.ptp(found["x"].astype(int), 3) == 0
    assert (grey & (found["x"][..., 0] > 60))[wall].mean() > 0.95  # walls are painted grey 100


def test_captions_say_where_one_object_lies_seen_from_the_other():
    things = [("red", "key", 1, 2), ("blue", "door", 4, 3), ("green", "ball", 1, 5)]
    said = {scenes.caption(things, np.random.default_rng(seed)) for seed in range(100)}
    assert said == {
        "a red key left of a blue door", "a blue door right of a red key", "a red key above a green ball",
        "a green ball below a red key", "a blue door right of a green ball", "a green ball left of a blue door",
    }  # fmt: skip
    assert scenes.caption([], np.random.default_rng(0)) == "an empty room"
    for text in said:
        assert " ".join(scenes.VOCABULARY[token] for token in scenes.tokens(text) if token) == text


@pytest.mark.parametrize("num_envs", [2, 6])  # single ones in turn, and a native vector environment that resets within the step
def test_true_states_are_recorded_with_their_frames(tmp_path, num_envs):
    """Catch's ball and bat stand in the frame where the state says, at an episode's last observation too."""
    record(RecordingSpec("envs:Catch-v0", 400, num_envs), tmp_path / "catch", show="quiet")
    rows = Recording(str(tmp_path / "catch"))
    batch = rows.sample(256, torch.Generator().manual_seed(0))
    assert (batch["terminated"] | batch["truncated"]).any() and batch["first"].any()
    assert torch.equal(draw(batch["state"], 32), batch["x"])
