"""The variational RNN and the conditional one: bounds against exact likelihoods, resets, padding, actions and filtering."""

from __future__ import annotations

import math

import pytest
import torch

import generative
from generative.recurrent import paths
from generative.recurrent.variable import gumbel_from_normal
from generative.sources import binary_states, source

CONDITIONS = (None, "label", "cond", "action", "discrete", "gaussian")
CONTROLS = ((0.5,), (-1.0,))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(condition: str | None = None, **config):
    """A tiny model in float64 whose weights are far from 0, so that what should matter does."""
    torch.manual_seed(3)
    config = {"in_features": 1, "latent": 2, "hidden": 5, "hidden_sizes": (8,), **config}
    if condition is not None:
        config |= {"condition": condition, "condition_size": 2}
    model = generative.build("vrnn" if condition is None else "conditional_vrnn", **config).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=seeded(len(name))))
        for variable in (model.cell.latent, model.cell.condition):
            near(variable)
    return model


def near(variable) -> None:
    """Makes a posterior its prior moved by x, with scales near 1, so that importance weights are of few enough samples."""
    if variable is None:
        return
    prior = dict(variable.prior_network.named_parameters())
    for name, parameter in variable.posterior_network.named_parameters():
        if variable.kind == "gaussian" and ("output" in name or "linear" in name):
            parameter[1::2], prior[name][1::2] = 0.1 * ("bias" in name), 0  # log-scales
        moved = parameter.shape[-1] - prior[name].shape[-1]
        parameter.copy_(torch.cat([0.5 * parameter[..., :moved], prior[name]], -1))


def given(condition: str | None, n: int, num_steps: int):
    """A condition of each kind for n sequences; the same for each of them."""
    made = {
        "label": torch.ones(n, dtype=torch.long),
        "cond": torch.tensor([[0.5, -1.0]]).expand(n, 2),
        "action": torch.randn(1, num_steps, 2, generator=seeded(5)).expand(n, -1, -1),
    }
    return made.get(condition)


def fitted(src, steps: int, **config):
    """A model of a linear dynamical system, trained for a few seconds."""
    torch.manual_seed(0)
    controlled = {"condition": "action", "condition_size": 1} if src.controls else {}
    name = "conditional_vrnn" if src.controls else "vrnn"
    model = generative.build(name, in_features=1, hidden=24, hidden_sizes=(24,), **controlled, **config)
    settings = {"steps": steps, "batch_size": 64, "learning_rate": 1e-2, "max_grad_norm": 1.0, "validation": 0}
    for _ in generative.fit(model, src, **settings, device="cpu"):
        pass
    return model


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_vrnn_probabilities_sum_to_one_and_are_those_of_its_samples(condition, cell):
    """Priors, posteriors, decoder, transition and sampling agree: a slip in any of them moves the sum or the frequencies."""
    model, bits = small(condition, head="bernoulli", cell=cell), binary_states(3)
    x, cond = bits.double()[..., None], given(condition, 8, 3)  # [8, 3, 1]: every sequence
    with torch.no_grad():
        probability = model.iwae(x, 12_000, seeded(), cond).exp()
        drawn = model.sample(40_000, given(condition, 40_000, 3), num_steps=3, generator=seeded())
    frequency = torch.bincount((drawn[..., 0].long() * torch.tensor([1, 2, 4])).sum(1), minlength=8) / len(drawn)
    assert probability.sum().item() == pytest.approx(1, abs=0.02)
    assert (probability - frequency).abs().max() < 0.012
    assert (probability - probability.mean()).abs().max() > 0.02  # not the uniform distribution, which nothing could spoil


