"""The perceptron, feed-forward and convolutional networks, and the models of a target given x."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import generative
from generative.coloured_shapes import ColouredShapes
from generative.model import Batch
from generative.networks.classifier import shifted
from generative.networks.cnn import CNN, ConvDecoder, ConvEncoder
from generative.networks.mlp import MLP, kept
from generative.networks.segmenter import mean_iou
from generative.networks.unet import UNet
from generative.networks.upsampling import Upsampling, bed_of_nails, max_pool, max_unpool, nearest_neighbour
from generative.sources import Digits

CORNERS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
AND, XOR = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 0])


@dataclass(frozen=True)
class Whole:
    """All of the data as every minibatch."""

    batch: Batch

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        return self.batch


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed))


def fitted(name: str, data, settings: dict, **config):
    """A model trained on all that `data` has, with the weights of the last step."""
    torch.manual_seed(0)
    model = generative.build(name, **config)
    for _ in generative.fit(model, data, validation=0.0, keep="last", device="cpu", **settings):
        pass
    return model


# A network's gradients and symmetries (notes §1.3, §1.4, §2)


def test_affine_layers_without_activation_collapse_into_one():
    net, x = MLP(3, (5, 4), 2, "identity").double(), normal(6, 3).double()
    weight, bias = torch.eye(3).double(), torch.zeros(3).double()
    for layer in (*net.hidden, net.output):
        weight, bias = layer.weight @ weight, layer.weight @ bias + layer.bias
    torch.testing.assert_close(net(x), x @ weight.T + bias)
    bent = MLP(3, (5, 4), 2, "tanh").double()
    assert not torch.allclose(bent(x) + bent(-x), 2 * bent(0 * x))


def test_convolution_gradient_is_a_convolution_with_the_rotated_kernel():
    image, kernel, delta = normal(1, 1, 6, 7), normal(1, 1, 3, 3, seed=1), normal(1, 1, 4, 5, seed=2)
    image.requires_grad_(), kernel.requires_grad_()
    F.conv2d(image, kernel).backward(delta)
    full = F.conv2d(F.pad(delta, (2, 2, 2, 2)), kernel.detach().rot90(2, (2, 3)))
    torch.testing.assert_close(image.grad, full)
    torch.testing.assert_close(kernel.grad, F.conv2d(image.detach(), delta))  # the weights': with the errors as kernel


def test_convolution_is_a_product_with_a_matrix():
    kernel = normal(1, 1, 3, 3)
    apply = lambda image: F.conv2d(image.view(1, 1, 4, 4), kernel, padding=1).flatten()  # noqa: E731
    matrix = torch.stack([apply(column) for column in torch.eye(16)], 1)
    image = normal(16, seed=1)
    torch.testing.assert_close(matrix @ image, apply(image))


def test_max_pooling_routes_the_gradient_to_the_maximum():
    image = torch.tensor([[1.0, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]])[None, None].requires_grad_()
    pooled, positions = max_pool(image)
    assert pooled.tolist() == [[[[5, 6], [7, 8]]]] and positions.tolist() == [[[[5, 2], [12, 15]]]]
    pooled.backward(torch.tensor([[[[1.0, 2], [3, 4]]]]))
    assert image.grad[0, 0].tolist() == [[0, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]]


def test_cnn_levels_move_with_the_image():
    levels = CNN((1, 24, 24), (3, 3), (4,), 2).convolutions
    for layer in (levels[0], levels[3]):
        torch.nn.init.zeros_(layer.bias)  # else the border's zeros would be seen
    blot = F.pad(normal(1, 1, 5, 5), (9, 10, 9, 10))
    moved = levels(blot.roll((4, -4), (2, 3)))  # 4 pixels are 1 after two poolings
    torch.testing.assert_close(moved, levels(blot).roll((1, -1), (2, 3)))


@pytest.mark.parametrize(("shape", "channels"), [((1, 8, 8), (4, 4)), ((3, 7, 10), (4, 4)), ((2, 5, 9), (4,)), ((1, 3, 2), ())])
def test_conv_encoder_sees_and_decoder_paints_every_pixel(shape, channels):
    image = normal(1, *shape).requires_grad_()
    ConvEncoder(shape, channels, 8, "tanh")(image).sum().backward()
    assert (image.grad != 0).all()
    codes = normal(2, 8)
    painted = ConvDecoder(8, channels[::-1], shape, "tanh")(codes)
    assert painted.shape == (2, *shape) and (painted[0] != painted[1]).all()


# The four upsamplings and the U-Net (notes §3)


def test_upsamplings_by_hand():
    x = torch.tensor([[[[1.0, 2], [3, 4]]]])
    assert nearest_neighbour(x)[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert bed_of_nails(x)[0, 0].tolist() == [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]
    remembered = max_unpool(x, torch.tensor([[[[5, 2], [12, 15]]]]), (4, 4))
    assert remembered[0, 0].tolist() == [[0, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]]
    transposed = Upsampling("transposed", 1)
    with torch.no_grad():
        transposed.transposed.weight.copy_(torch.tensor([[[[1.0, 10], [100, 1000]]]]))
        transposed.transposed.bias.zero_()
        made = transposed(x, None, (4, 3))[0, 0]
    assert made.tolist() == [[1, 10, 2], [100, 1000, 200], [3, 30, 4], [300, 3000, 400]]


def test_max_unpooling_puts_back_what_was_pooled_also_at_odd_sides():
    image = normal(2, 3, 7, 5).abs()
    pooled, positions = max_pool(image)
    back = Upsampling("max_unpooling", 3)(pooled, positions, (7, 5))
    assert pooled.shape == (2, 3, 4, 3) and (back[back > 0] == image[back > 0]).all()
    torch.testing.assert_close(max_pool(back)[0], pooled)


def test_transposed_convolution_is_the_transpose_of_the_strided_one():
    up = Upsampling("transposed", 2).double()
    small, large = normal(1, 2, 3, 4).double(), normal(1, 2, 6, 8, seed=1).double()
    made = up(small, None, (6, 8)) - up.transposed.bias[None, :, None, None]
    down = F.conv2d(large, up.transposed.weight, stride=2)
    torch.testing.assert_close((made * large).sum(), (small * down).sum())


@pytest.mark.parametrize("upsampling", ["nearest", "bed_of_nails", "max_unpooling", "transposed"])
def test_unet_sees_far_only_by_its_lower_scales(upsampling):
    def reach(channels: tuple[int, ...]) -> int:
        image = normal(1, 1, 27, 33).requires_grad_()
        UNet(1, 1, channels, upsampling, activation="tanh")(image)[0, 0, 13, 16].backward()
        return int((image.grad[0, 0] != 0).any(0).sum())

    torch.manual_seed(0)
    assert reach((4,)) == 5  # two convolutions 3 × 3
    assert reach((4, 4, 4)) > 20


def test_unet_skip_connections_keep_what_pooling_loses():
    torch.manual_seed(0)
    for skips in (True, False):
        net = UNet(1, 1, (4, 4), "nearest", skips)
        for narrow in net.narrow:
            torch.nn.init.zeros_(narrow[0].weight)  # nothing comes up from below
        assert torch.equal(net(normal(1, 1, 8, 8)), net(normal(1, 1, 8, 8, seed=1))) is not skips


# The perceptron (notes §1.1)


def separable(n: int = 200) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Points [n, 2] in the disc of radius 1, at least 0.1 from a line, their classes, and (R/γ)² with the bias as a weight."""
    x = torch.rand((4 * n, 2), generator=seeded()) * 2 - 1
    normal_to_line = torch.tensor([0.6, 0.8])
    distance = x @ normal_to_line - 0.2
    x, distance = (part[(x.norm(dim=1) < 1) & (distance.abs() > 0.1)][:n] for part in (x, distance))
    margin = distance.abs().min() / math.sqrt(1 + 0.2**2)  # of the unit vector along (w, b)
    return x, (distance > 0).long(), float((1 + x.square().sum(1).max()) / margin**2)


