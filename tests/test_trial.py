"""A trial's results depend on its specification alone, and an interrupted trial ends as if it had never stopped."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mpagents.results.checkpoint import DamagedCheckpoint, load_latest, steps
from mpagents.results.state_tree import Block
from mpagents.study import Study
from mpagents.trained import load_trained
from mpagents.trial import prepare, run_trial, trial_steps

LEARNERS = ["monte_carlo", "td", "sarsa", {"name": "sarsa", "n": 4}, {"name": "sarsa", "trace_decay": 0.9}, "q_learning",
            {"name": "q_learning", "double": True}, "model_based", {"name": "model_based", "planning": "dyna"}]  # fmt: skip
SIMULATED = {"id": "FrozenLake-v1"}
STEPPED = {"id": "FrozenLake-v1", "wrappers": ["gymnasium.wrappers:TransformReward"]}


def trial(agent, env="FrozenLake-v1", **keys):
    values = {"name": "t", "envs": [env], "agents": [agent], "seeds": [3], "steps": 6_000}
    values |= {"evaluation": {"every": 2_000, "episodes": 5}, "checkpoint": {"every": 1_000, "keep": 9}, **keys}
    (spec,) = Study.from_values(values).trials().trials
    return spec


def rows(folder):
    """metrics.jsonl without what the clock decides."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("time")} for line in lines]


