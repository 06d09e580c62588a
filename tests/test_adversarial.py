"""GAN, unrolled GAN and Wasserstein GAN: their games worked out by hand, and the two theorems on the best discriminator."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import generative
from generative.adversarial.gan import generator_loss, value
from generative.adversarial.modes import modes_covered
from generative.adversarial.players import input_gradients, turns
from generative.adversarial.unrolled_gan import unrolled
from generative.adversarial.wgan import between, slope_penalty
from generative.continuous import GaussianMixture, Ring

NAMES = ("gan", "unrolled_gan", "wgan")
PLANE = {"shape": (2,), "latent": 3, "hidden": (8,), "features": 6, "activation": "silu"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(name: str, **config):
    torch.manual_seed(0)
    return generative.build(name, **config)


def on_a_line(name: str, **config):
    """A model whose generator is the identity for good, so that its samples are N(0, 1)."""
    model = built(name, shape=(1,), latent=1, hidden=(), activation="silu", generator_updates=0, **config)
    with torch.no_grad():
        for parameter, number in zip(model.generator.parameters(), (1.0, 0.0), strict=True):
            parameter.fill_(number)
    return model


def normal(mean: float) -> GaussianMixture:
    return GaussianMixture((1.0,), ((mean,),), (1.0,))


def fitted(model, source, **settings):
    for _ in generative.fit(model, source, validation=0, keep="last", device="cpu", **settings):
        pass
    return model


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_gan_value_is_that_of_probabilities():
    real, fake = torch.tensor([0.9, 0.6]), torch.tensor([0.2, 0.5])
    expected = (math.log(0.9) + math.log(0.6)) / 2 + (math.log(0.8) + math.log(0.5)) / 2
    assert value(real.logit(), fake.logit()).item() == pytest.approx(expected, abs=1e-6)
    assert generator_loss(fake.logit(), "non_saturating").item() == pytest.approx(-(math.log(0.2) + math.log(0.5)) / 2)
    assert generator_loss(fake.logit(), "saturating").item() == pytest.approx((math.log(0.8) + math.log(0.5)) / 2)


def test_gan_loses_nothing_to_a_discriminator_that_is_sure():
    logit = torch.tensor([-200.0], requires_grad=True)
    assert generator_loss(logit, "non_saturating").item() == 200
    assert torch.autograd.grad(generator_loss(logit, "non_saturating"), logit)[0].item() == -1
    assert torch.autograd.grad(generator_loss(logit, "saturating"), logit)[0].item() == 0  # it saturates


@pytest.mark.parametrize("name", NAMES)
def test_each_player_has_gradients_of_its_own_only(name):
    model = built(name, **PLANE)
    judge = model.schedule[0][0]
    for player, other in ((judge, "generator"), ("generator", judge)):
        model.zero_grad()
        model.loss(Ring().sample(8, seeded(1)), player, generator=seeded(2))[0].backward()
        assert gradients(model) and not any(name.startswith(f"{other}.") for name in gradients(model))
    with pytest.raises(ValueError, match="player is 'model'; expected"):
        model.loss(Ring().sample(8, seeded(1)), "model", generator=seeded(2))


def test_schedule_names_players_and_their_updates():
    assert built("gan", discriminator_updates=3).schedule == (("discriminator", 3), ("generator", 1))
    assert built("wgan").schedule == (("critic", 5), ("generator", 1))
    with pytest.raises(ValueError, match="critic_updates is 0; expected at least 1"):
        turns("critic", 0, 1)


def test_generator_without_updates_stays_and_all_else_is_trained():
    model = on_a_line("gan")
    before = copy.deepcopy(model.state_dict())
    fitted(model, normal(1.0), steps=2)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if name.startswith("discriminator.")}


def test_gan_best_discriminator_is_the_density_ratio_and_its_value_the_divergence():
    data = normal(1.0)
    model = fitted(on_a_line("gan", features=16), data, steps=400, batch_size=512, learning_rate=2e-2)
    batch = data.sample(400_000, seeded(1))
    with torch.no_grad():
        told = model.loss(batch, generator=seeded(2))[1]
        x = torch.linspace(-1.5, 2.5, 9)[:, None]
        ratio = data.log_prob(x) - normal(0.0).log_prob(x)  # theorem 2: D* = p / (p + q)
    assert told["value"].item() == pytest.approx(-1.16345, abs=0.005)
    assert told["js_divergence"].item() == pytest.approx((math.log(4) - 1.16345) / 2, abs=0.0025)
    torch.testing.assert_close(model.logit(x).double().sigmoid(), ratio.sigmoid(), atol=0.02, rtol=0)


def test_gan_at_equilibrium_is_worth_minus_log_four():
    """Both trained: the generator finds N(1, 2²), and no discriminator tells them apart."""
    data = GaussianMixture((1.0,), ((1.0,),), (2.0,))
    model = built("gan", shape=(1,), latent=1, hidden=(), features=16, activation="silu")
    fitted(model, data, steps=400, batch_size=256, learning_rate=3e-2, betas=(0.5, 0.99))
    x = model.sample(100_000, generator=seeded(1)).detach()
    assert (x.mean().item(), x.std().item()) == pytest.approx((1.0, 2.0), abs=0.12)
    told = model.loss(data.sample(100_000, seeded(2)), generator=seeded(3))[1]
    assert told["value"].item() == pytest.approx(-math.log(4), abs=0.01)


def twisted(model, step: float, direction: dict[str, torch.Tensor], batch) -> torch.Tensor:
    """The generator's loss with its parameters moved."""
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in moved.generator.named_parameters():
            parameter += step * direction[name]
    return moved.loss(batch, "generator", generator=seeded(2))[0].detach()