def test_perceptron_rule_by_hand():
    model = generative.build("perceptron", in_features=2)
    data = torch.tensor([[1.0, 2.0], [2.0, 0.0]]), torch.tensor([1, 0])
    assert model.learn(*data, max_sweeps=1) == (2, False)  # (0, 0), 0 → (1, 2), 1 → (−1, 2), 0
    assert model.weight.tolist() == [-1, 2] and model.bias.item() == 0
    assert model.predict(data[0]).tolist() == [1, 0] and model.learn(*data) == (0, True)


def test_perceptron_gradient_is_its_rule():
    model = generative.build("perceptron", in_features=2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([1.0, -1.0]))
    x, label = normal(50, 2), torch.arange(50) % 2
    loss, _ = model.loss({"x": x, "label": label}, generator=seeded())
    loss.backward()
    residual = label - model.predict(x)
    torch.testing.assert_close(-model.weight.grad, (residual[:, None] * x).mean(0))
    torch.testing.assert_close(-model.bias.grad, residual.float().mean())


def test_perceptron_stops_within_the_bound_on_separable_data_and_never_on_xor():
    x, label, bound = separable()
    model = generative.build("perceptron", in_features=2)
    mistakes, separated = model.learn(x, label)
    assert separated and 0 < mistakes <= bound and (model.predict(x) == label).all()
    assert generative.build("perceptron", in_features=2).learn(CORNERS, AND)[1]
    assert generative.build("perceptron", in_features=2).learn(CORNERS, XOR, max_sweeps=500)[1] is False


