"""The contract, the registry, the storage and the heads of `generative`."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import pytest
import safetensors.torch
import torch
from torch import nn

import generative
from generative import storage
from generative.discretised_logistic import DiscretisedLogisticMixture
from generative.likelihoods import (
    Bernoulli,
    CategoricalHead,
    Gaussian,
    Laplace,
    per_dimension,
    soft_bound,
)
from generative.model import GenerativeModel

HERE = "tests.test_generative_contract:Tied"


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1


@dataclass(frozen=True)
class TiedConfig:
    width: int
    rate: float = 1e-3
    sizes: tuple[int, ...] = (2, 3)
    act: Literal["relu", "tanh"] = "relu"
    depth: int | None = None
    bias: bool = True
    inner: Inner = Inner()


class Tied(GenerativeModel):
    """Tied weights, a view, buffers of several types and two players."""

    Config = TiedConfig
    schedule = (("critic", 2), ("generator", 1))

    def __init__(self, config: TiedConfig) -> None:
        super().__init__(config)
        self.generator = nn.Linear(config.width, config.width)
        self.critic = nn.Linear(config.width, config.width)
        self.critic.weight = self.generator.weight
        self.dropout = nn.Dropout(0.5)
        whole = torch.arange(6.0)
        self.register_buffer("whole", whole)
        self.register_buffer("part", whole[:3])
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("odd", torch.tensor([math.nan, -0.0, math.inf]))
        self.register_buffer("none", torch.zeros(0, 2))

    def encode(self, x):
        return self.dropout(self.generator(x))


def tied(**config) -> Tied:
    return generative.build(HERE, width=4, **config)


def bits(tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_import_generative_is_light():
    code = "import sys, generative; assert not {'torch', 'numpy', 'safetensors'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_capabilities_are_those_present():
    assert generative.capabilities(tied()) == {"encode"}
    assert generative.capabilities(GenerativeModel) == frozenset()


def test_parameters_of_a_player_are_its_submodules_trainable_ones():
    model = tied()
    model.critic.bias.requires_grad_(False)
    assert [id(p) for p in model.parameters_of("critic")] == [id(model.critic.weight)]
    with pytest.raises(ValueError, match=r"unknown player 'model' of Tied \(known: critic, generator\)"):
        model.parameters_of("model")


def test_model_refuses_a_foreign_configuration():
    with pytest.raises(TypeError, match=r"Tied got a Inner; expected its TiedConfig"):
        Tied(Inner())
    with pytest.raises(TypeError, match="GenerativeModel has no Config"):
        GenerativeModel(Inner())


def test_build_converts_plain_values_as_annotated():
    config = tied(rate=1, sizes=[4, 5], inner={"rate": 2}).config
    assert config == TiedConfig(4, 1.0, (4, 5), inner=Inner(2.0))
    assert type(config.rate) is float and type(config.sizes) is tuple


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"widht": 4}, r"unknown key 'widht'; did you mean 'width'\? \(known: act, bias, depth,"),
        ({}, r"missing width; a value is required"),
        ({"width": "4"}, r"Tied.width is '4'; expected int"),
        ({"width": True}, r"Tied.width is True; expected int"),
        ({"width": 4, "rate": "1e-3"}, r"Tied.rate is '1e-3'; expected float"),
        ({"width": 4, "sizes": [1, 2.5]}, r"Tied.sizes.1 is 2.5; expected int"),
        ({"width": 4, "act": "rely"}, r"Tied.act is 'rely'; expected 'relu' or 'tanh'"),
        ({"width": 4, "depth": 1.5}, r"Tied.depth is 1.5; expected int \| None"),
        ({"width": 4, "bias": 1}, r"Tied.bias is 1; expected bool"),
        ({"width": 4, "inner": {"rat": 1}}, r"Tied.inner: unknown key 'rat'; did you mean 'rate'\?"),
    ],
)
def test_build_refuses_what_the_configuration_does_not_take(values, message):
    with pytest.raises(ValueError, match=message):
        generative.build(HERE, **values)


def test_build_names_the_nearest_known_model(monkeypatch):
    monkeypatch.setattr(generative, "MODELS", {"tied": HERE, "vae": "x:y"})
    with pytest.raises(ValueError, match=r"unknown model 'tide'; did you mean 'tied'\? \(known: tied, vae\)"):
        generative.build("tide")
    assert isinstance(generative.build("tied", width=2), Tied)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (":Tied", "should be a registered name or 'package.module:Class'"),
        ("tests.absent:Tied", "no module 'tests.absent'"),
        ("tests.test_generative_contract:Absent", "has no class 'Absent'"),
        ("generative.model:Tensor", "is no model"),
        ("generative.model:GenerativeModel", "is no model"),
    ],
)
def test_build_refuses_what_is_no_model(name, message):
    with pytest.raises(ValueError, match=message):
        generative.build(name)


def test_every_registered_model_is_found():
    for name in generative.MODELS:
        assert issubclass(generative.model_class(name), GenerativeModel)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_storage_round_trip_to_the_bit(tmp_path, dtype):
    model = tied(rate=0.1, sizes=[7], inner={"rate": 0.3}).to(dtype)
    with torch.no_grad():
        model.generator.weight.copy_(torch.randn(4, 4, generator=seeded()).t())
        model.count.add_(1)
    model.part = torch.full((3,), 9, dtype=dtype)
    path = tmp_path / "new" / "model.safetensors"
    generative.save(model, path)
    state = torch.random.get_rng_state()
    loaded = generative.load(str(path), trust=True)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert loaded.config == model.config and not loaded.training
    assert loaded.critic.weight is loaded.generator.weight
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        found = loaded.state_dict()[name]
        assert (found.dtype, found.shape, bits(found)) == (tensor.dtype, tensor.shape, bits(tensor)), name
    x = torch.randn(3, 4, generator=seeded()).to(dtype)
    assert bits(loaded.encode(x)) == bits(model.eval().encode(x))
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


def test_storage_writes_tied_weights_once(tmp_path):
    generative.save(tied(), tmp_path / "model")
    names = safetensors.torch.load_file(tmp_path / "model").keys()
    assert len({"generator.weight", "critic.weight"} & names) == 1
    assert {"generator.bias", "critic.bias", "whole", "part"} <= names


def test_storage_refuses_what_the_class_would_tie(tmp_path):
    model = tied()
    model.critic.weight = nn.Parameter(torch.zeros(4, 4))
    generative.save(model, tmp_path / "model")
    with pytest.raises(ValueError, match=r"ties '(critic|generator).weight' to another tensor"):
        generative.load(tmp_path / "model", trust=True)


def test_storage_imports_a_foreign_class_only_on_trust(tmp_path, monkeypatch):
    generative.save(tied(), tmp_path / "model")
    with pytest.raises(ValueError, match=r"holds a model of class 'tests.test_generative_contract:Tied'.*trust=True"):
        generative.load(tmp_path / "model")
    monkeypatch.setitem(generative.MODELS, "tied", HERE)
    assert isinstance(generative.load(tmp_path / "model"), Tied)
    generative.save(tied(), tmp_path / "registered")
    assert isinstance(generative.load(tmp_path / "registered"), Tied)


def test_storage_refuses_every_truncation_and_every_altered_byte_it_samples(tmp_path):
    path = tmp_path / "model"
    generative.save(tied(), path)
    whole = path.read_bytes()
    for length in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="truncated or no file of generative"):
            generative.load(path, trust=True)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="damaged or was altered"):
        generative.load(path, trust=True)
    path.write_bytes(whole.replace(rb"\"width\": 4", rb"\"width\": 5"))
    assert path.read_bytes() != whole
    with pytest.raises(ValueError, match="damaged or was altered"):
        generative.load(path, trust=True)
    for place in range(8, len(whole), 7):  # a bit flipped anywhere is found
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"model (is|has) "):
            generative.load(path, trust=True)


def rewritten(path, **changes) -> None:
    """The file with its description changed and a right hash: what another version would write."""
    content, tensors = storage._read(path)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in content["aliases"]}
    text = json.dumps({**content, **changes})
    metadata = {"generative": text, "sha256": storage._hash(text, tensors)}
    safetensors.torch.save_file(tensors, path, metadata=metadata)


def test_storage_refuses_foreign_and_newer_files(tmp_path):
    path = tmp_path / "model"
    safetensors.torch.save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="is a safetensors file, but no model of"):
        generative.load(path)
    path.write_bytes(b"PK\x03\x04 a pickle, say")
    with pytest.raises(ValueError, match="truncated or no file of generative"):
        generative.load(path)
    generative.save(tied(), path)
    rewritten(path, format=2, anything=1)
    with pytest.raises(ValueError, match="has format 2, of a newer version; this one reads up to 1"):
        generative.load(path, trust=True)
    generative.save(tied(), path)
    rewritten(path, config={"width": 5})
    with pytest.raises(ValueError, match=r"(?s)this version's '.*Tied' doesn't take what the file holds: .*size mismatch"):
        generative.load(path, trust=True)


def test_storage_refuses_to_save_what_it_could_not_load(tmp_path):
    class Local(Tied):
        pass

    with pytest.raises(ValueError, match="has no class"):
        generative.save(Local(TiedConfig(2)), tmp_path / "model")
    with pytest.raises(ValueError, match="can't be stored"):
        generative.save(Tied(TiedConfig(2, rate=math.nan)), tmp_path / "model")
    with pytest.raises(ValueError, match="rate is 'fast'"):
        generative.save(Tied(TiedConfig(2, rate="fast")), tmp_path / "model")
    assert not list(tmp_path.iterdir())


HEADS = [
    Bernoulli(),
    CategoricalHead(5),
    Gaussian(),
    Gaussian(scale=None),
    Laplace(2.0),
    Laplace(None),
    DiscretisedLogisticMixture(5, 3),
    DiscretisedLogisticMixture(256, 2),
]


def test_heads_numbers_by_hand():
    zero, one = torch.zeros(1, 1), torch.ones(1)
    assert Bernoulli().log_prob(torch.full((1, 1), math.log(3)), one).item() == pytest.approx(math.log(0.75))
    logits = torch.tensor([[1.0, 2.0, 5.0]]).log()
    assert CategoricalHead(3).log_prob(logits, torch.tensor([1])).item() == pytest.approx(math.log(0.25))
    assert CategoricalHead(3).mean(logits).item() == pytest.approx(0.25 + 2 * 0.625)
    assert Gaussian(2.0).log_prob(zero, one).item() == pytest.approx(-1 / 8 - math.log(2) - 0.5 * math.log(2 * math.pi))
    assert Laplace(2.0).log_prob(zero, one).item() == pytest.approx(-1 / 2 - math.log(4))


def test_discretised_logistic_mixture_numbers_by_hand():
    """K = 3: bounds between levels at ∓½; scale 1, so P(1) = σ(½ − μ) − σ(−½ − μ)."""

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    head = DiscretisedLogisticMixture(3, 2)
    weights, means = (0.25, 0.75), (0.0, 1.0)
    parameters = torch.tensor([[*map(math.log, weights), *means, 0.0, 0.0]]).expand(3, 6)
    log_scale = soft_bound(torch.zeros(1), -7, 7).item()
    assert log_scale == pytest.approx(0, abs=1e-3)
    below = [[sigmoid((edge - mean) / math.exp(log_scale)) for mean in means] for edge in (-0.5, 0.5)]
    low, middle, high = (sum(w * p for w, p in zip(weights, row)) for row in (below[0], below[1], (1, 1)))
    expected = torch.tensor([low, middle - low, high - middle]).log()
    assert torch.allclose(head.log_prob(parameters, torch.arange(3)), expected, atol=1e-5)
    assert torch.allclose(head.log_prob(parameters, torch.arange(3, dtype=torch.uint8)), expected, atol=1e-5)
    assert head.mean(parameters[0]).item() == pytest.approx((middle - low) + 2 * (high - middle), abs=1e-5)


@pytest.mark.parametrize("levels", [2, 3, 16, 256])
@pytest.mark.parametrize("spread", [1.0, 10.0, 1e3])
def test_probabilities_of_levels_sum_to_one(levels, spread):
    for head in (CategoricalHead(levels), DiscretisedLogisticMixture(levels, 1), DiscretisedLogisticMixture(levels, 4)):
        parameters = spread * torch.randn(50, head.out_features, generator=seeded(), dtype=torch.float64)
        every = torch.arange(levels).expand(50, levels)
        log_prob = head.log_prob(parameters[:, None].expand(50, levels, -1), every)
        assert log_prob.isfinite().all()
        assert torch.allclose(log_prob.exp().sum(-1), torch.ones(50, dtype=torch.float64), atol=1e-9)
        mean = (log_prob.exp() * every).sum(-1)
        assert torch.allclose(head.mean(parameters), mean, atol=1e-6)


def test_probabilities_of_a_bernoulli_sum_to_one():
    logits = torch.tensor([-800.0, -3, 0, 3, 800])[:, None]
    total = Bernoulli().log_prob(logits, torch.zeros(5)).exp() + Bernoulli().log_prob(logits, torch.ones(5)).exp()
    assert torch.allclose(total, torch.ones(5))


@pytest.mark.parametrize("family", [Gaussian, Laplace])
@pytest.mark.parametrize("raw", [-2.0, 0.0, 1.5, 50.0])
def test_densities_integrate_to_one(family, raw):
    head = family(scale=None, log_scale_bounds=(-3.0, 2.0))
    x = torch.linspace(-400, 400, 800_001, dtype=torch.float64)  # 0.001 apart, the least scale is e⁻³
    parameters = torch.tensor([0.3, raw], dtype=torch.float64).expand(len(x), 2)
    assert torch.trapezoid(head.log_prob(parameters, x).exp(), x).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_gradients_are_finite_in_the_tails(head):
    levels = getattr(head, "levels", 2)
    x = torch.tensor([0, levels // 2, levels - 1]).repeat(60)
    parameters = 1e3 * torch.randn(180, head.out_features, generator=seeded())
    parameters.requires_grad_()
    log_prob = head.log_prob(parameters, x)
    log_prob.sum().backward()
    assert log_prob.isfinite().all() and parameters.grad.isfinite().all()
    moderate = torch.randn(180, head.out_features, generator=seeded()).requires_grad_()
    head.log_prob(moderate, x).sum().backward()
    assert (moderate.grad.abs().sum(0) > 0).all(), "a parameter gets no gradient"


def test_discretised_logistic_far_tail_keeps_its_slope():
    """log P falls by 1/s per unit of distance far from the mean; a difference of sigmoids would give log 0."""
    head = DiscretisedLogisticMixture(256, 1, (-7.0, 7.0))
    parameters = torch.tensor([[0.0, 1.0, -5.0]]).requires_grad_()
    value = head.log_prob(parameters, torch.tensor([10]))
    value.sum().backward()
    rate = 1 / soft_bound(torch.tensor([-5.0]), -7, 7).exp().item()
    assert value.item() < -200
    assert parameters.grad[0, 1].item() == pytest.approx(-rate, rel=1e-3)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_samples_agree_with_the_mean_and_the_probabilities(head):
    parameters = torch.randn(head.out_features, generator=seeded(3))
    many = parameters.expand(100_000, -1)
    x = head.sample(many, seeded(1))
    assert x.shape == many.shape[:1]
    deviation = x.double().std().item() / math.sqrt(len(x))
    assert x.double().mean().item() == pytest.approx(head.mean(parameters[None]).item(), abs=4 * deviation)
    entropies = -head.log_prob(many, x).double()  # E[−log p(x)] is the entropy: by samples, and by samples of another seed
    others = -head.log_prob(many, head.sample(many, seeded(2))).double()
    assert entropies.mean().item() == pytest.approx(others.mean().item(), abs=6 * entropies.std().item() / math.sqrt(len(x)))
    if not x.is_floating_point():
        frequency = x.bincount(minlength=head.levels) / len(x)
        p = head.log_prob(parameters.expand(head.levels, -1), torch.arange(head.levels)).exp()
        assert ((frequency - p).abs() <= 5 * (p / len(x)).sqrt() + 1e-4).all()


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_sample_is_a_function_of_its_noise(head):
    parameters = torch.randn(6, 2, head.out_features, generator=seeded())
    noise = head.noise((6, 2), seeded(5))
    assert torch.equal(head.sample(parameters, noise), head.sample(parameters, seeded(5)))
    if not isinstance(head, Gaussian):
        assert head.sample(parameters, torch.zeros_like(noise)).double().isfinite().all()


@pytest.mark.parametrize("scale", [0.5, None])
def test_scale_of_samples_is_that_of_the_density(scale):
    parameters = torch.tensor([1.0, -0.4][: 1 if scale else 2])
    for family, deviation in ((Gaussian, 1.0), (Laplace, math.sqrt(2))):
        head = family(scale)
        expected = head.log_scale(parameters).exp().item() * deviation
        assert head.sample(parameters.expand(100_000, -1), seeded()).std().item() == pytest.approx(expected, rel=0.02)


def test_impossible_levels_are_never_drawn():
    logits = torch.tensor([0.0, -math.inf, 0.0]).expand(10_000, 3)
    assert (CategoricalHead(3).sample(logits, seeded()) != 1).all()


def test_maximum_likelihood_is_squared_and_absolute_error():
    """Notes §1.2: with fixed scales the gradients of −log p are those of (x − μ)²/2 and of |x − μ|."""
    location = torch.randn(20, generator=seeded()).requires_grad_()
    x = torch.randn(20, generator=seeded(1))
    for head, error in ((Gaussian(), 0.5 * (x - location) ** 2), (Laplace(), (x - location).abs())):
        (ours,) = torch.autograd.grad(-head.log_prob(location[:, None], x).sum(), location)
        (theirs,) = torch.autograd.grad(error.sum(), location)
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_soft_bound_is_bounded_monotone_and_near_the_identity():
    x = torch.linspace(-60, 60, 1001, dtype=torch.float64)
    bounded = soft_bound(x, -7, 7)
    assert bounded.min() >= -7 and bounded.max() <= 7.001
    assert (bounded.diff() >= 0).all() and (bounded.diff()[x[1:].abs() < 30] > 0).all()
    inside = x.abs() < 3
    assert (bounded - x)[inside].abs().max() < 0.02


def test_per_dimension_keeps_the_parameters_of_a_dimension_together():
    output = torch.arange(2 * 6 * 4 * 5).reshape(2, 6, 4, 5)
    parameters = per_dimension(output, 3)
    assert parameters.shape == (2, 2, 4, 5, 3)
    assert torch.equal(parameters[1, 1, 2, 3], output[1, 3:6, 2, 3])
    assert torch.equal(per_dimension(torch.arange(6)[None], 2, -1), torch.arange(6).reshape(1, 3, 2))


def test_heads_refuse_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match=r"Gaussian got parameters \[4, 1\] for x \[4, 4\]; expected \[4, 4, 1\]"):
        Gaussian().log_prob(torch.zeros(4, 1), torch.zeros(4, 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(0.0), "scale is 0.0; expected a positive number"),
        (lambda: Laplace(None, (1.0, 1.0)), "log_scale_bounds is .*; expected low < high"),
        (lambda: CategoricalHead(1), "levels is 1; expected at least 2"),
        (lambda: DiscretisedLogisticMixture(256, 0), "components is 0; expected at least 1"),
    ],
)
def test_heads_refuse_impossible_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
