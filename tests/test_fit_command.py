"""`mpagents record`, `mpagents fit` and `mpagents list models`, and a training's folder: it continues, and refuses others."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import generative
from generative import recordings
from generative.model import GenerativeModel
from mpagents import fitting, listing
from mpagents.configuration import InvalidInput
from mpagents.fit_source import open_source, shapes, told_by_data
from mpagents.fit_specification import FitSpec, specify
from mpagents.fitting import check_folder, fit_all, fit_model, fit_steps
from mpagents.recording import RecordingSpec, record
from tests.conftest import ROOT
from tests.test_trial import rows

NORMAL = "tests.test_fit_command:Normal"


@dataclasses.dataclass(frozen=True)
class NormalConfig:
    dimensions: int
    lost_from: float = 1e9  # a mean from which the loss is NaN


class Normal(GenerativeModel):
    """N(μ, 1) over vectors within [0, 1] or anywhere."""

    Config = NormalConfig

    def __init__(self, config: NormalConfig) -> None:
        super().__init__(config)
        self.mean = nn.Parameter(torch.randn(config.dimensions))

    def loss(self, batch, player="model", *, generator):
        x = batch["x"]
        if x.ndim != 2:
            raise ValueError(f"x is {list(x.shape)}; expected vectors")
        loss = 0.5 * (x + 0.1 * torch.randn(x.shape, generator=generator) - self.mean).square().sum(1).mean()
        return torch.where(self.mean.abs().max() > self.config.lost_from, torch.nan, loss), {}

    def sample(self, n, cond=None, *, generator):
        return self.mean + torch.randn(n, self.config.dimensions, generator=generator)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "cache_folder", lambda: tmp_path / "cache")


def spec(source="digits", model=NORMAL, config=None, source_config=None, **settings):
    settings = {"steps": 200, "log_every": 10, "learning_rate": 0.05, "device": "cpu", **settings}
    return specify(model, source, config=config or {}, source_config=source_config or {}, settings=settings, label="t")


def interrupt(made, root, after):
    """As a killed process: nothing more is written."""
    for step, _ in fit_steps(made, root):
        if step >= after:
            break


@pytest.mark.parametrize("source", ["digits", "env:CartPole-v1"])
def test_a_training_continues_to_the_bit_where_it_was_interrupted(tmp_path, source, monkeypatch):
    live = {"num_envs": 4, "memory": 256}
    made = spec(source, source_config={} if source == "digits" else live, steps=80, ema=0.95)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    path = fit_model(made, whole)
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", 0.0)
    for after in (20, 50):
        interrupt(made, cut, after)
    continued = fit_model(made.to_json(), cut)  # as a Ray task would call it
    assert torch.equal(*(generative.load(file, trust=True).mean for file in (continued, path)))
    assert rows(cut / made.path) == rows(whole / made.path)
    events = EventAccumulator(str(cut / made.path))
    events.Reload()
    seen = [event.step for event in events.Scalars("model/loss")]
    assert seen == sorted({row["step"] for row in rows(cut / made.path)})  # neither gaps nor doubles


def test_a_training_leaves_models_pictures_and_figures(tmp_path):
    path = fit_model(spec(), tmp_path)
    folder = path.parent
    best, last = generative.load(path, trust=True), generative.load(folder / "last.safetensors", trust=True)
    assert isinstance(best, Normal) and best.mean.shape == last.mean.shape == (64,)
    status = json.loads((folder / "status.json").read_text())
    logged = [row["model/validation/loss"] for row in rows(folder) if "model/validation/loss" in row]
    assert path.name == "best.safetensors" and status["best"]["validation/loss"] == min(logged) and len(logged) == 10
    with Image.open(folder / "pictures" / "samples.png") as picture:
        pixels = np.asarray(picture)
    events = EventAccumulator(str(folder))
    events.Reload()
    assert "model/samples" in events.Tags()["images"] and min(pixels.shape[:2]) >= 64
    assert {"model/loss", "model/validation/loss", "model/learning_rate", "time/steps_per_second"} <= set(
        events.Tags()["scalars"]
    )


def test_a_changed_training_is_refused_with_the_difference_and_fresh_discards(tmp_path):
    fit_all([spec()], tmp_path, show="quiet")
    before = (tmp_path / "t/seed=0/metrics.jsonl").read_bytes()
    assert fit_all([spec()], tmp_path, show="quiet")[0]["status"] == "finished"
    assert (tmp_path / "t/seed=0/metrics.jsonl").read_bytes() == before  # nothing was done again
    changed = spec(learning_rate=0.01)
    with pytest.raises(InvalidInput, match=r"t/seed=0: .*settings.learning_rate was 0.05, is now 0.01\n.*--fresh"):
        fit_all([changed], tmp_path, show="quiet")
    fit_all([changed], tmp_path, fresh=True, show="quiet")
    assert json.loads((tmp_path / "t/seed=0/fit.json").read_text())["settings"]["learning_rate"] == 0.01
    assert check_folder(changed, tmp_path)["status"] == "finished"


def test_a_training_that_is_lost_fails_and_leaves_its_last_good_weights(tmp_path):
    made = spec(config={"lost_from": 5.0}, learning_rate=1.0, decay="none", optimiser="sgd", max_grad_norm=None)
    worse = dataclasses.replace(made, settings={**made.settings, "learning_rate": 3.0})  # diverges: |1 − η| > 1
    with pytest.raises(RuntimeError, match=r"t/seed=0: loss is nan by step \d+: lower learning_rate"):
        fit_model(worse, tmp_path)
    kept = generative.load(tmp_path / "t/seed=0/last.safetensors", trust=True)
    assert kept.mean.abs().max() <= 5.0
    status = json.loads((tmp_path / "t/seed=0/status.json").read_text())
    assert status["status"] == "failed" and status["error"]["type"] == "FloatingPointError"


def test_seeds_differ_and_a_recordings_content_counts_not_its_place(tmp_path):
    settings = {"steps": 20, "num_envs": 2}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        record(RecordingSpec("CartPole-v1", seed=seed, **settings), tmp_path / name, show="quiet")
    one, same, other = (spec(str(tmp_path / name), steps=5) for name in "abc")
    assert one.hash == same.hash != other.hash
    models = [fit_model(dataclasses.replace(one, seed=seed), tmp_path) for seed in (0, 1)]
    starts = [generative.load(path, trust=True).mean for path in models]
    assert not torch.equal(*starts)
    assert FitSpec.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_what_the_user_has_wrong_is_refused_before_anything_starts():
    for arguments, message in [
        ({"source": "digit"}, r"unknown source 'digit'; did you mean 'digits'\?; expected a folder .*, env:ID, or"),
        ({"model": "vea"}, "unknown model 'vea'; did you mean 'vae'"),
        ({"config": {"dimension": 3}}, "unknown key 'dimension'; did you mean 'dimensions'"),
        ({"source_config": {"level": 2}}, "source 'digits': unknown key 'level'; did you mean 'levels'"),
        ({"step": 3}, "fit: unknown key 'step'; did you mean 'steps'"),
        ({"seed": 3}, "fit.seed: seeds are counted by --seeds"),
        ({"source_config": {"frames": True}, "config": {"dimensions": 64}}, r"x is \[128, 8, 8, 1\]; expected vectors"),
        ({"source": "env:CartPole-v1", "source_config": {"lenght": 3}}, "unknown key 'lenght'; did you mean 'length'"),
        ({"source": "env:CartPol-v1"}, "environment 'CartPol-v1': "),
        (
            {"model": "ensemble_dynamics", "source": "env:CartPole-v1", "source_config": {"length": 8}},
            "set --source actions=led",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            spec(**arguments)


def test_the_data_tell_a_models_shapes_levels_and_classes(tmp_path):
    def fields(*names):
        return dataclasses.make_dataclass("C", [(name, int) for name in names])

    digits, frames = open_source("digits", {}), open_source("digits", {"frames": True, "levels": 17})
    assert told_by_data(fields("shape", "levels", "num_classes"), {}, frames) == {
        "shape": (8, 8, 1), "levels": 17, "num_classes": 10,
    }  # fmt: skip
    assert told_by_data(fields("height", "width", "channels"), {}, frames) == {"height": 8, "width": 8, "channels": 1}
    assert told_by_data(fields("channels"), {}, frames) == {}  # of convolutions: no matter of the data
    assert told_by_data(fields("dimensions", "hidden"), {"dimensions": 3}, digits) == {}
    system = open_source("linear_dynamical_system", {"controls": [[0.5], [-1.0]], "num_steps": 6})
    told = told_by_data(fields("in_features", "num_steps", "condition_size"), {"condition": "action"}, system)
    assert told["num_steps"] == 6 and told["condition_size"] == 1
    live = open_source("env:CartPole-v1", {"length": 3, "num_envs": 2})
    assert told_by_data(fields("in_features", "action_size"), {}, live) == {"in_features": 4, "action_size": 2}
    assert told_by_data(fields("size", "num_steps", "vectors"), {}, live) == {"size": 4, "num_steps": 3, "vectors": False}
    assert told_by_data(fields("shape", "num_steps"), {}, live) == {"shape": (4,)}  # a diffusion's steps are its own
    assert shapes(torch.zeros(2, 5, 8, 8, 3), None)["shape"] == (8, 8, 3)


def test_folder_of_images_is_a_source_with_its_subfolders_as_labels(tmp_path):
    shades = {"cat/a.png": 10, "cat/b.jpg": 20, "dog/c.png": 250}
    for name, shade in shades.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 6, 3), shade, np.uint8)).save(tmp_path / name)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    found = open_source(str(tmp_path), {"grey": True, "size": [4, 3]})
    assert found.columns["x"].shape == (3, 4, 3, 1) and found.columns["x"].dtype == np.uint8
    assert found.columns["x"][:, 0, 0, 0].tolist() == pytest.approx([10, 20, 250], abs=2)
    assert found.columns["label"].tolist() == [0, 0, 1]
    Image.new("RGB", (6, 9)).save(tmp_path / "dog" / "d.png")
    with pytest.raises(ValueError, match=r"different sizes .* --source size="):
        open_source(str(tmp_path), {})
    (tmp_path / "dog" / "d.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"d.png can't be read as an image"):
        open_source(str(tmp_path), {})


def test_list_models_imports_none_and_has_their_settings():
    code = "import sys; from mpagents.listing import models; models(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    found = {row["name"]: row for row in listing.models()}
    assert found.keys() == generative.MODELS.keys()
    assert any(setting.startswith("latent: int = 8  #") for setting in found["vae"]["settings"])
    assert any(setting.startswith("in_features: int") for setting in found["vrnn"]["settings"])  # inherited
    assert listing._model("generative.nowhere", "X") == {"about": "not here: generative.nowhere has no file"}


def test_list_agents_says_what_the_settings_mean():
    plain = ("activation: ", "compile: ", "device: ")
    for row in listing.agents():
        if row["name"] in ("dqn", "reinforce", "actor_critic", "imagination"):
            told = [setting for setting in row["settings"] if not setting.startswith(plain)]
            assert [setting for setting in told if "  # " not in setting] == []


def test_record_then_fit_then_load_from_the_command_line(cli, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "xdg")}
    done = cli("record", "CartPole-v1", "--steps", 200, "--size", "12x16", "--grey", "--json", env=environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["folder"] == "recordings/CartPole-v1" and told["columns"]["x"]["shape"] == [12, 16, 1]
    arguments = ["fit", "vae", "recordings/CartPole-v1", "--steps", 20, "--set", "latent=3", "--set", "hidden=[16]", "--json"]
    done = cli(*arguments, "--fit", "validate_every=10", env=environment)
    assert done.returncode == 0, done.stderr
    (training,) = json.loads(done.stdout)["trainings"]
    assert training["folder"] == "runs/fit/vae-CartPole-v1/seed=0" and training["steps"] == 20
    model = generative.load(tmp_path / training["folder"] / training["model"])
    frames = recordings.Recording(str(tmp_path / "recordings/CartPole-v1")).sample(5, torch.Generator())["x"]
    assert model.encode(frames).shape == (5, 3)
    assert model.sample(2, generator=torch.Generator()).shape == (2, 12, 16, 1)
    wrong = cli("fit", "vae", "recordings/CartPole-v2", env=environment)
    assert wrong.returncode == 2 and wrong.stderr.startswith("unknown source 'recordings/CartPole-v2'")


@pytest.mark.slow
def test_a_killed_fit_continues_by_the_same_command(tmp_path):
    code = "import mpagents.fitting as fitting, mpagents.cli as cli; fitting.CHECKPOINT_SECONDS = 0.3; cli.main()"
    command = [sys.executable, "-c", code, "fit", NORMAL, "digits", "--steps", "3000", "--fit", "log_every=50"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def started(out):
        return subprocess.Popen([*command, "--out", str(out)], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)

    assert started("whole").wait() == 0
    process = started("cut")
    folder = tmp_path / "cut/fit/Normal-digits/seed=0"
    while not list(folder.glob("checkpoint/step=*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads((folder / "status.json").read_text())["status"] == "running"
    assert started("cut").wait() == 0
    whole = tmp_path / "whole/fit/Normal-digits/seed=0"
    assert rows(folder) == rows(whole)
    ours, theirs = (generative.load(root / "best.safetensors", trust=True) for root in (folder, whole))
    assert torch.equal(ours.mean, theirs.mean)


def test_seeds_trained_on_ray_are_those_trained_here(cli, tmp_path):
    command = ("fit", "made", "digits", "--steps", "30", "--seeds", "2", "--fit", "log_every=10")
    made = specify("made", "digits", config={}, source_config={}, settings={"steps": 30, "log_every": 10})
    fit_all([dataclasses.replace(made, seed=seed) for seed in (0, 1)], tmp_path / "here/fit", show="quiet")
    assert cli(*command, "--out", str(tmp_path / "ray"), "--workers", "2").returncode == 0
    for seed in (0, 1):
        folders = [tmp_path / out / "fit" / "made-digits" / f"seed={seed}" for out in ("here", "ray")]
        here, ray = (generative.load(folder / "best.safetensors").state_dict() for folder in folders)
        assert all(torch.equal(here[name], ray[name]) for name in here)
        assert [row["model/loss"] for row in rows(folders[0])] == [row["model/loss"] for row in rows(folders[1])]