def test_vrnn_bounds_are_exact_under_the_exact_posterior():
    """z ~ N(½, 1), x | z ~ N(2z, 1): x ~ N(1, 5), z | x ~ N((½ + 2x)/5, 1/5). Every importance weight is p(x)."""
    model = small(latent=1, hidden=1, hidden_sizes=()).double()
    networks = model.cell.latent.prior_network, model.cell.latent.posterior_network, model.cell.decoder
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        networks[0].mlp.output.bias[0] = 0.5
        networks[1].linear.weight[0, 0], networks[1].mlp.output.bias[0] = 0.4, 0.1
        networks[1].mlp.output.bias[1] = -0.5 * math.log(5)
        networks[2].linear.weight[0, 0] = 2
    x = torch.tensor([[[-1.0]], [[0.3]], [[4.0]]]).double()
    exact = torch.distributions.Normal(1, math.sqrt(5)).log_prob(x.flatten())
    for bound in (model.iwae(x, 1, seeded()), model.iwae(x, 7, seeded())):
        assert bound.tolist() == pytest.approx(exact.tolist(), abs=0.01)  # soft_bound moves log-scales by 0.001
    average = model.elbo(x.repeat(5_000, 1, 1)).view(5_000, 3).mean(0)
    assert average.tolist() == pytest.approx(exact.tolist(), abs=0.1)
    assert model.iwae(x + 1, 7, seeded()).tolist() != pytest.approx(exact.tolist(), abs=0.1)


def test_iwae_rises_from_the_elbo_and_resampling_leaves_the_likelihood_unbiased():
    model = small(scale=1.0)
    x = torch.randn(1, 8, 1, generator=seeded(1)).double()
    many = x.expand(2_000, -1, -1)
    with torch.no_grad():
        exact = model.iwae(x, 50_000, seeded()).item()
        mean = {k: model.iwae(many, k, seeded(k)).mean().item() for k in (1, 8)}
        elbo = model.elbo(many, generator=seeded(9)).mean().item()
        plain, resampled = ((model.iwae(many, 8, seeded(2), resample=resample) - exact) for resample in (False, True))
    assert elbo == pytest.approx(mean[1], abs=0.2) and elbo < mean[8] < exact
    for bound in (plain, resampled):
        error = bound.exp().std().item() / math.sqrt(len(bound))
        assert bound.exp().mean().item() == pytest.approx(1, abs=4 * error + 0.02)
    assert not torch.equal(plain, resampled)


def test_gumbel_from_normal_is_finite_in_the_tails_and_gumbel_distributed():
    made = gumbel_from_normal(torch.tensor([-8.0, 8.0]))
    assert made.isfinite().all()
    noise = gumbel_from_normal(torch.randn(100_000, generator=seeded()))
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)  # Euler's constant


def test_prior_at_the_first_step_is_learned():
    model = small()
    model.loss({"x": torch.randn(4, 1, 1).double()}, generator=seeded())[0].backward()
    assert model.cell.first_state.grad.abs().min() > 0
    assert model.cell.latent.prior_network.linear.weight.grad.abs().max() > 0


@pytest.mark.parametrize("condition", [None, "action", "discrete"])
@pytest.mark.parametrize("before", [0, 2])
def test_padding_changes_nothing_wherever_it_stands(condition, before):
    """Steps that are masked, before the others or after them, may hold anything, NaN too."""
    model, rest = small(condition), 3 - before
    x, noise = torch.randn(4, 5, 1).double(), torch.randn(4, 8, model.cell.num_noise).double()
    action = torch.randn(4, 5, 2).double() if condition == "action" else None

    def padded(values):
        return None if values is None else torch.nn.functional.pad(values, (0, 0, before, rest), value=math.nan)

    mask = padded(torch.ones(4, 5, 1))[..., 0] == 1
    steps, whole = model._steps(x, action, None, None), model._steps(padded(x), padded(action), None, mask)
    plain = paths.evidence_bound(model.cell, steps, noise[:, before : before + 5])
    bound = paths.evidence_bound(model.cell, whole, noise)
    torch.testing.assert_close(bound.log_likelihood, plain.log_likelihood)
    torch.testing.assert_close(bound.kl, plain.kl)
    cond, padded_cond = ({}, {}) if action is None else ({"cond": action}, {"cond": padded(action)})
    torch.testing.assert_close(model.state_after(padded(x), mask=mask, **padded_cond), model.state_after(x, **cond))
    bound.elbo.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    if not before:  # its noise is drawn step by step
        torch.testing.assert_close(
            model.iwae(padded(x), 4, seeded(), padded(action), mask=mask), model.iwae(x, 4, seeded(), action)
        )


