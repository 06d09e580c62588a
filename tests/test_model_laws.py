"""The laws of generative models: one test over every registered one, at tiny sizes."""

from __future__ import annotations

import copy
import inspect
import math

import pytest
import torch

import generative
from generative import MODELS, capabilities, model_class
from tests.model_cases import CASES, Case


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


EVERY = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.model}-{CASES.index(case)}")
LISTED = pytest.mark.parametrize(
    "case", [case for case in CASES if case.every is not None], ids=lambda case: f"{case.model}-{CASES.index(case)}"
)

AUTOREGRESSIVE = pytest.mark.parametrize(
    "case",
    [case for case in CASES if "given" in inspect.signature(getattr(model_class(case.model), "sample", seeded)).parameters],
    ids=lambda case: f"{case.model}-{CASES.index(case)}",
)


def built(case: Case):
    torch.manual_seed(0)
    return generative.build(case.model, **case.config)


def trained(case: Case, updates: int = 3):
    """A model that has left its start, where zero weights hide others."""
    model = built(case)
    for _ in generative.fit(model, case, steps=updates, batch_size=16, learning_rate=1e-2, keep="last", validation=0.0):
        pass
    return model


def condition(model, batch):
    return batch[model.conditioned_on] if model.conditioned_on else None


def test_every_registered_model_has_a_case():
    assert {case.model for case in CASES} == set(MODELS)


@EVERY
def test_loss_is_a_finite_mean_that_its_generator_alone_decides(case):
    model, batch = built(case), case.sample(6, seeded(1))
    for player, _ in model.schedule:
        torch.manual_seed(1)
        loss, metrics = model.loss(batch, player, generator=seeded(2))
        torch.manual_seed(2)
        again, _ = model.loss(batch, player, generator=seeded(2))
        assert loss.shape == () and loss.isfinite() and loss.requires_grad
        assert torch.equal(loss, again)
        assert not any(getattr(value, "requires_grad", False) for value in metrics.values()), "a metric holds its graph"


@EVERY
def test_gradient_reaches_every_trained_parameter(case):
    model = trained(case)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    owned = set()
    for player, _ in model.schedule:
        model.zero_grad()
        model.loss(case.sample(32, seeded(3)), player, generator=seeded(4))[0].backward()
        for parameter in model.parameters_of(player):
            owned.add(id(parameter))
            unreached = parameter.grad is None or not parameter.grad.any()
            assert not unreached or names[id(parameter)] in case.untrained, names[id(parameter)]
            assert parameter.grad is None or parameter.grad.isfinite().all()
    assert owned == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


@EVERY
def test_capabilities_hold(case):
    model = trained(case)
    batch = case.sample(5, seeded(1))
    x, cond, has = batch["x"], condition(model, batch), capabilities(model)
    with torch.no_grad():
        if "sample" in has:
            drawn = model.sample(len(x), cond, generator=seeded(3))
            assert drawn.dtype == x.dtype and drawn.shape[0] == len(x) and drawn.shape[-1] == x.shape[-1]
            assert torch.equal(drawn, model.sample(len(x), cond, generator=seeded(3)))
            torch.manual_seed(5)
            model.loss({**batch, "x": drawn}, generator=seeded(4))  # its own data are data to it
        for name in has & {"log_prob", "elbo"}:
            value = getattr(model, name)(x, cond)
            assert value.shape == (len(x),) and value.isfinite().all()
            assert torch.equal(value, getattr(model, name)(x, cond))
        if has >= {"log_prob", "elbo"}:
            assert (model.elbo(x, cond) <= model.log_prob(x, cond) + 1e-4).all()
        if "encode" in has:
            code = model.encode(x)
            assert code.ndim == 2 and len(code) == len(x)
            assert torch.equal(code, model.encode(x))
        if has >= {"encode", "decode"}:
            decoded = model.decode(code)
            assert decoded.shape == x.shape and decoded.dtype == x.dtype


@EVERY
def test_a_datum_is_judged_alone(case):
    """Batches of one give what the whole batch gives, row by row; nothing leaks between data."""
    model = trained(case)
    batch = case.sample(4, seeded(1))
    with torch.no_grad():
        one = {key: value[:1] for key, value in batch.items()}
        assert all(model.loss(one, player, generator=seeded())[0].isfinite() for player, _ in model.schedule)
        for name in capabilities(model) & {"log_prob", "encode"}:
            judge = getattr(model, name)
            many = judge(batch["x"], condition(model, batch)) if name == "log_prob" else judge(batch["x"])
            alone = judge(one["x"], condition(model, one)) if name == "log_prob" else judge(one["x"])
            torch.testing.assert_close(alone, many[:1], rtol=1e-4, atol=1e-5)


@LISTED
def test_probabilities_sum_to_one_and_samples_have_the_entropy_they_tell(case):
    model = trained(case).double()
    with torch.no_grad():
        log_prob = model.log_prob(case.every)
        assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-5)
        entropy = -(log_prob.exp() * log_prob).sum()
        nats = -model.log_prob(model.sample(2_000, generator=seeded()))
    assert abs(nats.mean() - entropy) < 4.5 * nats.std() / math.sqrt(len(nats)) + 1e-6