def test_fit_trains_a_perceptron_by_the_same_rule():
    x, label, _ = separable()
    rule = {"optimiser": "sgd", "decay": "none", "batch_size": 1, "learning_rate": 1.0, "steps": 1_000}
    assert (fitted("perceptron", {"x": x, "label": label}, rule, in_features=2).predict(x) == label).all()


# Models of a target given a vector (notes §1.1, §1.2, §1.5)


def test_mlp_solves_xor_and_a_perceptron_does_not():
    data = {"x": CORNERS, "label": XOR}
    settings = {"steps": 300, "batch_size": 4, "learning_rate": 0.05}
    solved = fitted("mlp", Whole(data), settings, in_features=2, hidden_sizes=(4,), activation="tanh", head="bernoulli")
    assert (solved.predict(CORNERS)[:, 0].round() == XOR).all() and -solved.label_log_prob(CORNERS, XOR).mean() < 0.02
    affine = fitted("mlp", Whole(data), settings, in_features=2, hidden_sizes=(), head="bernoulli")
    assert -affine.label_log_prob(CORNERS, XOR).mean() > math.log(2) - 1e-4  # the best affine map says one half


def test_one_hidden_layer_approximates_better_the_wider_it_is():
    x = torch.linspace(0, 1, 128)[:, None]
    y = torch.sin(4 * math.pi * x) * x
    errors = []
    for width in (2, 6, 24):
        settings = {"steps": 800, "learning_rate": 0.03}
        data = Whole({"x": 2 * x - 1, "target": y})
        model = fitted("mlp", data, settings, in_features=1, hidden_sizes=(width,), activation="tanh", head="gaussian")
        errors.append((model.predict(2 * x - 1) - y).square().mean().item())
    assert errors[1] < errors[0] / 3 and errors[2] < errors[1] / 3 and errors[2] < 5e-4


def test_weight_decay_is_the_map_estimate_of_a_gaussian_prior():
    x, decay = normal(40, 3), 0.3
    y = x @ torch.tensor([1.0, -2.0, 0.5]) + 0.7 + 0.3 * normal(40, seed=1)
    ones = torch.cat([x, torch.ones(40, 1)], 1)
    ridge = torch.linalg.solve(ones.T @ ones / 40 + decay * torch.eye(4), ones.T @ y / 40)
    settings = {"steps": 400, "optimiser": "sgd", "learning_rate": 0.3, "decay": "none", "weight_decay": decay}
    model = fitted("mlp", Whole({"x": x, "target": y}), settings, in_features=3, hidden_sizes=(), head="gaussian")
    found = torch.cat([model.network.output.weight[0], model.network.output.bias])
    torch.testing.assert_close(found.detach(), ridge, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("head", "spread"), [("gaussian", 1.0), ("laplace", 1 / math.sqrt(2))])
def test_learned_scale_is_the_noise_of_the_target(head, spread):
    x = torch.rand((4_000, 1), generator=seeded())
    noise = (0.1 + 0.4 * x) * generative.build("mlp", in_features=1, head=head).likelihood.from_noise(
        torch.zeros(4_000, 1, 1),
        torch.randn((4_000, 1), generator=seeded(1)) if head == "gaussian" else torch.rand((4_000, 1), generator=seeded(1)),
    )
    settings = {"steps": 500, "batch_size": 256, "learning_rate": 0.02}
    model = fitted("mlp", {"x": x, "target": 2 * x + noise}, settings, in_features=1, hidden_sizes=(8,), head=head, scale=None)
    ends = torch.tensor([[0.1], [0.9]])
    parameters = model(ends).view(2, 1, 2)
    torch.testing.assert_close(model.likelihood.log_scale(parameters).exp()[:, 0], 0.1 + 0.4 * ends[:, 0], rtol=0.15, atol=0)
    torch.testing.assert_close(model.predict(ends), 2 * ends, rtol=0, atol=0.06)


