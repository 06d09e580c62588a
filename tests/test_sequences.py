"""Sequence models: causality, caches against none, gradients through time, and what a memory too short costs."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd.functional import jacobian
from torch.nn import functional as F

import generative
from generative.dropout import dropped
from generative.networks.lstm import lstm_cell
from generative.networks.sequence_data import mu_law_audio, mu_law_levels
from generative.networks.transformer import may_look, rotated
from generative.sources import binary_states, chow_liu_nats, source

SMALL = {
    "elman_rnn": {"hidden": 8},
    "lstm": {"hidden": 8, "num_layers": 2},
    "transformer": {"width": 16, "num_heads": 2, "context": 5},
    "wavenet": {"channels": 8, "skip": 8, "dilations": (1, 2, 1)},
}
NAMES = tuple(SMALL)
HEADS = ("bernoulli", "categorical", "gaussian", "mu_law")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(name: str, **config):
    torch.manual_seed(0)
    return generative.build(name, **SMALL[name], **config).double()


def bits(*shape: int) -> torch.Tensor:
    return (torch.rand(*shape, generator=generator()) < 0.5).double()


def trained(name: str, data, steps: int, learning_rate: float, **config):
    torch.manual_seed(0)
    model = generative.build(name, **config)
    for _ in generative.fit(
        model, data, steps=steps, learning_rate=learning_rate, max_grad_norm=1.0, validation=0.0, device="cpu", batch_size=64
    ):
        pass
    return model


@pytest.mark.parametrize("name", NAMES)
def test_sequence_step_is_predicted_from_all_of_the_steps_before_and_from_no_other(name):
    model = built(name, size=2, head="gaussian")
    x = torch.randn(1, 5, 2, generator=generator(), dtype=torch.float64)
    seen = jacobian(lambda x: model.readout(model.features(x))[0].sum((1, 2)), x)[:, 0].abs().sum(2)  # [T + 1, T]
    assert torch.equal(seen > 0, torch.ones(6, 5).tril(-1).bool())


@pytest.mark.parametrize("name", NAMES)
def test_sequence_probabilities_sum_to_one(name):
    whole = built(name, num_steps=8).log_prob(binary_states(8).double()[..., None])
    assert whole.exp().sum().item() == pytest.approx(1, abs=1e-9)
    levels = torch.cartesian_prod(*[torch.arange(3)] * 4).double().view(-1, 2, 2)  # 2 steps of 2 values each
    assert built(name, size=2, head="categorical", levels=3).log_prob(levels).exp().sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", NAMES)
def test_sequence_cached_samples_equal_uncached_ones_past_a_full_window(name, head, positions):
    config = {"positions": positions} if name == "transformer" else {}
    model = built(name, size=2, head=head, levels=7, num_steps=20, **config)  # windows of 5 and 4 steps are long full
    cached = model.sample(3, generator=generator())
    assert torch.allclose(cached, model.sample(3, generator=generator(), cached=False), atol=1e-9)
    assert cached.shape == (3, 20, 2) and cached.unique().numel() > 1
    given = model.sample(3, generator=generator(1))
    kept = model.sample(3, generator=generator(2), given=given, num_given=7).flatten(1)  # 3½ steps
    assert torch.equal(kept[:, :7], given.flatten(1)[:, :7]) and not torch.equal(kept[:, 7:], given.flatten(1)[:, 7:])


@pytest.mark.parametrize("name", NAMES)
def test_sequence_samples_occur_as_often_as_log_prob_says(name):
    model = built(name, num_steps=4)
    x = model.sample(20_000, generator=generator())[..., 0]
    share = torch.bincount((x.long() << torch.arange(4)).sum(1), minlength=16) / len(x)
    probability = model.log_prob(binary_states(4).double()[..., None]).exp()
    assert ((share - probability).abs() < 4.5 * (probability / len(x)).sqrt()).all()


@pytest.mark.parametrize("name", NAMES)
def test_sequence_episode_starts_make_their_steps_independent_of_what_was_before(name):
    model, x, first = built(name), bits(2, 12, 1), torch.zeros(2, 12, dtype=torch.bool)
    first[0, 5], first[1, 0], first[1, 9] = True, True, True
    whole = model.log_prob(x, first=first)
    parts = [model.log_prob(part) for part in (x[:1, :5], x[:1, 5:], x[1:, :9], x[1:, 9:])]
    assert torch.allclose(whole, torch.stack([parts[0] + parts[1], parts[2] + parts[3]])[:, 0])
    assert not torch.allclose(whole, model.log_prob(x))
    state, steps = model.initial_state(2), [model.readout(model.state_features(model.initial_state(2)))]
    for t in range(11):  # the parameters of x_{t+1}, where that starts no episode
        made, state = model.step(x[:, t], state, first[:, t])
        steps.append(made)
    wanted = model.readout(model.features(x[:, :-1], first))
    assert torch.allclose(torch.stack(steps, 1)[~first], wanted[~first])
    assert model.loss({"x": x, "first": first}, generator=generator())[0].item() == pytest.approx(-whole.mean().item())


@pytest.mark.parametrize("name", NAMES)
def test_sequence_mask_marks_the_values_that_are_scored(name):
    model, x = built(name), bits(3, 6, 1)
    mask = torch.arange(6).repeat(3, 1) == torch.tensor([[2], [0], [4]])
    steps = model.data.log_prob(model.readout(model.features(x[:, :-1])), x)[..., 0]  # [B, T]
    loss, metrics = model.loss({"x": x, "mask": mask}, generator=generator())
    wanted = -(steps[0, 2] + steps[1, 0] + steps[2, 4]) / 3
    assert loss.item() == pytest.approx(wanted.item()) and metrics["nats_per_value"].item() == pytest.approx(wanted.item())


@pytest.mark.parametrize("name", NAMES)
def test_sequence_vectors_are_read_as_sequences_of_single_values(name):
    vectors, sequences = built(name, vectors=True, num_steps=6), built(name, num_steps=6)
    x = bits(4, 6)
    assert torch.equal(vectors.log_prob(x), sequences.log_prob(x[..., None]))
    assert vectors.sample(3, generator=generator()).shape == (3, 6)
    assert torch.allclose(vectors.encode(x), sequences.features(x[..., None])[:, -1])


def test_sequence_inputs_are_signs_one_hot_levels_or_numbers():
    x = torch.tensor([[[0.0, 1.0]]])
    inputs = {head: built("lstm", size=2, head=head, levels=3).data.inputs(x, x.dtype)[0, 0].tolist() for head in HEADS}
    assert inputs["bernoulli"] == [-1, 1] and inputs["gaussian"] == [0, 1]
    assert inputs["categorical"] == [1, 0, 0, 0, 1, 0]
    assert inputs["mu_law"] == [0, 1, 0, 0, 0, 1]  # 0 is the level between −1 and 1


def test_sequence_data_out_of_form_are_refused_by_name():
    model = built("lstm", size=2, head="categorical", levels=3)
    for x, message in [
        (torch.zeros(4, 2), r"x is of shape \[4, 2\]; expected \[B, T, 2\]"),
        (torch.full((1, 3, 2), 3.0), r"x has values from 3 to 3; the categorical head expects whole levels 0 … 2"),
        (torch.full((1, 3, 2), 0.5), "expects whole levels"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.log_prob(x)
    with pytest.raises(ValueError, match=r"the gaussian head expects finite numbers"):
        built("wavenet", head="gaussian").log_prob(torch.full((1, 3, 1), math.nan))
    with pytest.raises(ValueError, match=r"LSTM models sequences without a condition; got a cond"):
        model.sample(1, torch.zeros(1), generator=generator())
    with pytest.raises(ValueError, match=r"num_given is 3 without given"):
        model.sample(1, generator=generator(), num_given=3)
    with pytest.raises(ValueError, match=r"first is of shape \[1, 9\]; expected \[B, T\] = \[1, 3\]"):
        model.log_prob(torch.zeros(1, 3, 2), first=torch.zeros(1, 9))
    for name in NAMES:
        with pytest.raises(ValueError, match="size is 2; expected 1, as vectors are sequences of single values"):
            built(name, size=2, vectors=True)
    with pytest.raises(ValueError, match=r"width is 6; expected a multiple of 4"):
        generative.build("transformer", width=6, num_heads=2, positions="rotary")


def test_elman_gradient_is_bounded_by_powers_of_the_recurrent_norm():
    model = built("elman_rnn", head="gaussian")
    with torch.no_grad():
        model.recurrence.weight.copy_(torch.randn(8, 8, generator=generator()))
        model.recurrence.weight *= 0.5 / torch.linalg.matrix_norm(model.recurrence.weight, 2)
    norms, state = [], torch.zeros(1, 8, dtype=torch.float64)

    def ahead(h, steps=10):
        for _ in range(steps):
            h = model.step(torch.ones(1, 1), (h,))[1][0]
        return h[0]

    for steps in range(1, 11):
        norms.append(torch.linalg.matrix_norm(jacobian(lambda h, k=steps: ahead(h, k), state)[:, 0], 2))
    bound = 0.5 ** torch.arange(1, 11)
    assert (torch.stack(norms) <= bound).all() and norms[0] > 0.1  # vanishes, but isn't nothing from the start


def test_elman_orthogonal_start_keeps_the_norm_of_small_gradients():
    model = built("elman_rnn", orthogonal=True)
    with torch.no_grad():
        model.drive.weight.zero_()
        model.drive.bias.zero_()  # at h = 0 the network is linear
    one = torch.ones(1, 1)
    through = jacobian(lambda h: model.step(one, model.step(one, (h,))[1])[1][0], torch.zeros(1, 8).double())[0, :, 0]
    assert torch.allclose(torch.linalg.svdvals(through), torch.ones(8).double())
    assert torch.linalg.svdvals(built("elman_rnn", orthogonal=False).recurrence.weight).min() < 0.5


def test_lstm_cell_equals_torch_in_values_and_gradients():
    model, x = built("lstm", size=3, head="gaussian"), torch.randn(4, 9, 3, generator=generator(), dtype=torch.float64)
    slow = model.features(x, torch.zeros(4, 10, dtype=torch.bool))  # with episode starts to look for: the written equations
    fast = model.features(x)
    assert torch.allclose(slow, fast, atol=1e-12)
    weights = list(model.layers.parameters())
    for ours, theirs in zip(torch.autograd.grad(slow.sin().sum(), weights), torch.autograd.grad(fast.sin().sum(), weights)):
        assert torch.allclose(ours, theirs, atol=1e-10)


def test_lstm_forget_bias_starts_at_one_and_an_open_cell_keeps_its_content():
    bias = sum(built("lstm").layers.all_weights[1][2:])
    assert torch.equal(bias[8:16], torch.ones(8).double())
    zeros, c = torch.zeros(1, 4), torch.tensor([[0.3, -2.0, 1.0, 5.0]])
    open_, shut = torch.full((4,), 50.0), torch.full((4,), -50.0)
    _, kept = lstm_cell(zeros, zeros, c, torch.zeros(16, 4), torch.zeros(16, 4), torch.cat([shut, open_, zeros[0], shut]))
    assert torch.equal(kept, c)  # i = 0, f = 1


def test_lstm_span_spreads_the_memories_of_its_cells_up_to_it():
    torch.manual_seed(0)
    model = generative.build("lstm", hidden=2_000, span=100)
    into, forget = sum(model.layers.all_weights[0][2:]).chunk(4)[:2]
    assert torch.allclose(into, -forget)  # as little taken in as is kept long
    spans = forget.exp()
    assert 1 <= spans.min() < 3 and 98 < spans.max() <= 100.01 and spans.mean().item() == pytest.approx(50.5, abs=3)


def test_lstm_segments_carry_the_state_but_no_gradient():
    x = torch.randn(1, 9, 1, generator=generator(), dtype=torch.float64)
    whole, cut = built("lstm", head="gaussian"), built("lstm", head="gaussian", segment=4)
    assert torch.allclose(whole.features(x), cut.features(x))
    for first in (None, torch.zeros(1, 10, dtype=torch.bool)):
        seen = jacobian(lambda x, first=first: cut.features(x, first)[0, -1].sum(), x)[0, :, 0] != 0
        assert seen.tolist() == [False] * 8 + [True]
    assert (jacobian(lambda x: whole.features(x)[0, -1].sum(), x) != 0).all()


@pytest.mark.parametrize("name", ["elman_rnn", "lstm"])
def test_recurrent_label_is_predicted_from_the_last_state(name):
    model = built(name, size=2, target="label", head="gaussian", scale=1.0, label_size=1)
    batch = source("adding_problem", num_steps=6).sample(5, generator())
    error = (model.predict(batch["x"]) - batch["label"]).square().mean().item()
    loss = model.loss(batch, generator=generator())[0].item()
    assert loss == pytest.approx(0.5 * error + 0.5 * math.log(2 * math.pi))
    assert generative.capabilities(model) == {"encode"}
    classes = built(name, size=2, target="label", head="categorical", levels=4)
    logits = classes.output(classes.encode(batch["x"]))
    label = torch.tensor([0, 3, 1, 1, 2])
    assert classes.loss({"x": batch["x"], "label": label}, generator=generator())[0].item() == pytest.approx(
        F.cross_entropy(logits, label).item()
    )
    assert torch.equal(classes.predict(batch["x"]), logits.argmax(1))


def test_transformer_mask_leaves_every_row_its_diagonal():
    look = may_look(torch.arange(5)[None], 3)[0]
    assert look.diagonal().all() and look.sum(1).tolist() == [1, 2, 3, 3, 3]
    finite = built("transformer").log_prob(bits(2, 1, 1))  # one step: the first row alone
    assert torch.isfinite(finite).all()


def test_transformer_rotary_products_depend_on_the_distance_alone():
    query, key = torch.randn(2, 1, 1, 1, 8, generator=generator(), dtype=torch.float64)
    product = [(rotated(query, torch.tensor([[5 + s]])) * rotated(key, torch.tensor([[2 + s]]))).sum() for s in (0, 1, 400)]
    assert torch.allclose(torch.stack(product), product[0].expand(3))
    assert not torch.allclose(product[0], (rotated(query, torch.tensor([[5]])) * rotated(key, torch.tensor([[4]]))).sum())


def test_transformer_dropout_is_the_generators_and_only_in_training():
    model, x = built("transformer", dropout=0.5), bits(4, 6, 1)
    losses = [model.loss({"x": x}, generator=generator(seed))[0].item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    model.eval()
    assert model.loss({"x": x}, generator=generator())[0].item() == pytest.approx(-model.log_prob(x).mean().item())
    thinned = dropped(torch.ones(100_000), 0.2, generator())
    assert thinned.unique().tolist() == [0.0, 1.25] and thinned.mean() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("name", "config"), [("wavenet", {}), ("transformer", {"context": 3, "num_layers": 3})])
def test_receptive_field_is_how_far_back_the_gradient_reaches(name, config):
    torch.manual_seed(0)
    model = generative.build(name, **{**SMALL[name], **config}, head="gaussian").double()
    x = torch.randn(1, 16, 1, generator=generator(), dtype=torch.float64)
    seen = jacobian(lambda x: model.features(x)[0, -1].sum(), x)[0, :, 0] != 0
    assert seen.tolist() == [t >= 16 - model.receptive_field for t in range(16)]
    assert model.receptive_field == {"wavenet": 5, "transformer": 7}[name]


def test_wavenet_doubles_its_field_by_each_layer_of_two_taps():
    fields = [generative.build("wavenet", dilations=tuple(2**i for i in range(n))).receptive_field for n in (1, 2, 10)]
    assert fields == [2, 4, 1024]
    assert generative.build("wavenet", kernel=3, dilations=(1, 3)).receptive_field == 9


def test_mu_law_levels_come_back_and_are_finest_at_zero():
    levels = torch.arange(256)
    audio = mu_law_audio(levels, dtype=torch.float64)
    assert torch.equal(mu_law_levels(audio), levels)
    assert audio.abs().max() <= 1 and torch.allclose(audio, -audio.flip(0))
    assert mu_law_levels(torch.tensor([-1.0, 1.0])).tolist() == [0, 255]
    steps = audio.diff()
    assert steps.argmin() == 127 and steps.max() / steps.min() > 200
    assert mu_law_levels(torch.tensor([0.01])).item() == round(127.5 * (1 + math.log1p(2.55) / math.log(256)))


def nats_per_step(model, data, n: int = 500, first: torch.Tensor | None = None) -> float:
    batch = data.sample(n, generator(7))
    if first is not None:
        batch["first"] = first
    with torch.no_grad():
        return float(model.loss(batch, generator=generator())[1]["nats_per_value"])


def test_wavenet_solves_delayed_xor_exactly_where_its_field_reaches_the_delay():
    data = source("delayed_xor", delay=3, num_steps=16)
    reached = [trained("wavenet", data, 100, 2e-2, channels=16, skip=16, dilations=d) for d in ((1, 1), (1,))]
    assert [model.receptive_field for model in reached] == [3, 2]
    assert nats_per_step(reached[0], data) < 0.35 and nats_per_step(reached[1], data) > 0.685


def test_lstm_with_episodes_shorter_than_the_delay_learns_nothing():
    data = source("delayed_xor", delay=2, num_steps=12)
    model = trained("lstm", data, 120, 2e-2, hidden=16)
    assert nats_per_step(model, data) < 0.36
    assert nats_per_step(model, data, first=(torch.arange(12) % 2 == 0).repeat(500, 1)) > 0.685


def test_transformer_learns_ising_far_beyond_the_best_tree():
    data, states = source("ising", side=2, beta=0.8), binary_states(4).float()
    model = trained("transformer", data, 200, 1e-2, vectors=True, num_steps=4, width=16, num_heads=2, num_layers=1, context=8)
    exact = data.log_prob(states)
    with torch.no_grad():
        divergence = (exact.exp() * (exact - model.log_prob(states))).sum().item()
    assert divergence < 0.2 * (chow_liu_nats(states, exact.exp()) - data.entropy)
