"""FVSBN, NADE and MADE: their equations by hand, causality, exact sampling, and what they can and can't learn."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import generative
from generative.autoregressive import ancestral
from generative.autoregressive.nade import preactivations
from generative.sources import binary_states, source

SHUFFLED = (2, 0, 3, 1)  # a permutation that isn't its own inverse
SMALL = {  # name: (model, configuration over 4 dimensions)
    "fvsbn": ("fvsbn", {}),
    "nade": ("nade", {"hidden": 6}),
    "nade relu": ("nade", {"hidden": 6, "activation": "relu"}),
    "made": ("made", {"hidden_sizes": (7, 6), "ordering": SHUFFLED}),
    "made direct": ("made", {"hidden_sizes": (3,), "ordering": SHUFFLED, "direct": True}),
    "made masks": ("made", {"hidden_sizes": (9,), "ordering": SHUFFLED, "num_masks": 3}),
    "made orders": ("made", {"hidden_sizes": (9,), "num_masks": 3, "order_agnostic": True}),
    "made levels": ("made", {"hidden_sizes": (9,), "ordering": SHUFFLED, "head": "categorical", "levels": 3, "direct": True}),
    "made logistic": (
        "made",
        {"hidden_sizes": (9,), "ordering": SHUFFLED, "head": "discretised_logistic", "levels": 3, "components": 2},
    ),
}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(name: str, **more):
    """A float64 model with weights so large that its conditionals are far from fair."""
    model_name, config = SMALL[name]
    torch.manual_seed(1)
    model = generative.build(model_name, dimensions=4, **config, **more).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (1.5 if parameter.ndim == 2 else 0.5))
    return model


def states(model) -> torch.Tensor:
    levels = getattr(model, "levels", 2)
    return torch.tensor(list(itertools.product(range(levels), repeat=4)), dtype=torch.float64)


def visits(model) -> list[int]:
    """Places in the order in which they are drawn."""
    return model.orderings[0].argsort().tolist() if hasattr(model, "orderings") else list(range(4))


def frequencies(samples: torch.Tensor, every: torch.Tensor) -> torch.Tensor:
    return (samples[:, None] == every).all(2).double().mean(0)


def trained(name: str, data, *, seed: int = 0, **config_and_settings):
    config = config_and_settings.pop("config")
    torch.manual_seed(seed)
    model = generative.build(name, **config)
    for _ in generative.fit(model, data, **config_and_settings):
        pass
    return model


def test_fvsbn_log_prob_by_hand():
    model = generative.build("fvsbn", dimensions=3)
    with torch.no_grad():
        model.weight.copy_(
            torch.tensor([[9.0, 9.0, 9.0], [2.0, 9.0, 9.0], [-1.0, 0.5, 9.0]])
        )  # on and above the diagonal: unseen
        model.bias.copy_(torch.tensor([0.3, -1.0, 0.2]))
    sigmoid = lambda a: 1 / (1 + math.exp(-a))  # noqa: E731
    expected = math.log(sigmoid(0.3)) + math.log(1 - sigmoid(-1.0 + 2.0)) + math.log(sigmoid(0.2 - 1.0))
    assert model.log_prob(torch.tensor([[1.0, 0.0, 1.0]])).item() == pytest.approx(expected, abs=1e-6)
    assert model.encode(torch.tensor([[1.0, 0.0, 1.0]])).tolist()[0] == pytest.approx([0.3, 1.0, -0.8])


def test_fvsbn_has_as_many_acting_parameters_as_pairs_and_values():
    model = generative.build("fvsbn", dimensions=6)
    model.loss(source("ising", side=2).sample(1, rng()) | {"x": torch.ones(1, 6)}, generator=rng())[0].backward()
    acting = sum(int((parameter.grad != 0).sum()) for parameter in model.parameters())
    assert acting == 6 * 7 // 2


def test_nade_recursion_is_that_of_the_notes():
    model = small("nade")
    x, a, logits = torch.tensor([1.0, 0.0, 1.0, 1.0]).double(), model.hidden_bias, []
    for i in range(4):  # a_1 = b, h_i = σ(a_i), a_{i+1} = a_i + W_{:,i} x_i
        logits.append(model.readout[:, i] @ torch.sigmoid(a) + model.bias[i])
        a = a + model.weight[:, i] * x[i] if i < 3 else a
    torch.testing.assert_close(model.logits(x[None])[0], torch.stack(logits))
    torch.testing.assert_close(model.encode(x[None])[0], torch.sigmoid(a))


def test_nade_recursion_costs_a_hidden_layer_per_value():
    weight, bias = torch.tensor([[1.0, 10.0, 100.0]]), torch.tensor([0.5])
    assert preactivations(torch.tensor([[1.0, 0.0, 1.0, 1.0]]), weight, bias).tolist() == [[[0.5, 1.5, 1.5, 101.5]]]


def test_made_masks_by_hand():
    model = generative.build("made", dimensions=3, hidden_sizes=(2, 2), ordering=(1, 2, 0))  # m⁰ = 2, 3, 1; m = 1, 2
    first, second, last = (layer.mask[0].int().tolist() for layer in (*model.hidden, model.last))
    assert first == [[0, 0, 1], [1, 0, 1]]
    assert second == [[1, 0], [1, 1]]
    assert last == [[1, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize("name", SMALL)
def test_conditionals_see_every_value_before_theirs_and_no_other(name):
    model, order = small(name), visits(small(name))
    if not hasattr(model, "orderings"):
        x = torch.rand(4, dtype=torch.float64)
        seen = torch.autograd.functional.jacobian(lambda x: model.logits(x[None])[0], x).abs() > 0  # [output, input]
        assert [(i, j) for i in order for j in order if seen[i, j]] == [(i, j) for i in range(4) for j in range(i)]
        return
    for which, places in zip(model._every_mask(), model.orderings):
        inputs = 3 * torch.randn_like(model.inputs(states(model)))  # many, since rectified units are off for some
        outputs = lambda inputs: model.conditionals(inputs, None, which).abs().sum((0, 2))  # noqa: B023, E731
        seen = torch.autograd.functional.jacobian(outputs, inputs).abs().sum((1, 3)) > 0  # [D, D]
        before = places < places[:, None]
        assert not (seen & ~before).any()
        assert (seen == before).all() or model.config.num_masks > 1  # random degrees may leave a few out


def test_made_evenly_spread_degrees_reach_all_from_the_first_to_the_last_but_one():
    model = generative.build("made", dimensions=20, hidden_sizes=(19, 40), ordering="random", mask_seed=3)
    degrees = model.hidden[0].mask[0].sum(1)  # of a first-layer unit: how many dimensions it sees
    assert degrees.tolist() == list(range(1, 20))
    field = torch.from_numpy(model.pictures()["receptive_field"][..., 0] > 0)
    places = model.orderings[0]
    assert torch.equal(field, places < places[:, None])
    assert places.tolist() != sorted(places.tolist())


@pytest.mark.parametrize("name", SMALL)
def test_probabilities_sum_to_one_and_samples_follow_them(name):
    model = small(name)
    p = model.log_prob(states(model)).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-10)
    assert p.max() > 2.5 * p.mean()  # far from uniform, so that a wrong sampler would show
    samples = model.sample(20_000, generator=rng())
    assert samples.dtype == torch.float64
    assert (frequencies(samples, states(model)) - p).abs().sum() / 2 < 0.04


@pytest.mark.parametrize("name", [name for name in SMALL if name != "made orders"])
def test_given_values_stay_and_the_others_follow_their_conditional(name):
    model, every = small(name), states(small(name))
    first = visits(model)[:2]
    given = torch.full((20_000, 4), torch.nan, dtype=torch.float64)  # what isn't given is not looked at
    given[:, first] = torch.tensor([1.0, 0.0], dtype=torch.float64)
    samples = model.sample(20_000, generator=rng(), given=given, num_given=2)
    assert torch.equal(samples[:, first], given[:, first])
    kept = (every[:, first] == given[0, first]).all(1)
    p = model.log_prob(every).exp() * kept
    assert (frequencies(samples, every) - p / p.sum()).abs().sum() / 2 < 0.03


def test_made_of_several_orderings_draws_what_is_not_given_by_its_first():
    model = small("made orders")
    first, every = visits(model)[:2], states(model)
    given = torch.ones(20_000, 4)
    samples = model.sample(20_000, generator=rng(), given=given, num_given=2)
    kept = (every[:, first] == 1).all(1)
    p = model._log_probs(every, None)[0].sum(1).exp() * kept
    assert (frequencies(samples, every) - p / p.sum()).abs().sum() / 2 < 0.03


@pytest.mark.parametrize("num_given", [0, 3, 12])
def test_nade_sampled_with_its_hidden_state_carried_along_equals_computing_all_anew(num_given):
    torch.manual_seed(0)
    model = generative.build("nade", dimensions=12, hidden=5, num_classes=3).double()
    for shift in (model.label_bias, model.label_hidden_bias):
        torch.nn.init.normal_(shift.weight)
    arguments = {"given": torch.ones(50, 12), "num_given": num_given}
    label = torch.arange(50) % 3
    fast = model.sample(50, label, generator=rng(), **arguments)
    assert torch.equal(fast, model.sample(50, label, generator=rng(), **arguments, cached=False))
    assert num_given == 12 or 0 < fast[:, num_given:].mean() < 1


def test_made_averages_the_probabilities_of_its_masks():
    model = small("made masks")
    x = states(model)
    each = [p.sum(1).exp() for p in model._log_probs(x, None)]
    assert (each[0] - each[1]).abs().max() > 0.01
    torch.testing.assert_close(model.log_prob(x).exp(), sum(each) / 3)
    torch.testing.assert_close(model.loss({"x": x}, generator=rng())[0], -model.log_prob(x).mean())


def test_made_trains_each_of_its_masks():
    model, x = small("made masks").train(), states(small("made masks"))
    each = torch.stack([-p.sum(1).mean() for p in model._log_probs(x, None)])
    losses = torch.stack([model.loss({"x": x}, generator=rng(seed))[0] for seed in range(12)])
    assert (losses[:, None] == each).any(0).all() and (losses[:, None] == each).any(1).all()


def test_dropped_inputs_are_whole_dimensions_and_keep_their_expectation():
    dropped = ancestral.drop_inputs(torch.ones(500, 40, 3), 0.2, rng())
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    assert torch.equal(dropped[..., 0], dropped[..., 2])
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", ["fvsbn", "nade", "made"])
def test_inputs_are_dropped_in_training_only_and_targets_never(name):
    model = small(name, input_dropout=0.5)
    batch = {"x": states(model)}
    judged = model.loss(batch, generator=rng())[0]
    torch.testing.assert_close(judged, -model.log_prob(batch["x"]).mean())
    losses = [model.train().loss(batch, generator=rng(seed))[0] for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    first = visits(model)[0]
    scored = torch.zeros(16, 4).index_fill_(1, torch.tensor([first]), 1)  # the first value has no inputs
    masked = [model.loss({**batch, "mask": scored}, generator=rng(seed))[0] for seed in (0, 1)]
    assert masked[0] == masked[1]


@pytest.mark.parametrize("name", ["fvsbn", "nade", "made"])
def test_loss_counts_the_entries_of_the_mask(name):
    model, x = small(name), states(small(name))
    per_entry = [model.loss({"x": x, "mask": torch.eye(4)[i].expand(16, 4)}, generator=rng())[0] for i in range(4)]
    torch.testing.assert_close(sum(per_entry), -model.log_prob(x).mean())
    with pytest.raises(ValueError, match=r"mask is \[16\]"):
        model.loss({"x": x, "mask": torch.ones(16)}, generator=rng())


@pytest.mark.parametrize("name", ["fvsbn", "nade", "made"])
def test_labels_choose_the_distribution(name):
    label = torch.arange(4_000) % 2
    p = torch.tensor([[0.9, 0.1, 0.9, 0.1], [0.1, 0.9, 0.1, 0.9]])
    x = (torch.rand(4_000, 4, generator=rng()) < p[label]).float()
    config = {"dimensions": 4, "num_classes": 2} | {"made": {"hidden_sizes": (8,)}, "nade": {"hidden": 8}}.get(name, {})
    settings = {"steps": 150, "learning_rate": 0.1, "batch_size": 256, "validation": 0.0}
    model = trained(name, {"x": x, "label": label}, config=config, **settings)
    truth = -torch.nn.functional.binary_cross_entropy(p[label], x, reduction="none").sum(1)
    assert (truth - model.log_prob(x, label)).mean() < 0.02  # nats; without the label 0.66
    drawn = model.sample(2_000, torch.ones(2_000, dtype=torch.int64), generator=rng())
    assert drawn.mean(0).tolist() == pytest.approx([0.1, 0.9, 0.1, 0.9], abs=0.05)
    assert generative.capabilities(model) == {"sample", "log_prob"}  # no encoding without a label


def test_made_of_real_numbers_is_a_density_and_reaches_the_entropy_of_a_gaussian():
    data = source("correlated_gaussian")
    dimensions = data.sample(1, rng())["x"].shape[1]
    config = {"dimensions": dimensions, "hidden_sizes": (8,), "head": "gaussian", "direct": True}
    model = trained("made", data, config=config, steps=500, learning_rate=0.03, batch_size=256, validation=0.0)
    x = data.sample(20_000, rng(5))["x"]
    assert (data.log_prob(x) - model.log_prob(x)).mean() < 0.02  # KL
    drawn = model.sample(20_000, generator=rng(6))
    torch.testing.assert_close(drawn.T.cov(), x.T.cov(), atol=0.1, rtol=0.05)


def test_fvsbn_finds_the_ising_model_within_a_thousandth_of_a_nat():
    ising, states_of_16 = source("ising"), binary_states(16).float()
    config = {"dimensions": 16}
    model = trained("fvsbn", ising, config=config, steps=400, learning_rate=0.05, batch_size=1_000, validation=0.0)
    log_prob = model.double().log_prob(states_of_16)
    assert (ising.table.exp() * (ising.table - log_prob)).sum() < 0.001
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name, low, high", [("fvsbn", 0.36, 0.38), ("nade", 0, 0.01), ("made", 0, 0.01)])
def test_parity_is_learned_by_a_hidden_layer_and_by_no_logistic_regression(name, low, high):
    parity, x = source("parities", triples=1), binary_states(4).float()
    config = {"fvsbn": {}, "nade": {"hidden": 32, "activation": "relu"}, "made": {"hidden_sizes": (32,)}}[name]
    settings = {"steps": 500, "learning_rate": 0.03, "batch_size": 256, "validation": 0.0}
    model = trained(name, parity, config={"dimensions": 4, **config}, **settings)
    log_p = parity.log_prob(x)
    kl = (log_p.exp() * (log_p - model.log_prob(x))).sum().item()
    assert low <= kl <= high  # ln 2 − H₂(0.1) = 0.3681 where nothing is seen


@pytest.mark.parametrize(
    "config, message",
    [
        ({"ordering": (0, 0, 1)}, "ordering is .0, 0, 1.; expected natural, random, or each place 0 … 2 once"),
        ({"hidden_sizes": ()}, "hidden_sizes"),
        ({"order_agnostic": True}, "num_masks is 1; expected several"),
        ({"input_dropout": 1.0}, "input_dropout is 1.0; expected a probability"),
    ],
)
def test_made_refuses_configurations_that_make_no_sense(config, message):
    with pytest.raises(ValueError, match=message):
        generative.build("made", dimensions=3, **config)


@pytest.mark.parametrize("name", ["fvsbn", "nade", "made"])
def test_sampling_and_labels_are_refused_by_name(name):
    plain, of_label = small(name), small(name, num_classes=2)
    refused = [
        (lambda: plain.sample(2, torch.zeros(2).long(), generator=rng()), "cond is given to a model without classes"),
        (lambda: of_label.sample(2, generator=rng()), "cond is missing; expected the label, int64"),
        (lambda: of_label.log_prob(torch.zeros(2, 4)), "cond is missing"),
        (lambda: of_label.loss({"x": torch.zeros(2, 4)}, generator=rng()), "cond is missing"),
        (lambda: of_label.log_prob(torch.zeros(2, 4), torch.tensor([0, 2])), "label has values from 0 to 2; expected 0 to 1"),
        (
            lambda: of_label.log_prob(torch.zeros(2, 4), torch.zeros(1).long()),
            r"label is .* \[1\]; expected int64 \[B\] = \[2\]",
        ),
        (lambda: plain.sample(2, generator=rng(), num_given=1), "num_given is 1 without given"),
        (lambda: plain.sample(2, generator=rng(), given=torch.zeros(2, 4), num_given=5), "num_given is 5; expected 0 to the 4"),
        (lambda: plain.sample(2, generator=rng(), given=torch.zeros(2, 3), num_given=1), r"given is \[2, 3\]"),
        (lambda: plain.sample(2, generator=rng(), given=torch.ones(2, 4) / 2, num_given=1), "x has values from 0.5 to 0.5"),
    ]
    for call, message in refused:
        with pytest.raises(ValueError, match=message):
            call()