def test_dropout_comes_from_the_generator_alone_and_keeps_the_mean():
    factors = kept((100_000,), 0.3, seeded())
    assert sorted(set(factors.tolist())) == [0, pytest.approx(1 / 0.7)] and factors.mean().item() == pytest.approx(1, abs=0.01)
    model = generative.build("mlp", in_features=4, out_features=3, dropout=0.5)
    batch = {"x": normal(8, 4), "label": torch.arange(8) % 3}
    losses = [model.loss(batch, generator=seeded(seed))[0].item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    model.eval()
    assert model.loss(batch, generator=seeded(0))[0] == model.loss(batch, generator=seeded(1))[0]


# Classifier, segmenter, image to image


def test_classifier_probabilities_sum_to_one_and_are_those_of_its_loss():
    model = generative.build("classifier", shape=(5,), num_classes=3).eval()
    x, label = normal(7, 5), torch.arange(7) % 3
    probabilities = model.probabilities(x)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(7))
    torch.testing.assert_close(model.label_log_prob(x, label).exp(), probabilities[torch.arange(7), label])
    loss, _ = model.loss({"x": x, "label": label}, generator=seeded())
    torch.testing.assert_close(loss, -model.label_log_prob(x, label).mean())


def test_shifts_move_whole_pixels_as_far_as_asked_each_datum_on_its_own():
    one_hot = torch.zeros(500, 1, 5, 5)
    one_hot[:, :, 1, 2] = 1
    moved = shifted(one_hot, 2, seeded())
    places = {tuple(place) for place in moved.nonzero()[:, 2:].tolist()}
    assert places == {(row, column) for row in range(4) for column in range(5)} and moved.sum() < 500  # row −1 is outside


@pytest.mark.parametrize(("network", "least"), [("mlp", 0.96), ("cnn", 0.97)])
def test_classifier_knows_held_out_digits(network, least):
    settings = {"steps": 400, "batch_size": 64, "learning_rate": 5e-3}
    config = {"shape": (8, 8, 1), "levels": 17, "num_classes": 10, "channels": (16, 32), "hidden_sizes": (256,), "dropout": 0.2}
    model = fitted("classifier", Digits(levels=17, frames=True), settings, network=network, **config)
    test = Digits("test", levels=17, frames=True).everything
    assert model.accuracy(test["x"], test["label"]) >= least


def test_mean_iou_by_hand():
    label = torch.tensor([[0, 0, 1], [1, 1, 2]], dtype=torch.uint8)
    predicted = torch.tensor([[0, 1, 1], [1, 1, 1]])
    assert mean_iou(predicted, label, 5) == pytest.approx((1 / 2 + 3 / 5 + 0) / 3)  # classes 3 and 4 occur in neither
    assert mean_iou(label.long(), label, 256) == 1


def test_segmenter_scores_only_the_pixels_of_the_mask():
    model = generative.build("segmenter", shape=(6, 6, 3), num_classes=4, channels=(4, 4))
    x = torch.randint(256, (2, 6, 6, 3), generator=seeded(), dtype=torch.uint8)
    label = torch.zeros(2, 6, 6, dtype=torch.long)
    mask = torch.zeros(2, 6, 6, dtype=torch.bool)
    mask[:, 2, 3] = True
    scored = model.label_log_prob(x, label, mask)
    torch.testing.assert_close(scored, model(x).log_softmax(1)[:, 0, 2, 3])
    torch.testing.assert_close(model.loss({"x": x, "label": label, "mask": mask}, generator=seeded())[0], -scored.mean())


def test_shapes_tell_the_class_by_their_form_alone():
    batch = ColouredShapes(noise=0).sample(64, seeded())
    assert (batch["x"] == batch["target"]).all()
    colours = [set(map(tuple, batch["x"][batch["label"] == kind].tolist())) for kind in range(4)]
    assert all(len(found) > 50 for found in colours[1:]) and not any(colours[0] & found for found in colours[1:])
    areas = torch.tensor([(batch["label"] == kind).double().mean() for kind in (2, 1, 3)])
    assert (areas.diff() < 0).all()  # of one radius, a square covers more than a disc, and that more than a triangle


