"""PixelRNN, PixelCNN and gated PixelCNN: what each prediction sees, exact likelihoods, cached sampling."""

from __future__ import annotations

import math

import pytest
import torch

import generative
from generative.autoregressive.gated_pixel_cnn import down
from generative.autoregressive.masked_convolution import Incremental, MaskedConvolution, colour_groups
from generative.autoregressive.pixel_frames import frame_input, frame_levels
from generative.autoregressive.pixel_rnn import lstm_step
from generative.likelihoods import CategoricalHead
from generative.synthetic import ColourCopies, DiagonalCopies, Ising

MODELS = ("pixel_rnn", "pixel_cnn", "gated_pixel_cnn")
H = 0.32508  # binary entropy of 0.1, nats


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(name: str, height: int = 5, width: int = 6, *, spread: float = 0.0, **config):
    """A small model with 3 × 3 masks, its parameters moved from their start by Gaussian noise of size `spread`."""
    torch.manual_seed(0)
    small = {"hidden": 12, "num_layers": 2, "first_kernel": 3, **config}
    model = generative.build(name, height=height, width=width, **small)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += spread * torch.randn_like(parameter)
    return model


def seen_from(model, row: int, column: int, colour: int = 0) -> torch.Tensor:
    """Which inputs [C, H, W] the parameters of one value depend on, by gradients over random inputs."""
    config = model.config
    x = torch.rand(64, config.channels, config.height, config.width, generator=generator(1)) * 2 - 1
    x.requires_grad_()
    (slope,) = torch.autograd.grad(model(x, None)[:, colour, row, column].square().sum(), x)
    return (slope != 0).any(0)


def raster_place(config) -> torch.Tensor:
    """The place of each value in the order of sampling, [C, H, W]."""
    places = torch.arange(config.height * config.width * config.channels)
    return places.view(config.height, config.width, config.channels).movedim(2, 0)


def train(model, source, **settings) -> None:
    for _ in generative.fit(model, source, validation=0, keep="last", **settings):
        pass


# --- masks and layers


def test_masked_convolution_masks_a_and_b_by_hand():
    groups = colour_groups(3, 3)
    ones = torch.ones(1, 3, 2, 3)
    for mask, at_pixel in (("A", (0, 1, 2)), ("B", (1, 2, 3))):  # colours seen at the pixel itself by R, G, B
        convolution = MaskedConvolution(groups, groups, mask=mask, above=1, left=1, right=1)
        torch.nn.init.ones_(convolution.weight)
        middle = convolution(ones)[0, :, 1, 1]  # 3 × 3 values above, 3 to the left
        assert middle.tolist() == [9 + 3 + own for own in at_pixel]


def test_incremental_convolution_rows_equal_the_whole():
    convolution = MaskedConvolution(torch.zeros(2), torch.zeros(4), mask=None, above=1, left=1, right=1)
    x = torch.randn(3, 2, 4, 5, generator=generator())
    apply, rows = Incremental(4, 5), []
    for apply.row in range(4):
        rows.append(apply(convolution, x[:, :, apply.row : apply.row + 1]))
    torch.testing.assert_close(torch.cat(rows, 2), convolution(x))


def test_lstm_step_by_hand():
    gates = torch.tensor([0.0, math.log(3), 0.0, 1.0]).view(1, 4, 1, 1)  # i ½, f ¾, o ½
    hidden, cell = lstm_step(gates, torch.full((1, 1, 1, 1), 2.0))
    assert cell.item() == pytest.approx(0.75 * 2 + 0.5 * math.tanh(1))
    assert hidden.item() == pytest.approx(0.5 * math.tanh(cell.item()))


def test_down_gives_each_row_the_one_above():
    x = torch.arange(6.0).view(1, 1, 3, 2)
    assert down(x).flatten().tolist() == [0, 0, 0, 1, 2, 3]


# --- causality


