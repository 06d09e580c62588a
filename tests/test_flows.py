"""NICE, RealNVP and Glow: inverses, log-determinants, densities that integrate to one, bounds over levels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import generative
from generative import capabilities
from generative.continuous import Banana
from generative.flows.act_norm import LEAST_STD, ActNorm, start_activation_norms
from generative.flows.coupling import CheckerboardCoupling, Coupling, checkerboard
from generative.flows.dequantisation import to_levels, to_line
from generative.flows.inner_networks import ConvNetwork, DenseNetwork
from generative.flows.invertible_convolution import InvertibleConvolution
from generative.flows.multi_scale import Flat, Split, SplitPrior, Squeeze
from generative.sources import Digits, binary_states

MODELS = ("nice", "real_nvp", "glow")
SMALL: dict[str, dict] = {
    "nice": {"hidden_sizes": (12,)},
    "real_nvp": {"hidden_sizes": (12,), "hidden": 6, "num_blocks": 1, "num_couplings": 4},
    "glow": {"hidden_sizes": (12,), "hidden": 6, "num_steps": 4},
}
SHAPES = ((2,), (5,), (4, 8, 1), (4, 4, 3))
EVERY = pytest.mark.parametrize("name", MODELS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(name: str, *, spread: float = 0.1, **config):
    """A small model with its parameters moved from their start by Gaussian noise of size `spread`."""
    torch.manual_seed(0)
    model = generative.build(name, **SMALL[name], **config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += spread * torch.randn_like(parameter)
    return model


class Constant(nn.Module):
    """A network that says the same of everything, and remembers what it was shown."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x, condition=None):
        self.seen = x
        return self.output.expand(len(x), *self.output.shape[1:])


# --- layers