@pytest.mark.parametrize("condition", [None, "label", "action", "gaussian"])
def test_first_resets_the_state_and_forgets_the_action(condition):
    """Two sequences in a row are worth what they are worth apart."""
    model, parts = small(condition), []
    x, noise = torch.randn(4, 7, 1).double(), torch.randn(4, 7, model.cell.num_noise).double()
    cond = given(condition, 4, 7)
    first = torch.zeros(4, 7, dtype=torch.bool)
    first[:, 3] = True
    for part in (slice(0, 3), slice(3, 7)):
        of_part = cond[:, part] if condition == "action" else cond
        parts.append(paths.evidence_bound(model.cell, model._steps(x[:, part], of_part, None, None), noise[:, part]).elbo)
    joined = paths.evidence_bound(model.cell, model._steps(x, cond, first, None), noise).elbo
    torch.testing.assert_close(joined, parts[0] + parts[1])
    kept, of_part = ({}, {}) if condition in (None, "gaussian") else ({"cond": cond}, {"cond": of_part})
    torch.testing.assert_close(model.state_after(x, first=first, **kept), model.state_after(x[:, 3:], **of_part))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_filtering_step_by_step_is_encoding_at_once(condition):
    model, x = small(condition, cell="lstm"), torch.randn(4, 5, 1).double()
    cond = given(condition, 4, 5)
    led_here = paths.previous_actions(cond, None, None) if condition == "action" else None
    state = model.initial_state(4)
    for t in range(5):
        state = model.filter(x[:, t], state, cond if led_here is None else led_here[:, t])
    torch.testing.assert_close(state, model.state_after(x, **({} if cond is None else {"cond": cond})))
    if condition in ("label", "cond", "action"):
        assert "encode" not in generative.capabilities(model)  # x alone doesn't tell the state
    else:
        torch.testing.assert_close(model.encode(x), model.cell.hidden(state))
    noise = torch.ones(4, model.cell.num_noise).double()
    step = cond if led_here is None else led_here[:, 0]
    assert not torch.equal(model.filter(x[:, 0], state, step, noise), model.filter(x[:, 0], state, step))


def test_state_before_a_step_sees_only_what_came_before():
    model, x = small(), torch.randn(1, 6, 1).double().requires_grad_()
    noise = torch.randn(1, 6, 2).double()
    states, _, _ = paths.infer_along(model.cell, paths.Steps(x, x.new_zeros(1, 6, 0), None, None), noise)
    for t in range(6):
        seen = torch.autograd.grad(states[0, t].sum(), x, retain_graph=True, allow_unused=True)[0]
        assert ([] if seen is None else seen[0, :, 0].nonzero().flatten().tolist()) == list(range(t))


def test_action_shows_in_the_next_observation_first():
    model = small("action")
    action = torch.zeros(1, 5, 2)
    other = action.clone()
    other[:, 2] = 1
    difference = model.sample(1, action, generator=seeded()) - model.sample(1, other, generator=seeded())
    assert (difference[0, :, 0] != 0).tolist() == [False, False, False, True, True]
    x = torch.randn(1, 5, 1).double()
    last = other.clone()
    last[:, 4] = 9  # taken after the last x
    assert torch.equal(model.elbo(x, other), model.elbo(x, last)) and not torch.equal(
        model.elbo(x, other), model.elbo(x, action)
    )


@pytest.mark.parametrize("controls", [None, CONTROLS])
def test_vrnn_reaches_the_kalman_filters_likelihood(controls):
    """Within 0.01 nats a step after a few seconds; the benchmark row trains on to 0.001."""
    src = source("linear_dynamical_system", controls=controls, num_steps=10)
    model, test = fitted(src, 250), src.sample(4_000, seeded(9))
    x, action = test["x"], test.get("action")
    exact = src.log_prob(x, action)
    with torch.no_grad():
        gap = (exact - model.elbo(x, action)) / 10
        weighted = (exact[:1_000] - model.iwae(x[:1_000], 20, seeded(), None if action is None else action[:1_000])) / 10
    assert -4 * gap.std().item() / 63 < gap.mean().item() < 0.01
    assert -4 * weighted.std().item() / 31 < weighted.mean().item() < 0.01
    state = model.initial_state(4_000)
    before = None if action is None else paths.previous_actions(action, None, None)
    with torch.no_grad():
        for t in range(9):
            state = model.filter(x[:, t], state, None if before is None else before[:, t])
        cond = None if before is None else before[:, 9:].repeat(50, 1, 1)
        predicted = model.predict(state.repeat(50, 1), 1, cond, generator=seeded()).view(50, 4_000)
    shorter = source("linear_dynamical_system", controls=controls, num_steps=9)
    variance = math.exp(2 * (src.entropy - shorter.entropy)) / (2 * math.pi * math.e)  # of the last x given all before
    error = (predicted.mean(0) - x[:, 9, 0]).square().mean().item()
    assert error == pytest.approx(variance * (1 + 1 / 50), rel=0.12)
    assert predicted.var(0).mean().item() == pytest.approx(variance, rel=0.12)