@pytest.mark.parametrize("name", MODELS)
def test_pixel_models_see_no_value_that_comes_later(name):
    model = built(name, 4, 4, channels=3, first_kernel=5)
    order = raster_place(model.config)
    for colour, row, column in ((0, 0, 0), (0, 1, 2), (1, 1, 2), (2, 1, 2), (1, 3, 3), (2, 3, 0)):
        own = order[colour, row, column]
        seen = seen_from(model, row, column, colour)
        assert not seen[order >= own].any()
        assert seen[order == own - 1].all() or own == 0 or column == 0  # the last value before it is seen


@pytest.mark.parametrize("name", MODELS)
def test_pixel_models_see_all_earlier_colours_of_the_pixel(name):
    model = built(name, 3, 3, channels=3)
    for colour in range(3):
        assert seen_from(model, 1, 1, colour)[:, 1, 1].tolist() == [earlier < colour for earlier in range(3)]


def test_gated_pixel_cnn_sees_every_earlier_value():
    model = built("gated_pixel_cnn", 5, 5, channels=3, num_layers=5)
    order = raster_place(model.config)
    for colour, row, column in ((0, 2, 0), (1, 2, 2), (2, 4, 0), (0, 4, 4)):
        assert torch.equal(seen_from(model, row, column, colour), order < order[colour, row, column])


@pytest.mark.parametrize("name", ["pixel_cnn", "pixel_rnn"])
def test_plain_masks_have_a_blind_spot_at_any_depth(name):
    model = built(name, 5, 5, num_layers=6)
    seen = seen_from(model, 4, 1)[0]
    rows_up, columns_right = 4 - torch.arange(5)[:, None], torch.arange(5)[None] - 1
    cone = columns_right <= rows_up
    cone[4, 1:] = False
    assert torch.equal(seen, cone)
    assert not seen[3, 3]  # (i − 1, j + 2)


@pytest.mark.parametrize("name", ["pixel_cnn", "pixel_rnn"])
def test_larger_first_kernel_sees_into_the_blind_spot(name):
    assert seen_from(built(name, 5, 5, first_kernel=5), 4, 1)[0][3, 3]


def test_diagonal_copies_hide_in_the_plain_blind_spot():
    source = DiagonalCopies(height=4, width=5)
    batch = source.sample(256, generator())
    settings = {"steps": 120, "batch_size": 64, "learning_rate": 1e-2}
    nats = {}
    for name in ("pixel_cnn", "gated_pixel_cnn"):
        model = built(name, 4, 5)
        train(model, source, **settings)
        nats[name] = model.loss(batch, generator=generator())[0].item() / int(batch["mask"][0].sum())
    assert nats["pixel_cnn"] > 0.68 and nats["gated_pixel_cnn"] < 0.42  # ln 2 = 0.693, H₂(0.1) = 0.325


@pytest.mark.parametrize("name", MODELS)
def test_pixel_models_first_layer_has_no_residual(name):
    """The first value's prediction, which sees nothing, is a constant."""
    model = built(name, 3, 3, spread=0.1)
    x = torch.rand(5, 1, 3, 3, generator=generator())
    first = model(x, None)[:, 0, 0, 0]
    torch.testing.assert_close(first, first[:1].expand_as(first), rtol=0, atol=1e-6)