@pytest.mark.parametrize("objective", ["saturating", "non_saturating"])
def test_unrolled_gradient_agrees_with_finite_differences(objective):
    model = built("unrolled_gan", **PLANE, unrolled_steps=4, unrolled_rate=0.5, objective=objective).double()
    batch = Ring().sample(16, seeded(1))
    model.loss(batch, "generator", generator=seeded(2))[0].backward()
    gradient = {name: parameter.grad.clone() for name, parameter in model.generator.named_parameters()}
    direction = {name: torch.randn(g.shape, generator=seeded(3), dtype=g.dtype) for name, g in gradient.items()}
    slope = sum((gradient[name] * direction[name]).sum() for name in gradient)
    difference = (twisted(model, 1e-5, direction, batch) - twisted(model, -1e-5, direction, batch)) / 2e-5
    assert difference.item() == pytest.approx(slope.item(), rel=1e-4)
    blind = built("unrolled_gan", **PLANE, unrolled_steps=0, objective=objective).double()
    blind.loss(batch, "generator", generator=seeded(2))[0].backward()
    assert any((blind.generator.get_parameter(name).grad - gradient[name]).abs().max() > 1e-3 for name in gradient)


def test_unrolled_steps_are_gradient_ascent_on_the_value():
    model = built("unrolled_gan", **PLANE).double()
    real, fake = Ring().sample(8, seeded(1))["x"].double(), torch.randn(8, 2, generator=seeded(2), dtype=torch.float64)
    trained = copy.deepcopy(model.discriminator)
    ascent = torch.optim.SGD(trained.parameters(), lr=0.3, maximize=True)
    for _ in range(3):
        ascent.zero_grad()
        value(trained(real), trained(fake)).backward()
        ascent.step()
    ahead = unrolled(model.discriminator, real, fake, None, 3, 0.3)
    torch.testing.assert_close(ahead(real, None), trained(real))


