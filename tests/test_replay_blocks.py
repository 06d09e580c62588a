"""Checkpoints of a large replay: what hasn't changed isn't written again, and what comes back is what was there."""

from __future__ import annotations

import random

import numpy as np
import pytest

from benchmarks.fault_rows.writes import writes
from mpagents.deep.prioritised import Priorities
from mpagents.deep.replay import Replay
from mpagents.results.checkpoint import load_checkpoint, load_latest, save_checkpoint
from tests.test_dqn import NUMBER, QUICK, transition
from tests.test_trial import check_resumed_to_the_bit, trial


@pytest.mark.parametrize("num_envs", [1, 3])
def test_blocks_hold_the_replay_at_each_checkpoint_and_are_shared(tmp_path, monkeypatch, num_envs):
    monkeypatch.setattr("mpagents.deep.replay_blocks.BLOCK_BYTES", 200)
    rng = np.random.default_rng(num_envs)
    replay = Replay(NUMBER, 60 * num_envs, discount=0.9, priorities=Priorities(0.6))
    previous, shared, begins = None, 0, np.ones(num_envs, np.bool_)
    for step in range(60):
        for _ in range(rng.integers(1, 14)):
            obs, after = rng.random((2, num_envs, 1), np.float32)
            ended = rng.random(num_envs) < 0.2
            valid = begins | (rng.random(num_envs) < 0.9)
            made = transition(after, reward=rng.random(num_envs, np.float32), terminated=ended, valid=valid)
            replay.add({"": obs}, rng.integers(0, 2, num_envs), made, begins)
            begins = np.where(valid, ended, begins)
        path = save_checkpoint(tmp_path, step, replay.state_dict(), keep=1, previous=previous)
        linked = [file for file in path.glob("block.*") if file.stat().st_mtime_ns < (path / "state.json").stat().st_mtime_ns]
        shared, previous = shared + len(linked), step
        other = Replay(NUMBER, 60 * num_envs, discount=0.9, priorities=Priorities(0.6))
        other.load_state_dict(load_checkpoint(path))
        for name, view in replay._arrays().items():
            assert np.array_equal(view, other._arrays()[name]), (step, name)
        if step % 7 == 3:
            replay = other  # go on from what was loaded
    assert shared > 60


def test_blocks_of_two_replays_stay_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("mpagents.deep.replay_blocks.BLOCK_BYTES", 200)
    state = {}
    for name, reward in (("real", 1.0), ("imagined", 2.0)):
        replay = Replay(NUMBER, 60, discount=0.9)
        for t in range(40):
            obs, after = (np.array([[now]], np.float32) for now in (t, t + 1))
            replay.add({"": obs}, np.zeros(1, np.int64), transition(after, reward=reward), np.array([t == 0]))
        state[name] = replay.state_dict()
    loaded = load_checkpoint(save_checkpoint(tmp_path, 1, state, keep=1))
    for name, reward in (("real", 1.0), ("imagined", 2.0)):
        assert loaded[name]["blocks"][0].read()["reward"].min() == reward


def in_blocks(monkeypatch):
    """A trial whose replay takes several blocks."""
    monkeypatch.setattr("mpagents.deep.replay_blocks.BLOCK_BYTES", 2_000)
    agent = {"name": "dqn", **QUICK, "log_every": 100, "replay_size": 300}
    often = {"evaluation": {"every": 300, "episodes": 2}, "checkpoint": {"every": 100, "keep": 2}}
    return trial(agent, "CartPole-v1", steps=600, **often)


def test_trial_with_blocks_resumes_to_the_bit(tmp_path, monkeypatch):
    spec = in_blocks(monkeypatch)
    check_resumed_to_the_bit(spec, tmp_path, (100, 400))
    state = load_latest(tmp_path / "whole" / spec.path / "checkpoint")[1]
    assert len(state["agent"]["replay"]["blocks"]) > 2


@pytest.mark.slow
def test_trial_with_blocks_survives_failing_writes(tmp_path, monkeypatch):
    outcome = writes(60, tmp_path, random.Random(0), in_blocks(monkeypatch))
    assert outcome.sound, outcome.said()
    assert outcome.counts["recovered"] == 60