# --- likelihood


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("head", ["categorical", "logistic_mixture"])
def test_pixel_models_probabilities_sum_to_one(name, head):
    model = built(name, 2, 1, channels=2, levels=5, head=head, num_classes=2, spread=0.3)
    every = torch.cartesian_prod(*[torch.arange(5)] * 4).to(torch.uint8).view(-1, 2, 1, 2)
    for label in range(2):
        total = model.log_prob(every, torch.full((len(every),), label)).exp().sum()
        assert total.item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_pixel_models_log_prob_by_hand(name):
    """All weights zero and a bias b on level 1: every value is 1 with probability σ(b)."""
    model = built(name, 2, 2)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    model.last.bias.data[1] = math.log(3)
    x = torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8).view(1, 2, 2, 1)
    assert model.log_prob(x).item() == pytest.approx(math.log(0.25) + 3 * math.log(0.75), rel=1e-6)
    masked = {"x": x, "mask": torch.tensor([[[1, 0], [0, 1]]], dtype=torch.bool)}
    assert model.loss(masked, generator=generator())[0].item() == pytest.approx(-math.log(0.25 * 0.75), rel=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_pixel_models_reach_the_ising_entropy(name):
    source = Ising(side=3, frames=True)
    model = built(name, 3, 3, first_kernel=5, num_layers=1)
    train(model, source, steps=150, batch_size=64, learning_rate=1e-2, ema=0.95)
    every = (torch.arange(512)[:, None] >> torch.arange(9) & 1).to(torch.uint8).view(-1, 3, 3, 1)
    with torch.no_grad():
        kl = (source.table.exp() * (source.table - model.log_prob(every))).sum()
    assert 0 <= float(kl) < 0.02


def test_pixel_cnn_colours_follow_one_another():
    source = ColourCopies(height=2, width=2)
    model = built("pixel_cnn", 2, 2, channels=3, num_layers=1)
    train(model, source, steps=200, batch_size=64, learning_rate=1e-2)
    test = source.sample(2000, generator(1))["x"]
    with torch.no_grad():
        bits = -float(model.log_prob(test).mean()) / (12 * math.log(2))
    assert 0.63 < bits < 0.68  # 0.646; 1 if the colours of a pixel were independent


def test_input_dropout_comes_from_the_generator_and_not_into_log_prob():
    model = built("gated_pixel_cnn", input_dropout=0.5)
    batch = {"x": torch.randint(2, (8, 5, 6, 1), generator=generator(), dtype=torch.uint8)}
    losses = [model.loss(batch, generator=generator(seed))[0].item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert -model.log_prob(batch["x"]).mean().item() not in losses


# --- sampling


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("channels", [1, 3])
def test_pixel_models_cached_predictions_equal_uncached(name, channels):
    model = built(name, channels=channels, levels=4, num_classes=3, spread=0.2, first_kernel=5)
    label = torch.tensor([0, 1, 2, 1])
    x = model.sample(4, label, generator=generator(2))
    assert torch.equal(x, model.sample(4, label, generator=generator(2), cached=False))
    levels = frame_levels(x, model.config)
    with torch.no_grad():
        whole, predict = model(frame_input(levels, model), label), model.pixel_by_pixel(label)
        for row in range(5):
            for column in range(6):
                parts = [predict(levels, row, column) for _ in range(channels)]  # a pixel may be asked for again
                torch.testing.assert_close(parts[-1], whole[:, :, row, column], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("num_given", [0, 1, 7, 20, 24])
def test_pixel_models_keep_the_values_given(name, num_given):
    model = built(name, 2, 4, channels=3, spread=0.2)
    given = torch.randint(2, (16, 2, 4, 3), generator=generator(), dtype=torch.uint8)
    x = model.sample(16, generator=generator(1), given=given, num_given=num_given)
    assert torch.equal(x.flatten(1)[:, :num_given], given.flatten(1)[:, :num_given])
    assert num_given > 20 or not torch.equal(x.flatten(1)[:, num_given:], given.flatten(1)[:, num_given:])
    assert torch.equal(x, model.sample(16, generator=generator(1), given=given, num_given=num_given, cached=False))


@pytest.mark.parametrize("name", MODELS)
def test_pixel_models_sample_what_log_prob_says(name):
    model = built(name, 2, 2, spread=0.5)
    x = model.sample(20_000, generator=generator(3))
    every = (torch.arange(16)[:, None] >> torch.arange(4) & 1).to(torch.uint8)
    with torch.no_grad():
        expected = model.log_prob(every.view(-1, 2, 2, 1)).exp()
    shares = torch.bincount((x.flatten(1).long() << torch.arange(4)).sum(1), minlength=16) / len(x)
    assert float((shares - expected).abs().max()) < 4 * (0.25 / 20_000) ** 0.5


@pytest.mark.parametrize("name", MODELS)
def test_pixel_models_learn_the_class(name):
    """Frames all 0 or all 1 by their class: the label decides every pixel, the first too."""
    label = torch.arange(2).repeat(32)
    data = {"x": label.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, 2, 1).contiguous(), "label": label}
    model = built(name, 2, 2, num_classes=2)
    train(model, data, steps=60, batch_size=32, learning_rate=2e-2)
    x = model.sample(40, torch.arange(2).repeat(20), generator=generator())
    assert (x.flatten(1)[:, 0].long() == torch.arange(2).repeat(20)).float().mean() > 0.9
    assert model.log_prob(data["x"], label).mean() > -0.3 > -4 > model.log_prob(data["x"], 1 - label).mean()


# --- refusals, and what is shown


@pytest.mark.parametrize("name", MODELS)
def test_pixel_models_refuse_by_name(name):
    model, conditional = built(name, 2, 2), built(name, 2, 2, num_classes=3)
    x = torch.zeros(1, 2, 2, 1, dtype=torch.uint8)
    for call, message in (
        (lambda: model.log_prob(x.repeat(1, 1, 2, 1)), r"x is \[1, 2, 4, 1\]; expected frames .*\[B, 2, 2, 1\]"),
        (lambda: model.log_prob(x.float()), "x is torch.float32; expected torch.uint8"),
        (lambda: model.log_prob(x + 2), "x has level 2; expected 0…1"),
        (lambda: model.log_prob(x, torch.zeros(1).long()), "num_classes"),
        (lambda: conditional.log_prob(x), "cond is missing.*label"),
        (lambda: conditional.sample(1, torch.tensor([3]), generator=generator()), "expected 0 to 2"),
        (lambda: model.sample(1, generator=generator(), num_given=1), "given is None"),
        (lambda: model.sample(1, generator=generator(), given=x, num_given=5), "num_given is 5; expected 0…4"),
        (
            lambda: model.sample(2, generator=generator(), given=x, num_given=1),
            "given has 1 frames; expected one for each of the 2",
        ),
        (lambda: built(name, levels=1), "levels is 1; expected from 2 to 256"),
        (lambda: built(name, kernel=4), "kernel is 4; expected odd"),
        (lambda: built(name, channels=3, hidden=2), "hidden is 2"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("name", MODELS)
def test_pixel_models_receptive_field_picture_shows_the_blind_spot(name):
    with torch.no_grad():  # as `fit` asks for it
        picture = built(name, 6, 7).pictures()["receptive_field"]
    enlarged = picture.shape[1] // (1 + 7 + 1)  # a border of one pixel
    cells = picture[::enlarged, ::enlarged][1:-1, 1:-1]  # [6, 7, 3]
    assert cells[3, 3].tolist() == [255, 0, 0]
    assert cells[3, 2].min() == 255 and cells[3, 4].max() == 0 and cells[4, 3].max() == 0
    assert cells[2, 5].min() == (255 if name == "gated_pixel_cnn" else 0)


def test_pixel_models_encode_is_the_mean_of_hidden_features():
    model = built("pixel_cnn", 2, 3)
    x = torch.randint(2, (4, 2, 3, 1), generator=generator(), dtype=torch.uint8)
    features = model.features(frame_input(frame_levels(x, model.config), model), None)
    assert features.shape == (4, 24, 2, 3)
    torch.testing.assert_close(model.encode(x), features.mean((2, 3)))


def test_pixel_models_many_levels_use_a_small_head_with_logistics():
    many = built("pixel_cnn", 3, 3, levels=256, head="logistic_mixture", components=2)
    assert isinstance(built("pixel_cnn", 3, 3, levels=256).head, CategoricalHead)
    assert many.head.out_features == 6
    x = many.sample(8, generator=generator())
    assert x.dtype == torch.uint8 and x.max() > 1
