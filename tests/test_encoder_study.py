"""Encoders in a study: fitted once and used again, shared by modes, refused with the place; probes; a user's own project."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import generative
import mpagents
import mpagents.trial as trial_module
from mpagents.configuration import InvalidInput
from mpagents.encoder_entry import read_encoder
from mpagents.encoder_specification import EncoderJob, held_back, job_of
from mpagents.encoders import Encoder
from mpagents.probes import linear_probe, mlp_probe, probe
from mpagents.seeding import derive
from mpagents.study import Study
from mpagents.trial import run_trial
from tests.conftest import ROOT

torch.set_num_threads(1)
VAE = {"model": "vae", "latent": 3, "hidden": [8], "fit": {"steps": 30, "log_every": 10}, "data": {"steps": 200, "num_envs": 4}}
CATCH = {"id": "envs:Catch-v0", "label": "catch", "kwargs": {"size": 16}}
DQN = {"name": "dqn", "num_envs": 2, "learning_starts": 40, "log_every": 100}


def study(encoders, **values):
    values = {"envs": [CATCH], "agents": [DQN], "seeds": 1, "steps": 200} | values
    evaluation = {"every": 100, "episodes": 2}
    return Study.from_values({"name": "seen", "encoders": encoders, "evaluation": evaluation, **values})


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """A study with raw observations and one model in two modes, run in this process."""
    out = tmp_path_factory.mktemp("runs")
    asked = study([None, VAE, {**VAE, "mode": "joint"}])
    return asked, out, mpagents.run(asked, out=out, workers=0, show="quiet")


def test_an_encoder_is_fitted_once_for_all_that_use_it_and_used_again(seen):
    _, out, results = seen
    assert results.failed().empty
    assert list(results.trials()["path"]) == ["catch/dqn/seed=0", "catch/dqn+vae/seed=0", "catch/dqn+vae-joint/seed=0"]
    assert set(results.trials()["encoder"]) == {"", "vae", "vae-joint"}
    (folder,) = (out / "seen" / "encoders").iterdir()
    assert re.fullmatch(r"vae-catch-[0-9a-f]{12}", folder.name)
    for path in ("catch/dqn+vae/seed=0", "catch/dqn+vae-joint/seed=0"):
        events = EventAccumulator(str(out / "seen" / path))
        assert "encoder/reconstructions" in events.Reload().Tags()["images"]
    written = (folder / "encoder.safetensors").stat().st_mtime_ns
    assert (folder / "fit/seed=0/pictures/reconstructions.png").is_file()
    more = mpagents.run(study([None, VAE, {**VAE, "mode": "joint"}], seeds=2), out=out, workers=0, show="quiet")
    assert len(more.trials()) == 6 and more.failed().empty
    assert (folder / "encoder.safetensors").stat().st_mtime_ns == written and len(list(folder.parent.iterdir())) == 1


def test_a_world_model_is_learned_of_codes(tmp_path):
    """`imagination` on frames through an encoder: vectors are predicted, by the ensemble."""
    tiny = {"collect_steps": 50, "updates": 2, "dreams": 4, "horizon": 4, "rollouts": 1, "judged_steps": 4}
    results = mpagents.run(study([VAE], agents=[{"name": "imagination", **tiny}]), out=tmp_path, workers=0, show="quiet")
    assert results.failed().empty
    agent = mpagents.load_agent(tmp_path / "seen" / "catch/imagination+vae/seed=0")
    model = agent.agent.world.model
    assert type(model).__name__ == "EnsembleDynamics" and model.config.in_features == 3


@pytest.mark.slow
def test_trials_on_a_cluster_wait_for_the_encoder_that_they_share(tmp_path):
    asked = study([VAE, {**VAE, "mode": "finetune"}], seeds=2)
    results = mpagents.run(asked, out=tmp_path, workers=2, show="quiet")
    assert len(results.trials()) == 4 and results.failed().empty
    here = mpagents.run(asked, out=tmp_path / "here", workers=0, show="quiet")
    files = (next((folder / "seen/encoders").glob("*/encoder.safetensors")) for folder in (tmp_path, tmp_path / "here"))
    one, other = map(load_file, files)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    pd.testing.assert_frame_equal(*(found.frame().filter(regex="^eval/.*rew|^step|seed") for found in (results, here)))


def test_a_fitted_encoder_is_measured_probed_and_embedded(seen):
    _, out, _ = seen
    (folder,) = (out / "seen" / "encoders").iterdir()
    encoder = Encoder.load(folder / "encoder.safetensors")
    columns = recorded(folder / "recording")
    codes = encoder(torch.from_numpy(columns["x"]))[0]
    assert encoder.mode == "frozen"  # how it is used is the trials' business
    assert codes.mean(0).abs().max() < 0.5 and 0.7 < float(codes[:, codes.std(0).argmax()].std()) < 1.4
    (row,) = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {f"probe/{kind}/state_{i}" for kind in ("linear", "mlp") for i in range(3)} == row.keys() - {"step", "time"}
    assert (
        (folder / "projector_config.pbtxt").is_file() and list(folder.rglob("tensors.tsv")) and list(folder.rglob("sprite.png"))
    )
    assert "tensorflow" not in sys.modules


def recorded(folder):
    from generative.recordings import columns, read_manifest

    return {name: np.array(column) for name, column in columns(folder, read_manifest(folder)).items()}


def test_what_is_recorded_is_what_the_agent_will_see(tmp_path):
    stacked = {"id": "envs:PixelCartPole-v0", "kwargs": {"size": 16, "stack": 2}, "label": "pole"}
    entry = {"model": "vae", "latent": 2, "hidden": [4], "size": [8, 8], "fit": {"steps": 0}, "data": {"steps": 40}}
    mpagents.run(study([entry], envs=[stacked], agents=["random"], steps=20), out=tmp_path, workers=0, show="quiet")
    (folder,) = (tmp_path / "seen" / "encoders").iterdir()
    columns = recorded(folder / "recording")
    assert columns["x"].shape == (40, 8, 8, 2) and columns["state"].shape == (40, 4)
    encoder = Encoder.load(
        folder / "encoder.safetensors", **json.loads((folder / "encoder.json").read_text())["encoder"]["settings"]
    )
    env = gym.make_vec("envs:PixelCartPole-v0", num_envs=8, size=16, stack=2, vectorization_mode="vector_entry_point")
    first = env.reset(seed=derive(0, "record", 0))[0]  # as the recording begins
    np.testing.assert_array_equal(encoder.recorded(torch.from_numpy(first)).numpy(), columns["x"][::5])


def test_a_loaded_agent_takes_observations_and_evaluates_as_the_trial_did(seen):
    _, out, _ = seen
    env = gym.make_vec("envs:Catch-v0", num_envs=3, size=16, vectorization_mode="vector_entry_point")
    observation, _ = env.reset(seed=0)
    for label in ("dqn+vae", "dqn+vae-joint"):
        agent = mpagents.load_agent(out / "seen/catch" / label / "seed=0")
        assert agent.predict(observation, deterministic=True)[0].shape == (3,)
    codes = mpagents.load_agent(out / "seen/catch/dqn+vae/seed=0").agent.replay.rings[""]
    frames = mpagents.load_agent(out / "seen/catch/dqn+vae-joint/seed=0").replay.rings[""]
    assert codes.shape[1:] == (3,) and codes.dtype == np.float32 and frames.shape[1:] == (16, 16, 1)
    metrics = (out / "seen/catch/dqn+vae-joint/seed=0/metrics.jsonl").read_text()
    assert "model/loss" in metrics


def test_raw_observations_keep_the_hashes_and_folders_that_they_had():
    values = {"name": "s", "envs": ["FrozenLake-v1"], "agents": ["q_learning"], "seeds": 1}
    (trial,) = Study.from_values(values).trials().trials
    assert trial.hash == "636692f3398c977819fa0ae32af9100c376ae4eaa416e838343f6c41647978c2"
    assert trial.path == "FrozenLake-v1/q_learning/seed=0"


def test_a_job_depends_on_what_is_fitted_not_on_its_use_or_the_checkpoints_place(tmp_path):
    torch.manual_seed(0)
    model = generative.build("vae", shape=(16, 16, 1), latent=2, hidden=(4,))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Encoder(model).save(tmp_path / name / "vae.safetensors")
    entries = [{"checkpoint": str(tmp_path / name / "vae.safetensors"), "label": name} for name in ("a", "b")]
    entries += [VAE, {**VAE, "mode": "finetune", "label": "other"}, {**VAE, "latent": 4, "label": "wide"}]
    trials = study(entries).trials().trials
    jobs = [job_of(trial) for trial in trials]
    assert jobs[0].path == jobs[1].path and jobs[2].path == jobs[3].path != jobs[4].path
    assert len({trial.hash for trial in trials}) == 5
    assert EncoderJob.from_json(json.loads(json.dumps(jobs[2].to_json()))).hash == jobs[2].hash
    ready, held = held_back([jobs[2], *trials])
    assert [spec.path for spec in ready] == [jobs[2].path, trials[0].path, trials[1].path, trials[4].path]
    assert {path: [trial.path for trial in waiting] for path, waiting in held.items()} == {
        jobs[2].path: [trials[2].path, trials[3].path]
    }


def test_a_job_depends_on_what_the_policy_has_learned(tmp_path):
    from mpagents.results.checkpoint import save_checkpoint

    entry = {**VAE, "data": {**VAE["data"], "policy": str(tmp_path)}}
    paths = []
    for step, weight in (10, 1.0), (10, 2.0), (20, 2.0):
        save_checkpoint(tmp_path / "checkpoint", step, {"weight": np.array(weight)}, keep=1)
        paths += [job_of(trial).path for trial in study([entry]).trials().trials] * 2
    assert paths[0] == paths[1] and len(set(paths)) == 3


def test_a_trial_with_an_encoder_resumes_to_the_bit(seen, tmp_path, monkeypatch):
    """Killed between two checkpoints, it ends as one that ran through."""
    _, out, _ = seen
    (trial,) = study([VAE], checkpoint={"every": 50}, agents=[{**DQN, "log_every": 50}]).trials().trials
    ends = []
    for name, kill in (("whole", False), ("killed", True)):
        root = tmp_path / name
        shutil.copytree(out / "seen" / "encoders", root / "encoders")
        if kill:
            saves, save = [], trial_module._Run.save

            def interrupted(run, saves=saves, save=save):
                save(run)
                saves.append(run.progress.step)
                if len(saves) == 2:
                    raise KeyboardInterrupt

            monkeypatch.setattr(trial_module._Run, "save", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run_trial(trial, root)
            monkeypatch.undo()
        assert run_trial(trial, root)["status"] == "finished"
        ends.append((root / trial.path / "checkpoint/step=200/tensors.safetensors").read_bytes())
    assert ends[0] == ends[1]


def test_where_a_fit_fails_its_trials_say_so(tmp_path):
    diverging = {**VAE, "fit": {"steps": 30, "learning_rate": 1e18, "log_every": 1}}
    results = mpagents.run(study([None, diverging]), out=tmp_path, workers=0, show="quiet")
    failed = results.failed()
    assert list(failed["path"]) == ["catch/dqn+vae/seed=0"]
    status = json.loads((tmp_path / "seen/catch/dqn+vae/seed=0/status.json").read_text())
    assert status["error"]["message"].startswith("the encoder vae of catch isn't there: the fit failed: loss is")


def test_a_recurrent_encoder_in_a_study(tmp_path):
    data = {"steps": 300, "num_envs": 2, "length": 8}
    lstm = {"model": "lstm", "head": "gaussian", "hidden": 6, "fit": {"steps": 5}, "data": data}
    agent = {"name": "actor_critic", "num_envs": 2}
    results = mpagents.run(study([lstm], envs=["CartPole-v1"], agents=[agent]), out=tmp_path, workers=0, show="quiet")
    assert results.failed().empty
    player = mpagents.load_agent(results.best())
    _, state = player.predict(np.zeros((2, 4), np.float32), None, np.ones(2, bool))
    assert state[0][0].shape == (2, 1, 6)


def test_what_is_wrong_with_encoders_is_told_with_its_place_all_at_once():
    with pytest.raises(InvalidInput) as caught:
        study(
            [
                {"model": "vea"},
                {"model": "vae", "latnet": 3},
                {"model": "vae", "mode": "forzen"},
                {"label": "nothing"},
                {"model": "vae", "fit": {"stepz": 3}},
                {"checkpoint": "nowhere.safetensors"},
                {**VAE, "data": {"step": 3}},
                {**VAE, "label": "same"},
                {**VAE, "label": "same"},
            ]
        ).trials()
    told = "\n".join(str(problem) for problem in caught.value.problems)
    for line in (
        "encoders.0.model: unknown model 'vea'; did you mean 'vae'?",
        "encoders.1.latnet: unknown key; did you mean 'latent'?",
        "encoders.2.mode: got 'forzen'; expected 'frozen', 'finetune' or 'joint'",
        "encoders.3: expected either model (to be fitted) or checkpoint (a file)",
        "encoders.4.fit: fit: unknown key 'stepz'; did you mean 'steps'?",
        "encoders.6.data.step: unknown key; did you mean 'steps'?",
        "the label 'same' is given to two",
        "nowhere.safetensors is no file",
    ):
        assert line in told, told


def test_models_of_zeros_and_ones_and_of_labels_are_refused_where_they_cannot_serve():
    with pytest.raises(InvalidInput, match=r"encoders\.0: .*expected zeros and ones"):
        study([{"model": "nade", "fit": {"steps": 10}}]).trials()
    with pytest.raises(InvalidInput, match=r"encoders\.0: .*its loss needs more than observations"):
        study([{"model": "cnn", "mode": "joint", "data": {"target": "state"}}]).trials()


def test_a_network_that_tells_the_state_is_an_encoder(tmp_path):
    cnn = {
        "model": "cnn",
        "channels": [4],
        "hidden_sizes": [6],
        "fit": {"steps": 20},
        "data": {"steps": 200, "target": "state"},
    }
    results = mpagents.run(study([cnn]), out=tmp_path, workers=0, show="quiet")
    assert results.failed().empty
    encoder = mpagents.Encoder.load(next(tmp_path.rglob("encoder.safetensors")))
    assert encoder.model.config.head == "gaussian" and encoder.out_features == 6


def test_encoders_that_do_not_fit_an_environment_or_an_agent_are_refused_or_left_out():
    with pytest.raises(
        InvalidInput, match=r"encoders\.0: on FrozenLake-v1: observation space is Discrete.*an encoder takes a Box"
    ):
        study([VAE], envs=["FrozenLake-v1"], agents=["q_learning"]).trials()
    asked = study([None, {**VAE, "mode": "joint"}], agents=[DQN, "random", {"name": "sb3"}], skip_incompatible=True)
    found = asked.trials()
    assert [trial.path for trial in found.trials] == [
        "catch/dqn/seed=0", "catch/dqn+vae-joint/seed=0", "catch/random/seed=0", "catch/sb3/seed=0",
    ]  # fmt: skip
    assert {(pair.agent, pair.reason.partition(";")[0]) for pair in found.skipped} == {
        ("random+vae-joint", "random can't learn an encoder in mode 'joint'"),
        ("sb3+vae-joint", "sb3 can't learn an encoder in mode 'joint'"),
    }


def test_probes_tell_linear_from_non_linear_and_from_nothing():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1_500, 3, generator=generator)
    noise = torch.randn(1_500, 1, generator=generator)
    y = torch.cat([2 * x[:, :1] - 1, x[:, 1:2] ** 2, noise, torch.full((1_500, 1), 10.3)], 1)
    found = probe(x[:1_000], y[:1_000], x[1_000:], y[1_000:])
    linear, mlp = found["linear"], found["mlp"]
    assert linear[0] > 0.999 and linear[1] < 0.1 and linear[2] < 0.1
    assert mlp[0] > 0.99 and mlp[1] > 0.95 and mlp[2] < 0.2
    assert np.isnan(linear[3]) and np.isnan(mlp[3])  # a constant can't be told
    data = x[:1_000], y[:1_000, :1], x[1_000:], y[1_000:, :1]
    scaled = x * torch.tensor([1e-4, 1.0, 1e4]) + 5  # units don't matter
    assert torch.allclose(linear_probe(*data), linear_probe(scaled[:1_000], data[1], scaled[1_000:], data[3]), atol=1e-3)
    assert torch.equal(mlp_probe(*data, steps=20), mlp_probe(*data, steps=20))


@pytest.mark.slow
def test_the_example_of_the_docs_runs_in_a_project_with_envs_of_its_own(tmp_path):
    text = (ROOT / "docs/encoders.md").read_text()
    for name in ("envs/__init__.py", "play.py"):
        (block,) = re.findall(rf"```python\n# {re.escape(name)}\n(.*?)```", text, re.DOTALL)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(block)
    (command,) = re.findall(r"```console\n(mpagents fit .*?)\n", text)
    words = command.replace("2_000", "20").split()[1:]
    subprocess.run([sys.executable, "-m", "mpagents", *words], cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run([sys.executable, "play.py"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("Box(-inf, inf, (2,), float32) [")


def test_a_checkpoint_s_encoder_is_frozen_unless_the_entry_says_otherwise():
    assert read_encoder({"checkpoint": "x.safetensors"}, ()).written.settings["mode"] == "frozen"
    assert read_encoder({"checkpoint": "x.safetensors", "mode": "joint"}, ()).written.settings["mode"] == "joint"