@EVERY
def test_saved_model_is_loaded_to_the_bit(case, tmp_path):
    model = trained(case)
    generative.save(model, tmp_path / "model.safetensors")
    loaded = generative.load(tmp_path / "model.safetensors")
    assert loaded.config == model.config and not loaded.training
    batch = case.sample(4, seeded(1))
    cond = condition(model, batch)
    with torch.no_grad():
        assert (
            torch.equal(model.loss(batch, generator=seeded())[0], loaded.loss(batch, generator=seeded())[0])
            or len(model.schedule) > 1
        )
        if "sample" in capabilities(model):
            assert torch.equal(model.sample(3, None if cond is None else cond[:3], generator=seeded()),
                               loaded.sample(3, None if cond is None else cond[:3], generator=seeded()))  # fmt: skip
        if "encode" in capabilities(model):
            assert torch.equal(model.encode(batch["x"]), loaded.encode(batch["x"]))


@EVERY
def test_float64_agrees_with_float32(case):
    model, batch = trained(case), case.sample(8, seeded(1))
    precise = copy.deepcopy(model).double()
    wide = {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}
    cond, wide_cond = condition(model, batch), condition(model, wide)
    with torch.no_grad():
        for player, _ in model.schedule:
            assert precise.loss(wide, player, generator=seeded())[0].dtype == torch.float64
        for name in capabilities(model) & {"log_prob", "encode"}:
            narrow = (getattr(model, name)(batch["x"], cond) if name == "log_prob" else model.encode(batch["x"])).double()
            exact = getattr(precise, name)(wide["x"], wide_cond) if name == "log_prob" else precise.encode(wide["x"])
            assert exact.dtype == torch.float64
            torch.testing.assert_close(narrow, exact, rtol=2e-4, atol=2e-4)


@EVERY
def test_wrong_data_are_refused_by_name(case):
    model, batch = built(case), case.sample(3, seeded(1))
    assert any(other.refused for other in CASES if other.model == case.model), "no case names data that the model refuses"
    for what, x, message in case.refused:
        with pytest.raises(ValueError, match=message):
            model.loss({**{key: value[: len(x)] for key, value in batch.items()}, "x": x}, generator=seeded())
            pytest.fail(f"{what} were taken")


@AUTOREGRESSIVE
def test_given_values_are_kept_in_samples(case):
    model = trained(case)
    if "sample" not in capabilities(model):
        pytest.skip("this configuration has no samples")
    batch = case.sample(3, seeded(1))
    x, cond = batch["x"], condition(model, batch)
    size = x[0].numel()
    with torch.no_grad():
        whole = model.sample(3, cond, generator=seeded(), given=x, num_given=size)
        assert torch.equal(whole, x)
        half = model.sample(3, cond, generator=seeded(), given=x, num_given=size // 2)
    assert ((half == x).flatten(1).sum(1) >= size // 2).all()


def dense(model, x, cond):
    return model.logits(x, cond)[..., None], torch.arange(x.shape[1])


def by_masks(model, x, cond):
    width = model.config.levels if model.config.head == "categorical" else 1
    inputs = x[..., None].expand(-1, -1, width)
    return model.conditionals(inputs, cond, torch.tensor([0])), model.orderings[0] - 1


def by_pixels(model, x, cond):
    """Frames are [B, C, H, W] within; drawn row by row, colour by colour."""
    config = model.config
    places = torch.arange(config.height * config.width * config.channels)
    outputs = model(x.view(-1, config.height, config.width, config.channels).movedim(3, 1), cond)
    return outputs.movedim(1, 3).flatten(1, 3), places


def by_steps(model, x, cond):
    """The values of a step are independent given those before it, so they share a place."""
    outputs = model.readout(model.features(x)[:, :-1])
    return outputs.flatten(1, 2), torch.arange(x.shape[1]).repeat_interleave(x.shape[2])


# (model, float x, condition) → parameters [B, N, P] of every value's conditional, and its place in the order
CONDITIONALS = {
    **dict.fromkeys(("fvsbn", "nade"), dense),
    "made": by_masks,
    **dict.fromkeys(("pixel_cnn", "gated_pixel_cnn", "pixel_rnn"), by_pixels),
    **dict.fromkeys(("wavenet", "transformer", "lstm", "elman_rnn"), by_steps),
}


@AUTOREGRESSIVE
def test_conditionals_have_no_gradient_from_later_values(case):
    model = trained(case).eval()
    if "sample" not in capabilities(model):
        pytest.skip("this configuration models a label, not the data")
    batch = case.sample(8, seeded(1))
    sequences = CONDITIONALS[case.model] is by_steps
    x = batch["x"].float() if sequences and batch["x"].ndim == 3 else batch["x"].flatten(1).float()
    x = (x[..., None] if sequences and x.ndim == 2 else x) + 0.1  # a kink of ReLU at 0 has no slope
    cond = condition(model, batch)
    with torch.no_grad():
        count = CONDITIONALS[case.model](model, x, cond)[0].shape[1]
    for i in {0, count // 2, count - 1}:
        given = x.clone().requires_grad_()
        outputs, places = CONDITIONALS[case.model](model, given, cond)
        (slope,) = torch.autograd.grad(outputs[:, i].square().sum(), given)
        reached = (slope.flatten(1) != 0).any(0)
        assert not reached[places >= places[i]].any()
        assert reached[places < places[i]].any() or places[i] == 0