def curve(folder, tag="rollout/exploration_rate"):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def same_state(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_state(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same_state(x, y) for x, y in zip(a, b))
    if isinstance(a, Block):
        return a.name == b.name and same_state(dict(a.read()), dict(b.read()))
    return np.array_equal(a, b)


def interrupt(spec, root, after):
    """Run until the agent has taken `after` steps, then stop as a killed process would: nothing more is written."""
    steps = trial_steps(spec, root)
    for step, _ in steps:
        if step >= after:
            break
    del steps


def check_resumed_to_the_bit(spec, tmp_path, cuts):
    """Run it in one go, and cut at these steps: rows and the last checkpoints must be equal. Returns the status."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_trial(spec, whole)["status"] == "finished"
    for after in cuts:
        interrupt(spec, cut, after)
    status = run_trial(spec, cut)
    assert status["status"] == "finished", status["error"]
    assert rows(cut / spec.path) == rows(whole / spec.path)
    ours, theirs = (load_latest(root / spec.path / "checkpoint")[1] for root in (whole, cut))
    for key in ("agent", "env"):
        assert same_state(ours[key], theirs[key]), key
    return status


@pytest.mark.parametrize(
    "env", ["FrozenLake-v1", {"id": "envs:RiverSwim-v0"}, {"id": "CliffWalking-v1", "max_episode_steps": 90}]
)
@pytest.mark.parametrize("agent", LEARNERS, ids=str)
def test_trial_resumes_to_the_bit(tmp_path, agent, env):
    check_resumed_to_the_bit(trial(agent, env), tmp_path, (1_000, 4_000))


@pytest.mark.parametrize("env", ["Blackjack-v1", {"id": "FrozenLake-v1", "wrappers": ["tests.test_trial:stepped"]}])
@pytest.mark.parametrize("agent", ["monte_carlo", "sarsa", "q_learning"])
def test_trial_resumes_to_the_bit_when_it_steps_the_environment(tmp_path, agent, env):
    test_trial_resumes_to_the_bit(tmp_path, agent, env)


def stepped(env):
    """A wrapper that changes nothing, but keeps learners off the compiled simulation."""
    import gymnasium

    return gymnasium.wrappers.TransformReward(env, float)


def test_trial_continues_its_tensorboard_curve(tmp_path):
    spec = trial("q_learning")
    run_trial(spec, tmp_path / "whole")
    interrupt(spec, tmp_path / "cut", 3_000)
    run_trial(spec, tmp_path / "cut")
    assert curve(tmp_path / "cut" / spec.path) == curve(tmp_path / "whole" / spec.path)
    assert [step for step, _ in curve(tmp_path / "whole" / spec.path)] == [1_000, 2_000, 3_000, 4_000, 5_000, 6_000]


def test_trial_writes_hparams_text_and_a_picture_into_the_run_itself(tmp_path):
    spec = trial("q_learning")
    run_trial(spec, tmp_path)
    folder = tmp_path / spec.path
    assert not [path for path in folder.iterdir() if path.is_dir() and path.name != "checkpoint"]
    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()
    assert "eval/values_and_policy" in tags["images"]
    assert "trial" in tags["tensors"]
    assert "_hparams_/session_start_info" in tags["tensors"] or "hparams" in events.summary_metadata.__repr__()


def test_trial_that_raises_is_recorded_with_its_traceback(tmp_path):
    status = run_trial(trial("q_learning", {"id": "tests.test_trial:Broken", "label": "broken"}), tmp_path)
    assert status["status"] == "failed"
    assert "step 7" in status["error"]["message"]
    assert "in step" in status["error"]["traceback"]
    assert json.loads((tmp_path / "broken/q_learning/seed=3/status.json").read_text()) == status


def test_trial_with_a_nan_reward_stops_and_says_so(tmp_path):
    status = run_trial(trial("q_learning", {"id": "tests.test_trial:Nan", "label": "nan"}), tmp_path)
    assert status["status"] == "failed"
    assert "nan" in status["error"]["message"]


def test_trial_best_checkpoint_is_kept_and_judged_on_fresh_seeds(tmp_path):
    spec = trial("q_learning", checkpoint={"every": 1_000, "keep": 1})
    status = run_trial(spec, tmp_path)
    evaluated = {row["step"]: row["eval/mean_reward"] for row in rows(tmp_path / spec.path) if "eval/mean_reward" in row}
    best = status["best"]["step"]
    assert evaluated[best] == max(evaluated.values())
    assert steps(tmp_path / spec.path / "checkpoint") == sorted({best, 6_000})


def test_load_trained_acts_as_the_trial_did(tmp_path):
    spec = trial({"name": "q_learning", "epsilon": 1.0}, steps=50_000)
    status = run_trial(spec, tmp_path)
    _, agent, _ = load_trained(tmp_path / spec.path)
    assert status["final"]["regret"] < 0.05
    actions, _ = agent.predict(np.arange(16), deterministic=True)
    assert actions.shape == (16,)
    assert set(actions) <= set(range(4))
    # The slippery lake's known best actions next to the start and above the goal's row.
    assert actions[0] == 0
    assert actions[14] == 1


def _env(reward):
    import gymnasium
    from gymnasium.spaces import Discrete

    class Env(gymnasium.Env):
        observation_space, action_space = Discrete(3), Discrete(2)

        def __init__(self):
            self.steps = 0

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return 0, {}

        def step(self, action):
            self.steps += 1
            return 1, reward(self.steps), False, self.steps % 5 == 0, {}

    return Env


def _broken(steps):
    if steps == 7:
        raise RuntimeError("the environment breaks at step 7")
    return 0.0


Broken = _env(_broken)
Nan = _env(lambda steps: float("nan"))


def test_trial_refuses_to_continue_on_lost_rows(tmp_path):
    spec = trial("q_learning")
    interrupt(spec, tmp_path, 3_000)
    file = tmp_path / spec.path / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:50])
    status = run_trial(spec, tmp_path)
    assert status["status"] == "failed"
    assert "rows are lost" in status["error"]["message"]


def test_trial_judges_the_last_checkpoint_when_the_best_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr("mpagents.trial.load_checkpoint", lambda path: (_ for _ in ()).throw(DamagedCheckpoint(str(path))))
    status = run_trial(trial({"name": "q_learning", "alpha": 0.9}, "CliffWalking-v1"), tmp_path)
    assert status["status"] == "finished"
    assert status["best"]["step"] == 6_000


def test_trial_honours_the_shortest_of_several_time_limits():
    spec = trial("q_learning", {"id": "FrozenLake-v1", "wrappers": ["tests.test_trial:longer"]})
    assert prepare(spec)[1].max_episode_steps == 100


def longer(env):
    import gymnasium

    return gymnasium.wrappers.TimeLimit(env, 5_000)


def test_load_trained_imports_nothing_that_only_a_results_folder_names(tmp_path, monkeypatch):
    spec = trial("q_learning", "envs:Chain-v0")
    run_trial(spec, tmp_path)
    folder = tmp_path / spec.path
    load_trained(folder)
    (tmp_path / "hostile_module.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    content = (folder / "trial.json").read_text()
    for old, new in (('"name": "q_learning"', '"name": "hostile_module:Agent"'), ("envs:Chain-v0", "hostile_module:Env-v0")):
        (folder / "trial.json").write_text(content.replace(old, new))
        with pytest.raises(ValueError, match="isn't imported"):
            load_trained(folder)