def test_segmenter_tells_shapes_apart_and_skips_make_it_sharper():
    source = ColouredShapes(tiles=1, tile=12)
    test = source.sample(400, seeded(1))
    reached = []
    for skips in (True, False):
        settings = {"steps": 200, "batch_size": 32, "learning_rate": 5e-3}
        model = fitted("segmenter", source, settings, shape=(12, 12, 3), num_classes=4, channels=(16, 32), skips=skips)
        with torch.no_grad():
            reached.append(mean_iou(model.predict(test["x"]), test["label"], 4))
    assert reached[0] > 0.85 and reached[0] > reached[1] + 0.1


def test_unet_takes_the_noise_out():
    source = ColouredShapes(tiles=1, tile=8, noise=40)
    settings = {"steps": 200, "batch_size": 32, "learning_rate": 3e-3}
    model = fitted("unet", source, settings, shape=(8, 8, 3), out_channels=3, channels=(32, 32))
    test = source.sample(200, seeded(1))
    error = (model.predict(test["x"]) - test["target"] / 255).square().mean().item()
    assert error < (40 * 41 / 3 / 255**2) / 2  # the variance of noise uniform over −40…40


def test_pictures_show_every_first_filter():
    model = generative.build("cnn", shape=(8, 8, 3), out_features=4, channels=(5,))
    picture = model.pictures()["filters"]
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and picture.min() == 0 and picture.max() == 255
    assert generative.build("classifier", shape=(8, 8, 1), num_classes=4).pictures() == {}


# Refusals


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("mlp", {"in_features": 3, "out_features": 1}, r"out_features is 1; expected at least 2 with a categorical head"),
        ("mlp", {"in_features": 3, "out_features": 2, "dropout": 1.0}, r"dropout is 1.0; expected a probability below 1"),
        ("cnn", {"shape": (3, 8, 1), "out_features": 2}, r"3 × 8 can't be halved 2 times; expected at least 4 pixels"),
        ("cnn", {"shape": (8, 8, 1), "out_features": 2, "levels": 257}, r"levels is 257; expected 2 to 256"),
        ("classifier", {"shape": (8,), "num_classes": 2, "network": "cnn"}, r"shape is \(8,\); expected \(height, width, chan"),
        ("classifier", {"shape": (8,), "num_classes": 2, "shift": 1}, r"shape is \(8,\); expected \(height, width, channels"),
        ("classifier", {"shape": (8, 8), "num_classes": 2}, r"shape is \(8, 8\); expected \(height, width, channels\)"),
        ("unet", {"shape": (8, 8, 1), "upsampling": "bilinear"}, r"'bilinear'; expected 'nearest' or 'bed_of_nails'"),
        ("segmenter", {"shape": (8, 8, 1), "num_classes": 1}, r"num_classes is 1; expected at least 2"),
    ],
)
def test_configuration_refuses_what_can_not_be(name, config, message):
    with pytest.raises(ValueError, match=message):
        generative.build(name, **config)


@pytest.mark.parametrize(
    ("config", "target", "message"),
    [
        ({"out_features": 3}, {"label": torch.tensor([0, 3])}, r"labels reach from 0 to 3; expected 0 to 2"),
        (
            {"out_features": 3},
            {"label": torch.tensor([0.0, 1.0])},
            r"label is torch.float32 \[2\]; expected whole numbers",
        ),
        ({"out_features": 3}, {"target": torch.tensor([0, 1])}, r"the batch has x, target; expected 'label' beside x"),
        ({"head": "bernoulli"}, {"label": torch.tensor([0, 2])}, r"should be 0 or 1; got other values"),
        ({"head": "gaussian", "out_features": 2}, {"target": torch.zeros(2)}, r"got parameters \[2, 2, 1\] for x \[2, 1\]"),
        ({"head": "gaussian"}, {"mask": torch.zeros(2)}, r"the batch has x, mask; expected 'target' or 'label' beside x"),
    ],
)
def test_mlp_refuses_targets_of_another_form(config, target, message):
    with pytest.raises(ValueError, match=message):
        generative.build("mlp", in_features=2, **config).loss({"x": torch.zeros(2, 2), **target}, generator=seeded())