def test_additive_coupling_by_hand():
    layer = Coupling(Constant(torch.tensor([[10.0, 20.0]])), affine=False, swap=True)
    y, log_det = layer(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert y.tolist() == [[11, 22, 3, 4]] and log_det.tolist() == [0]
    assert layer.network.seen.tolist() == [[3, 4]]
    assert layer.inverse(y).tolist() == [[1, 2, 3, 4]]


def test_affine_coupling_by_hand():
    raw = 2 * math.atanh(math.log(3) / 2)  # of a scale of 3 under the bound of 2
    layer = Coupling(Constant(torch.tensor([[10.0, raw]])), affine=True, swap=False)
    y, log_det = layer(torch.tensor([[1.0, 2.0]]))
    torch.testing.assert_close(y, torch.tensor([[1.0, 2 * 3 + 10]]))
    assert log_det.item() == pytest.approx(math.log(3))


def test_coupling_scale_stays_within_its_bound_whatever_the_network_says():
    layer = Coupling(Constant(torch.tensor([[0.0, 1e9]])), affine=True, swap=False, bound=1.5)
    assert layer(torch.ones(1, 2))[1].item() == pytest.approx(1.5)


@pytest.mark.parametrize("parity", [0, 1])
def test_checkerboard_moves_one_colour_by_the_other(parity):
    torch.manual_seed(0)
    layer = CheckerboardCoupling(ConvNetwork(2, 6, 1, 4, "silu"), parity=parity).double()
    nn.init.normal_(layer.network.last.weight, std=0.2)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    kept = checkerboard(4, 4, parity, x).bool().expand(2, 4, 4).flatten()
    jacobian = torch.autograd.functional.jacobian(lambda v: layer(v)[0], x).view(32, 32)
    assert torch.equal(jacobian[kept], torch.eye(32).double()[kept])
    among_moved = jacobian[~kept][:, ~kept]
    assert torch.equal(among_moved, among_moved.diag().diag()) and jacobian[~kept][:, kept].any(0).all()


def test_squeeze_by_hand():
    x = torch.arange(8.0).view(1, 2, 2, 2)  # two colours of one 2 × 2 block
    y, log_det = Squeeze()(x)
    assert y.shape == (1, 8, 1, 1) and y.flatten().tolist() == list(range(8)) and log_det.item() == 0
    assert torch.equal(Squeeze().inverse(y), x)


def test_activation_norm_starts_by_its_first_batch_alone():
    norm = ActNorm(3)
    x = torch.randn(64, 3, 4, 4, generator=generator()) * torch.tensor([3.0, 0.01, 50.0]).view(3, 1, 1) + 7
    start_activation_norms(norm, x, None)
    y, log_det = norm(x)
    std, mean = torch.std_mean(y.transpose(0, 1).flatten(1), 1, correction=0)
    torch.testing.assert_close(mean, torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(std, torch.ones(3), atol=1e-3, rtol=0)
    expected = -16 * x.transpose(0, 1).flatten(1).std(1, correction=0).log().sum()  # height · width times
    torch.testing.assert_close(log_det, expected.expand(64), rtol=1e-3, atol=0)
    before = norm.shift.clone()
    start_activation_norms(norm, x + 100, None)
    assert torch.equal(norm.shift, before) and norm.state_dict()["started"]


def test_activation_norm_waits_for_two_data_and_survives_a_constant():
    norm = ActNorm(2)
    start_activation_norms(norm, torch.ones(1, 2), None)
    assert not norm.started
    start_activation_norms(norm, torch.tensor([[5.0, 1.0], [5.0, 3.0]]), None)
    scales = norm(torch.tensor([[6.0, 3.0]]))[0]
    torch.testing.assert_close(scales, torch.tensor([[1 / LEAST_STD, 1.0]]), rtol=1e-3, atol=0)


def test_activation_norms_start_in_training_and_are_left_alone_in_use():
    model = generative.build("real_nvp", shape=(2,), **SMALL["real_nvp"])
    batch = {"x": torch.randn(32, 2, generator=generator()) * 20 + 100}
    model.eval().loss(batch, generator=generator())
    assert not any(value.item() for key, value in model.state_dict().items() if key.endswith("started"))
    nats = model.train().loss(batch, generator=generator())[0]
    assert all(value.item() for key, value in model.state_dict().items() if key.endswith("started"))
    assert nats < 2 * (math.log(20) + 1.6)  # the Gaussian's own entropy is 2 (ln 20 + 1.42)


def test_invertible_convolution_starts_as_a_rotation_and_counts_every_pixel():
    torch.manual_seed(0)
    layer = InvertibleConvolution(5).double()
    weight = layer(torch.eye(5).double())[0].T  # the images of the axes
    torch.testing.assert_close(weight @ weight.T, torch.eye(5).double(), atol=1e-5, rtol=0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    weight = layer(torch.eye(5).double())[0].T
    _, log_det = layer(torch.zeros(2, 5, 3, 4).double())
    torch.testing.assert_close(log_det, 12 * torch.linalg.slogdet(weight).logabsdet.expand(2))
    assert {name for name, _ in layer.named_buffers()} == {"permutation", "sign"}


def test_split_prior_is_the_density_of_what_leaves():
    """log N(z_leaving; μ(z_staying), σ) for the half that leaves, N(0, 1) for the one that stays."""
    torch.manual_seed(0)
    prior = SplitPrior(1, 0, 2.0)
    nn.init.normal_(prior.convolution.weight, std=0.3)
    x = torch.randn(3, 2, 2, 2)
    z, log_det = Split((1, 2, 2), Flat((1, 2, 2)), prior)(x)
    mean, log_scale = prior(x[:, :1])
    expected = torch.distributions.Normal(mean, log_scale.exp()).log_prob(x[:, 1:]).flatten(1).sum(1)
    standard = torch.distributions.Normal(0, 1)
    torch.testing.assert_close(log_det + standard.log_prob(z[:, 4:]).sum(1), expected)


# --- models: laws


@EVERY
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_log_det_is_autograds_and_inverse_is_exact(name, shape):
    flow = built(name, shape=shape, spread=0.05).flow
    y = torch.randn(2, *flow.form.inner, generator=generator())
    z, log_det = flow.transformation(y)
    rows = [torch.autograd.functional.jacobian(lambda v: flow.transformation(v[None])[0][0], one) for one in y]
    jacobian = torch.stack(rows).view(2, z.shape[1], -1)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian).logabsdet, atol=1e-4, rtol=0)
    assert log_det.abs().min() > 0.01
    torch.testing.assert_close(flow.transformation.inverse(z), y, atol=1e-5, rtol=0)


@EVERY
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_decode_inverts_encode_of_data_as_recorded(name, shape):
    model = built(name, shape=shape, spread=0.02)
    if len(shape) == 1:
        x = torch.randn(8, *shape, generator=generator())
        torch.testing.assert_close(model.decode(model.encode(x)), x, atol=1e-5, rtol=0)
    else:
        x = torch.randint(256, (8, *shape), generator=generator(), dtype=torch.uint8)
        assert torch.equal(model.decode(model.encode(x)), x)
    assert model.encode(x).shape == (8, math.prod(shape))


@EVERY
def test_density_integrates_to_one(name):
    model = built(name, shape=(2,), spread=0.2).double()
    line = torch.linspace(-24, 24, 801, dtype=torch.float64)
    with torch.no_grad():
        total = model.log_prob(torch.cartesian_prod(line, line)).exp().sum() * (line[1] - line[0]) ** 2
    assert total.item() == pytest.approx(1, abs=1e-3)


@EVERY
def test_couplings_start_as_the_identity(name):
    """All but Glow's rotation of the axes, which keeps log p as well."""
    model = built(name, shape=(4,), spread=0.0).eval()
    x = torch.randn(6, 4, generator=generator())
    normal = torch.distributions.Normal(0, 1).log_prob(x).sum(1)
    torch.testing.assert_close(model.log_prob(x), normal)


@EVERY
def test_levels_have_the_probability_that_the_flow_leaves_within_their_ends(name):
    """P(x) = E over noise of the bound's exponential: its sum over all x is the density's mass between the ends.

    It fails if ln K, the logit's slope or its factor 1 − 2α is left out.
    """
    model = built(name, shape=(2, 2, 1), levels=2, alpha=0.2, spread=0.02)
    every, rounds = binary_states(4).view(16, 2, 2, 1), 1500
    with torch.no_grad():
        log_prob = model.elbo(every.repeat(rounds, 1, 1, 1), generator=generator(1)).view(rounds, 16)
        z = torch.randn(40_000, 4, generator=generator(2))
        share = model.flow.transformation.inverse(z).sigmoid().flatten(1)
    within = ((share > 0.2) & (share < 0.8)).all(1).double().mean().item()
    assert log_prob.exp().mean(0).sum().item() == pytest.approx(within, rel=0.05)
    assert 0.1 < within < 0.9


@EVERY
def test_capabilities_are_those_of_the_data(name):
    vectors, frames = built(name, shape=(3,)), built(name, shape=(4, 4, 1), num_classes=2)
    assert capabilities(vectors) == {"sample", "log_prob", "encode", "decode"}
    assert capabilities(frames) == {"sample", "elbo"} and frames.conditioned_on == "label"


@EVERY
@pytest.mark.parametrize("shape", [(3,), (4, 4, 1)], ids=str)
def test_label_enters_density_and_code(name, shape):
    model = built(name, shape=shape, num_classes=2)
    x = torch.zeros(1, 3) if len(shape) == 1 else torch.full((1, *shape), 100, dtype=torch.uint8)
    one, two = (torch.tensor([label]) for label in (0, 1))
    likelihood = model.log_prob if len(shape) == 1 else model.elbo
    assert not torch.allclose(likelihood(x, one), likelihood(x, two))
    torch.testing.assert_close(model.from_latent(model.to_latent(x, two), two), x)
    with pytest.raises(ValueError, match="cond is missing"):
        likelihood(x)


@EVERY
def test_temperature_scales_the_noise_of_every_scale(name):
    model = built(name, shape=(8, 8, 1), spread=0.02)
    middle = model.decode(torch.zeros(1, 64))
    assert torch.equal(model.sample(4, generator=generator(), temperature=0.0), middle.expand(4, 8, 8, 1))
    halved = model.sample(1, generator=generator(), temperature=0.5)
    assert torch.equal(halved, model.decode(0.5 * torch.randn(1, 64, generator=generator())))


@EVERY
def test_what_is_not_a_number_is_never_dropped(name):
    model = built(name, shape=(2,)).eval()  # a start of the activation norms would mend what is broken here
    next(model.parameters()).data.fill_(math.nan)
    assert model.loss({"x": torch.zeros(2, 2)}, generator=generator())[0].isnan()
    with pytest.raises(ValueError, match="not finite"):
        model.log_prob(torch.tensor([[0.0, math.inf]]))
    with pytest.raises(FloatingPointError, match="not a number"):
        built(name, shape=(4, 4, 1)).decode(torch.full((1, 16), math.nan))


def test_masked_data_and_impossible_configurations_are_refused():
    model = built("nice", shape=(2,))
    with pytest.raises(ValueError, match="Leave the mask out"):
        model.loss({"x": torch.zeros(1, 2), "mask": torch.ones(1, 2)}, generator=generator())
    with pytest.raises(ValueError, match=r"expected codes \[B, 2\]"):
        model.decode(torch.zeros(1, 3))
    for name, config, message in [
        ("nice", {"shape": (1,)}, "at least 2 dimensions"),
        ("nice", {"alpha": 0.5}, "alpha is 0.5"),
        ("real_nvp", {"shape": (6, 6, 1), "num_scales": 3}, "num_scales is 3; expected 1 to 2"),
        ("real_nvp", {"num_couplings": 1}, "at least 2"),
        ("glow", {"shape": (7, 8, 1)}, "even sides"),
        ("glow", {"log_scale_bound": 0.0}, "log_scale_bound is 0.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            generative.build(name, **config)


def test_to_line_and_back_at_every_level():
    levels = torch.arange(256.0)[:, None]
    for noise in (0.001, 0.5, 0.999):
        y, log_slope = to_line(levels, torch.full_like(levels, noise), 256, 0.01)
        assert torch.equal(to_levels(y, 256, 0.01), levels)
    share = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    y, log_slope = to_line(share, torch.zeros_like(share), 10, 0.1)  # levels needn't be whole: dy/dx in a unit of one level
    (slope,) = torch.autograd.grad(y, share)
    assert log_slope.item() == pytest.approx(math.log(slope.item()))


# --- known optimum


@pytest.mark.parametrize(("name", "config"), [
    ("nice", {}), ("real_nvp", {"num_couplings": 4}), ("glow", {"num_steps": 4})
])  # fmt: skip
def test_flow_learns_the_banana(name, config):
    """KL(p ‖ q) = E_p[log p − log q], which no flow can bring below 0 beyond the Monte Carlo error."""
    torch.manual_seed(0)
    model, source = generative.build(name, shape=(2,), hidden_sizes=(24,), **config), Banana()
    settings = {"steps": 300, "batch_size": 256, "learning_rate": 1e-2, "validation": 0, "keep": "last"}
    for _ in generative.fit(model, source, **settings):
        pass
    x = source.sample(20_000, generator(1))["x"]
    with torch.no_grad():
        excess = source.log_prob(x) - model.log_prob(x)
    error = excess.std().item() / math.sqrt(len(x))
    assert -4 * error < excess.mean().item() < 0.03


def test_conditional_dense_network_reads_its_condition():
    network = DenseNetwork(2, (4,), 1, "silu", condition=3)
    nn.init.ones_(network.mlp.output.weight)
    x, condition = torch.zeros(3, 2), torch.eye(3)
    assert len(network(x, condition).flatten().unique()) == 3


def test_glow_of_digits_beats_uniform_levels_at_once():
    torch.manual_seed(0)
    model = generative.build("glow", shape=(8, 8, 1), levels=17, hidden=8, num_steps=2)
    settings = {"steps": 40, "batch_size": 64, "learning_rate": 1e-2, "validate_every": 40}
    *_, (_, told) = generative.fit(model, Digits(levels=17, frames=True), **settings)
    assert told["validation/bits_per_dim"] < math.log2(17) - 0.5
