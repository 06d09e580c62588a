"""The trainer of generative models: its arithmetic by hand, exact resume, early stopping, what is kept, and its pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

import generative
from generative.averaging import Average
from generative.data import Rows, as_source
from generative.fit_settings import FitConfig, learning_rate, to_compile
from generative.model import GenerativeModel
from generative.pictures import grid, is_pictorial, pictures, traversals
from mpagents.results.checkpoint import load_latest, save_checkpoint
from tests.test_trial import same_state

PLAIN = {"optimiser": "sgd", "decay": "none", "validation": 0.0, "device": "cpu", "log_every": 1, "batch_size": 4}


@dataclass(frozen=True)
class CentreConfig:
    dimensions: int = 1
    noise: float = 0.0  # of the loss, so that the generator's state matters
    lost_from: float = math.inf  # a centre from which the loss is NaN


class Centre(GenerativeModel):
    """½|x − w|², w = 0 before training: SGD with rate η takes w to w + η (mean(x) − w)."""

    Config = CentreConfig

    def __init__(self, config: CentreConfig) -> None:
        super().__init__(config)
        self.w = nn.Parameter(torch.zeros(config.dimensions))

    def loss(self, batch, player="model", *, generator):
        x = batch["x"] + self.config.noise * torch.randn(batch["x"].shape, generator=generator)
        loss = 0.5 * (x - self.w).square().sum(1).mean()
        return torch.where(self.w[0] >= self.config.lost_from, torch.nan, loss), {"centre": self.w[0].detach()}


class Rivals(GenerativeModel):
    """Two players who count their updates."""

    Config = CentreConfig
    schedule = (("critic", 2), ("generator", 1))

    def __init__(self, config: CentreConfig) -> None:
        super().__init__(config)
        self.critic, self.generator = nn.Linear(1, 1), nn.Linear(1, 1)
        self.updates = {"critic": 0, "generator": 0}

    def loss(self, batch, player="model", *, generator):
        return self.get_submodule(player)(batch["x"]).mean(), {}

    def after_update(self, player):
        self.updates[player] += 1


class Apart:
    """Trains on 3, is judged on 1."""

    def sample(self, n, generator):
        return {"x": torch.full((n, 1), 3.0)}

    def split(self, share, seed):
        return self, Rows({"x": torch.ones(5, 1)})


def run(model, data, **settings):
    return list(generative.fit(model, data, **{**PLAIN, **settings}))


def numbers(rows):
    """Without what the clock decides."""
    return [(step, {key: value for key, value in metrics.items() if key != "steps_per_second"}) for step, metrics in rows]


def test_learning_rate_rises_linearly_and_falls_by_a_half_cosine():
    config = FitConfig(steps=14, learning_rate=2.0, warm_up=4)
    found = [learning_rate(config, step) for step in (0, 3, 4, 9, 14)]
    assert found == pytest.approx([0.5, 2.0, 2.0, 1.0, 0.0])
    assert learning_rate(config, 4 + 10 // 4) == pytest.approx(1 + math.cos(math.pi / 5))
    assert [learning_rate(replace(config, decay="none"), step) for step in (0, 4, 14)] == [0.5, 2.0, 2.0]


def test_average_by_hand_and_the_model_gets_its_own_weights_back():
    model = Centre(CentreConfig())
    average = Average(model, 0.9)
    seen = []
    for value in (1.0, 2.0):  # d = 2/11, then 3/12
        nn.init.constant_(model.w, value)
        average.update()
        seen.append(average.weights[0].item())
    assert seen == pytest.approx([9 / 11, 0.25 * 9 / 11 + 0.75 * 2])
    with average.applied():
        assert model.w.item() == pytest.approx(seen[1])
    assert model.w.item() == 2.0
    average.num_updates.fill_(10_000)  # (1 + t)/(10 + t) > 0.9: the decay itself
    average.update()
    assert average.weights[0].item() == pytest.approx(0.9 * seen[1] + 0.1 * 2)


def test_fit_takes_the_steps_of_gradient_descent():
    model = Centre(CentreConfig())
    rows = run(model, torch.full((8, 1), 2.0), steps=3, learning_rate=0.5)
    assert [metrics["centre"] for _, metrics in rows] == pytest.approx([0.0, 1.0, 1.5])  # what each step's loss saw
    assert [metrics["loss"] for _, metrics in rows] == pytest.approx([2.0, 0.5, 0.125])
    assert model.w.item() == pytest.approx(1.75)
    decayed = Centre(CentreConfig())
    run(decayed, torch.full((8, 1), 2.0), steps=2, learning_rate=0.5, weight_decay=1.0)
    assert decayed.w.item() == pytest.approx(1.0 + 0.5 * (1.0 - 1.0))  # the gradient is w − x + λ w


def test_fit_clips_by_the_global_norm():
    model = Centre(CentreConfig(dimensions=2))
    data = torch.tensor([[3.0, 4.0]]).repeat(8, 1)
    ((_, metrics),) = run(model, data, steps=1, learning_rate=1.0, max_grad_norm=1.0)
    assert metrics["grad_norm"] == pytest.approx(5.0)  # before it is clipped
    assert model.w.tolist() == pytest.approx([0.6, 0.8], abs=1e-5)


def test_fit_gives_each_player_its_updates_and_its_parameters():
    model = Rivals(CentreConfig())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = run(model, torch.ones(8, 1), steps=3, learning_rate=0.1)
    assert model.updates == {"critic": 6, "generator": 3}
    moved = {name: (before[name] - value).item() for name, value in model.state_dict().items()}
    assert moved["critic.bias"] == pytest.approx(0.6) and moved["generator.bias"] == pytest.approx(0.3)
    assert rows[0][1].keys() >= {"critic/loss", "generator/loss", "critic/grad_norm"}


SETTINGS = {"steps": 40, "optimiser": "adam", "learning_rate": 0.05, "decay": "cosine", "warm_up": 3, "ema": 0.9,
            "validation": 0.25, "validate_every": 6, "log_every": 5, "seed": 3}  # fmt: skip


def test_fit_resumes_to_the_bit_through_a_checkpoint(tmp_path):
    data = torch.randn(64, 2, generator=torch.Generator().manual_seed(1)) + 1
    config = CentreConfig(dimensions=2, noise=0.5)
    whole = generative.Fit(Centre(config), data, **{**PLAIN, **SETTINGS})
    expected = numbers(whole)
    for cut in (5, 12, 30):
        first = generative.Fit(Centre(config), data, **{**PLAIN, **SETTINGS})
        seen = []
        for step, metrics in first:
            seen.append((step, metrics))
            if step >= cut:
                save_checkpoint(tmp_path, step, first.state_dict(), keep=1)
                break
        second = generative.Fit(Centre(config), data, **{**PLAIN, **SETTINGS})
        second.load_state_dict(load_latest(tmp_path)[1])
        assert numbers([*seen, *second]) == expected
        assert same_state(second.state_dict(), whole.state_dict())


def test_fit_stops_after_patience_and_keeps_the_best_weights():
    settings = {"steps": 100, "learning_rate": 0.1, "validate_every": 1, "validation": 0.5}
    path = [3 * (1 - 0.9**step) for step in range(1, 101)]  # w after each step: past 1, on to 3
    best = min(range(100), key=lambda step: abs(path[step] - 1))
    kept, last = Centre(CentreConfig()), Centre(CentreConfig())
    assert run(kept, Apart(), patience=5, **settings)[-1][0] == best + 1 + 5
    assert kept.w.item() == pytest.approx(path[best], rel=1e-5)
    run(last, Apart(), keep="last", **settings)
    assert last.w.item() == pytest.approx(path[-1], rel=1e-5)


def test_fit_judges_and_leaves_averaged_weights():
    model = Centre(CentreConfig())
    made = generative.Fit(model, Apart(), **{**PLAIN, "steps": 2, "learning_rate": 1 / 3, "ema": 0.9, "validation": 0.5})
    average = 0.25 * 9 / 11 + 0.75 * (1 + 2 / 3)  # of w = 1 and 5/3, see above
    *_, (_, metrics) = made
    assert metrics["validation/loss"] == pytest.approx(0.5 * (average - 1) ** 2, rel=1e-5)
    with made.as_used("last"):
        assert model.w.item() == pytest.approx(average, rel=1e-6) and not model.training
    with made.as_used("best"):
        assert model.w.item() == pytest.approx(9 / 11, rel=1e-6)
    assert model.training


@pytest.mark.parametrize(("log_every", "step"), [(4, 8), (5, 5)])
def test_fit_stops_at_a_lost_loss_with_the_last_good_weights(log_every, step):
    """w rises by 0.1 a step; the loss at w = 1.0, after step 10, is the first that is lost."""
    model = Centre(CentreConfig(lost_from=0.95))
    far = torch.full((8, 1), 1e6)
    with pytest.raises(
        FloatingPointError, match=rf"loss is nan by step \d+: lower learning_rate.*good weights, of step {step}\)"
    ):
        run(model, far, steps=50, learning_rate=0.1, max_grad_norm=1.0, log_every=log_every)
    assert model.w.item() == pytest.approx(0.1 * step, rel=1e-5) and not model.training


def test_fit_compiles_only_where_it_is_worth_it():
    assert not to_compile(FitConfig(steps=19_999)) and to_compile(FitConfig(steps=20_000))
    assert to_compile(FitConfig(steps=1, compile=True)) and not to_compile(FitConfig(steps=10**9, compile=False))


def test_fit_refuses_settings_by_name():
    for settings, message in [
        ({"stps": 1}, r"fit: unknown key 'stps'; did you mean 'steps'"),
        ({"steps": 0}, r"steps is 0; expected at least 1"),
        ({"ema": 1.0}, r"ema 1.0; expected \[0, 1\) and \(0, 1\)"),
        ({"optimiser": "lion"}, r"fit.optimiser is 'lion'; expected 'adam' or"),
    ]:
        with pytest.raises(ValueError, match=message):
            next(generative.fit(Centre(CentreConfig()), torch.ones(4, 1), **settings))


def test_rows_read_only_what_is_drawn_of_a_memory_mapped_array(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(20, dtype=np.float32)[:, None])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    rest, held_out = Rows({"x": mapped, "label": np.arange(20)}).split(0.2, seed=1)
    assert (len(rest), len(held_out)) == (16, 4)
    assert sorted([*rest.rows, *held_out.rows]) == list(range(20))
    batch = rest.sample(200, torch.Generator().manual_seed(0))
    assert set(batch["label"].tolist()) == set(rest.rows.tolist())  # each is drawn, and nothing held out
    assert torch.equal(batch["x"][:, 0], batch["label"].float())
    assert as_source(mapped).columns["x"] is mapped


def test_data_are_refused_by_what_they_are():
    for data, error, message in [
        ({"y": [1]}, ValueError, "data have y; expected 'x' among them"),
        ({"x": torch.ones(3), "label": torch.ones(2)}, ValueError, r"\{'x': 3, 'label': 2\} rows; expected the same"),
        (3, TypeError, "data is a int; expected a source"),
        ("no/such/folder", ValueError, "no/such/folder is no recording: it has no manifest.json"),
    ]:
        with pytest.raises(error, match=message):
            len(as_source(data).manifest if isinstance(data, str) else as_source(data))
    with pytest.raises(ValueError, match="one row can't be split: set validation=0"):
        Rows({"x": torch.ones(1, 2)}).split(0.1, 0)


class Shown:
    """z = the first two of x; decoding puts them back among zeros."""

    conditioned_on = None

    def encode(self, x):
        return x[:, :2]

    def decode(self, z):
        return torch.cat([z, torch.zeros(len(z), 7)], 1)

    def pictures(self):
        return {"filters": np.zeros((2, 2, 1), np.uint8)}


def test_pictures_follow_the_capabilities_and_the_form_of_the_data():
    x = torch.zeros(8, 9)
    x[:, 0], x[:, 1] = torch.tensor([0.4, 0.6]).repeat(4), torch.tensor([0.0, 1.0]).repeat(4)
    made = pictures(Shown(), {"x": x}, torch.Generator())
    assert made.keys() == {"filters", "reconstructions", "traversals"}
    assert pictures(Shown(), {"x": x - 5}, torch.Generator()).keys() == {"filters"}  # no picture: below 0
    moved = traversals(Shown(), x, dimensions=2, points=3)
    deviation = x[:, 1].std()
    assert torch.allclose(moved[:3, 1], 0.5 + torch.tensor([-2.5, 0, 2.5]) * deviation)  # dimension 1 varies most
    assert torch.allclose(moved[:3, 0], torch.tensor(0.5)) and torch.allclose(moved[3:, 1], torch.tensor(0.5))
    assert is_pictorial(torch.zeros(2, 5, 5, 3)) and not is_pictorial(torch.zeros(2, 5, 5, 4))
    assert not is_pictorial(torch.zeros(2, 8))


def test_grid_lays_data_row_by_row_with_gaps_and_spans_the_levels():
    x = torch.tensor([0, 8, 16], dtype=torch.uint8).view(3, 1, 1, 1)
    made = grid(x, 2)
    times = made.shape[0] // 5
    assert made[::times, ::times, 0].tolist() == [  # 16 levels span black to white
        [128, 128, 128, 128, 128], [128, 0, 128, 128, 128], [128, 128, 128, 128, 128],
        [128, 255, 128, 128, 128], [128, 128, 128, 128, 128],
    ]  # fmt: skip
    assert max(made.shape) >= 256


def test_bits_per_dim_are_of_the_likelihood_whatever_the_loss():
    """A β-VAE with a small β minimises no bound; its bits are those of its ELBO all the same."""
    torch.manual_seed(0)
    model = generative.build("beta_vae", shape=(64,), latent=2, hidden=(8,), head="bernoulli", beta=0.01)
    metrics = [metrics for _, metrics in generative.fit(model, generative.source("digits"), steps=2, keep="last")][-1]
    held_out = as_source(generative.source("digits")).split(0.1, 0)[1]
    noise = torch.Generator().manual_seed(1)
    batch = held_out.at(torch.randperm(len(held_out), generator=noise)[:1_000], noise.device)
    assert metrics["validation/bits_per_dim"] == pytest.approx(-model.elbo(batch["x"]).mean().item() / (64 * math.log(2)))
    assert metrics["validation/loss"] < 64 * math.log(2) * metrics["validation/bits_per_dim"] - 1e-4