def test_inferred_condition_learns_a_hidden_coin():
    """At each step six bits copy a coin, p = 0.75, each flipped with probability 0.1: the bound nears the exact likelihood."""
    coin = torch.rand(4_000, 3, 1, generator=seeded(1)) < 0.75
    x = (coin ^ (torch.rand(4_000, 3, 6, generator=seeded(2)) < 0.1)).float()
    right, heads, tails = x.sum(-1), [math.log(0.75), *map(math.log, (0.9, 0.1))], [math.log(0.25), *map(math.log, (0.1, 0.9))]
    exact = torch.logaddexp(*(side[0] + right * side[1] + (6 - right) * side[2] for side in (heads, tails))).sum(1)
    torch.manual_seed(0)
    config = {"condition": "discrete", "condition_size": 2, "in_features": 6, "latent": 1, "hidden": 8, "hidden_sizes": ()}
    model = generative.build("conditional_vrnn", **config, head="bernoulli")
    for _ in generative.fit(model, x, steps=300, learning_rate=2e-2, validation=0, device="cpu"):
        pass
    with torch.no_grad():
        gap, weighted = (exact - model.elbo(x)) / 3, (exact - model.iwae(x, 20, seeded())) / 3
        drawn = model.sample(4_000, num_steps=3, generator=seeded())
        prior = model.cell.condition.prior(model.initial_state(1)).softmax(-1)[0].sort().values
    assert -0.002 < weighted.mean().item() < gap.mean().item() < 0.04
    assert prior.tolist() == pytest.approx([0.25, 0.75], abs=0.04)
    assert (drawn.sum(-1) > 3).float().mean().item() == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize(
    ("condition", "call", "message"),
    [
        (None, lambda m: m.elbo(torch.zeros(2, 3, 4)), r"x is \[2, 3, 4\]; expected sequences \[B, T, 1\]"),
        (None, lambda m: m.elbo(torch.full((2, 3, 1), 0.5)), r"expected bits with head='bernoulli'"),
        (None, lambda m: m.elbo(torch.zeros(2, 3, 1), mask=torch.ones(2, 2).bool()), r"mask is torch.bool \[2, 2\]; expected"),
        (None, lambda m: m.sample(2, torch.zeros(2), generator=seeded()), r"conditioned on nothing; leave it out"),
        ("label", lambda m: m.elbo(torch.zeros(2, 3, 1)), r"cond is missing: .* batch's 'label'"),
        ("label", lambda m: m.elbo(torch.zeros(2, 3, 1), torch.tensor([0, 2])), r"labels reach from 0 to 2; expected 0 to 1"),
        (
            "action",
            lambda m: m.elbo(torch.zeros(2, 3, 1), torch.zeros(2, 4, 2)),
            r"action is \[2, 4, 2\]; expected \[2, 3, 2\]",
        ),
        ("discrete", lambda m: m.elbo(torch.zeros(2, 3, 1), torch.zeros(2)), r"conditioned on nothing"),
    ],
)
def test_vrnn_refuses_by_name(condition, call, message):
    with pytest.raises(ValueError, match=message):
        call(small(condition, head="bernoulli"))


@pytest.mark.parametrize("wrong", [{"latent": 0}, {"cell": "elman"}, {"head": "poisson"}, {"num_steps": 0}])
def test_vrnn_configuration_is_checked(wrong):
    with pytest.raises(ValueError, match="expected"):
        generative.build("vrnn", in_features=1, **wrong)
    with pytest.raises(ValueError, match="condition_size is 1; expected at least 2"):
        generative.build("conditional_vrnn", in_features=1, condition="label", condition_size=1)