class Normalised(nn.Module):
    """A discriminator with buffers that every call in training mode changes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))

    def forward(self, x, label=None):
        return self.layers(x)[:, 0]


def test_unrolling_leaves_discriminator_optimiser_and_buffers_to_the_bit():
    model = built("unrolled_gan", **PLANE)
    model.discriminator = Normalised()
    made = torch.optim.Adam(model.discriminator.parameters())
    batch = Ring().sample(8, seeded(1))
    model.loss(batch, "discriminator", generator=seeded(2))[0].backward()
    made.step()
    made.zero_grad()
    weights, moments = copy.deepcopy(model.state_dict()), copy.deepcopy(made.state_dict())
    model.loss(batch, "generator", generator=seeded(3))[0].backward()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.discriminator.parameters())
    for place, kept in made.state_dict()["state"].items():
        assert all(torch.equal(tensor, moments["state"][place][key]) for key, tensor in kept.items())


def test_wgan_penalty_is_on_the_norm_over_a_whole_datum():
    """A linear critic over frames: its slope is the norm of all its weights, at every datum."""
    weight = torch.full((1, 4, 4), 0.5)  # its norm is 2
    x = torch.rand(3, 1, 4, 4, generator=seeded())
    gradient = input_gradients(lambda x, label: (x * weight).flatten(1).sum(1), x, None)
    assert gradient.norm(dim=1).tolist() == pytest.approx([2.0] * 3)
    assert slope_penalty(gradient.norm(dim=1), one_sided=True).item() == pytest.approx(1)


def test_wgan_penalty_trains_the_critic_and_vanishes_below_slope_one():
    model = built("wgan", **PLANE)
    for scale, punished in ((1e-3, False), (20.0, True)):
        judge = copy.deepcopy(model.critic)
        with torch.no_grad():
            judge.output.weight *= scale
        slope = model.slope(judge, Ring().sample(16, seeded(1))["x"], None)
        penalty = slope_penalty(slope, one_sided=True)
        penalty.backward()
        moved = [parameter.grad.abs().max() > 0 for parameter in judge.parameters() if parameter.grad is not None]
        assert any(moved) == punished == (penalty.item() > 0)
        assert slope_penalty(slope, one_sided=False) > (0 if punished else 0.99)


def test_wgan_penalised_points_lie_between_pairs():
    real, fake = torch.zeros(1_000, 1, 2, 2), torch.ones(1_000, 1, 2, 2)
    points = between(real, fake, seeded()).flatten(1)
    assert (points == points[:, :1]).all() and points.min() >= 0 and points.max() <= 1  # one u for a whole datum
    assert points[:, 0].mean().item() == pytest.approx(0.5, abs=0.05)


def test_wgan_distance_is_the_biased_optimum_and_one_side_frees_a_wrong_sign():
    data = normal(1.0)
    reached = {}
    for lipschitz in ("one_sided", "two_sided"):
        model = on_a_line("wgan", features=16, critic_updates=1, penalty_weight=10.0, lipschitz=lipschitz)
        model.critic.network[0] = nn.Identity()  # so that its slope is w·φ′(x), of one sign at the start
        model.critic.network[1] = nn.Sequential(nn.Linear(1, 16), nn.SiLU())
        with torch.no_grad():
            model.critic.network[1][0].weight.fill_(1.0)
            model.critic.output.weight.fill_(-0.125)
        steps = 600 if lipschitz == "one_sided" else 100
        fitted(model, data, steps=steps, batch_size=128, learning_rate=2e-2)
        reached[lipschitz] = model.loss(data.sample(200_000, seeded(1)), generator=seeded(2))[1]["distance"].item()
    assert reached["one_sided"] == pytest.approx(1.0545, rel=0.01)
    assert reached["two_sided"] < 0


def test_wgan_clips_the_critic_after_its_updates_only():
    model = built("wgan", **PLANE, lipschitz="clipping", clip=0.02)
    model.after_update("generator")
    assert max(weight.abs().max() for weight in model.critic.parameters()) > 0.02
    model.after_update("critic")
    assert max(weight.abs().max() for weight in model.critic.parameters()) <= 0.02
    assert max(weight.abs().max() for weight in model.generator.parameters()) > 0.02
    assert set(model.loss(Ring().sample(4, seeded()), "critic", generator=seeded())[1]) == {"distance"}


@pytest.mark.parametrize("name", NAMES)
def test_labels_reach_samples_and_are_asked_for_by_name(name):
    model = built(name, **PLANE, num_classes=3)
    one, other = (model.sample(4, torch.full((4,), label), generator=seeded()) for label in (0, 2))
    assert not torch.allclose(one, other)
    with pytest.raises(ValueError, match="cond is missing"):
        model.sample(4, generator=seeded())
    with pytest.raises(ValueError, match="expected 0 to 2"):
        model.sample(4, torch.full((4,), 3), generator=seeded())
    with pytest.raises(ValueError, match="cond is given to a model without classes"):
        built(name, **PLANE).sample(4, torch.zeros(4, dtype=torch.int64), generator=seeded())


@pytest.mark.parametrize("name", NAMES)
def test_masked_entries_change_nothing(name):
    model, x = built(name, **PLANE), Ring().sample(8, seeded(1))["x"]
    mask = torch.tensor([True, False]).expand(8, 2)
    other = torch.where(mask, x, x + 5)
    losses = [model.loss({"x": each, "mask": mask}, generator=seeded(2))[0] for each in (x, other)]
    assert torch.equal(*losses) and not torch.equal(losses[0], model.loss({"x": x}, generator=seeded(2))[0])


def test_frames_are_generated_as_levels():
    model = built("gan", shape=(8, 8, 1), levels=17, latent=3, channels=(4,), features=6)
    with torch.no_grad():
        frames = model.generate(100 * torch.randn(50, 3, generator=seeded()))
    assert frames.shape == (50, 8, 8, 1) and frames.dtype == torch.uint8
    assert frames.min() == 0 and frames.max() == 16


def test_modes_covered_counts_components_that_have_their_share():
    ring = Ring(std=0.1)
    x = ring.sample(4_000, seeded())
    assert modes_covered(x["x"], ring.mixture) == (8, pytest.approx(0.989, abs=0.006))  # 3 standard deviations of a plane
    few = x["x"][x["label"] < 3]
    assert modes_covered(few, ring.mixture)[0] == 3
    assert modes_covered(torch.zeros(100, 2), ring.mixture) == (0, 0.0)


@pytest.mark.slow
def test_unrolled_gan_covers_the_ring():
    data = Ring()
    model = built("unrolled_gan", shape=(2,), latent=2, hidden=(64, 64))
    fitted(model, data, steps=300, batch_size=128, learning_rate=1e-2, betas=(0.5, 0.999))
    with torch.no_grad():
        num_modes, near = modes_covered(model.sample(4_000, generator=seeded(1)), data.mixture)
    assert num_modes == 8 and near > 0.8
