"""Sources against theory: entropies, baselines, densities, scores and the Kalman filter."""

from __future__ import annotations

import math

import pytest
import torch

from generative.continuous import Banana, CorrelatedGaussian, GaussianMixture, LinearDynamicalSystem, Ring
from generative.sources import (
    SOURCES,
    Digits,
    UniformImages,
    binary_states,
    chow_liu_nats,
    distortion_at_rate,
    independent_nats,
    source,
)
from generative.synthetic import AddingProblem, ColourCopies, DelayedXor, DiagonalCopies, Ising, Parities

BIT = math.log(2)
H = 0.32508  # binary entropy of 0.1, nats
CONTROLLED = LinearDynamicalSystem(controls=((0.5,), (-1.0,)), num_steps=6, emission=((1.0, 0.5), (0.0, 2.0)))

ALONE = [name for name in SOURCES if name != "recording"]  # that one needs a folder


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def log_prob(made, batch):
    return made.log_prob(batch["x"], batch["action"]) if "action" in batch else made.log_prob(batch["x"])


@pytest.mark.parametrize("name", ALONE)
def test_source_draws_the_same_from_the_same_generator(name):
    made = source(name)
    torch.manual_seed(1)
    first = made.sample(16, generator(3))
    torch.manual_seed(2)
    again, other = made.sample(16, generator(3)), made.sample(16, generator(4))
    assert {len(value) for value in first.values()} == {16}
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["x"], other["x"])
    assert first["x"].dtype == (torch.uint8 if first["x"].ndim == 4 else torch.float32)


NO_DENSITY = ("digits", "adding_problem", "coloured_shapes", "captioned_shapes")


@pytest.mark.parametrize("name", [name for name in ALONE if name not in NO_DENSITY])
def test_source_log_prob_of_samples_averages_to_minus_the_entropy(name):
    made = source(name)
    nats = -log_prob(made, made.sample(20_000, generator()))
    assert nats.dtype == torch.float64 and nats.shape == (20_000,)
    if hasattr(made, "entropy"):
        assert abs(nats.mean() - made.entropy) < 4.5 * nats.std() / math.sqrt(len(nats)) + 1e-9


def test_source_of_unknown_name_or_setting_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown source 'isng'; did you mean 'ising'\? \(known: adding_problem, "):
        source("isng")
    with pytest.raises(ValueError, match=r"source 'ising': unknown key 'betta'; did you mean 'beta'"):
        source("ising", betta=1.0)
    assert source("generative.synthetic:Ising", beta=1) == Ising(beta=1.0)
    assert source("gaussian_mixture", weights=[1], means=[[0, 1]], stds=[2]) == GaussianMixture((1.0,), ((0.0, 1.0),), (2.0,))


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("ising", {"side": 5}, "side should be 2, 3 or 4"),
        ("parities", {"flip": 1.5}, "flip is a probability"),
        ("delayed_xor", {"delay": 64}, "delay should be from 2 to"),
        ("adding_problem", {"num_steps": 1}, "num_steps should be 2 or more"),
        ("diagonal_copies", {"width": 2}, "3 columns or more"),
        ("gaussian_mixture", {"weights": (1.0, 1.0, 1.0)}, "weights should sum to 1"),
        ("gaussian_mixture", {"weights": (1.0,)}, "should be as many"),
        ("correlated_gaussian", {"variances": (1.0, 0.0)}, "variances should be above 0"),
        ("linear_dynamical_system", {"controls": ((1.0,),)}, "should agree on S"),
        ("digits", {"levels": 3}, "expected 2 or 17"),
    ],
)
def test_source_refuses_what_cannot_be(name, config, message):
    with pytest.raises(ValueError, match=message):
        source(name, **config)


def test_ising_entropy_tree_and_independent_are_the_known_ones():
    ising, states = Ising(), binary_states(16)
    weight = ising.log_prob(states).exp()
    assert abs(weight.sum() - 1) < 1e-12
    assert ising.entropy == pytest.approx(8.66343, abs=5e-6)
    assert chow_liu_nats(states, weight) == pytest.approx(9.27064, abs=5e-6)
    assert independent_nats(states, weight) == pytest.approx(11.09035, abs=5e-6)


def test_ising_frames_hold_the_bits_of_the_vector_and_neighbours_agree_as_often_as_the_table_says():
    vector, frames = Ising().sample(20_000, generator())["x"], Ising(frames=True).sample(20_000, generator())["x"]
    assert torch.equal(frames.flatten(1).float(), vector) and frames.shape == (20_000, 4, 4, 1)
    assert torch.equal(Ising().log_prob(frames), Ising().log_prob(vector))
    states = binary_states(16)
    agree = (Ising().log_prob(states).exp() * (states[:, 5] == states[:, 6])).sum()
    assert abs((vector[:, 5] == vector[:, 6]).double().mean() - agree) < 0.015


def test_parities_show_neither_single_bits_nor_pairs():
    parities, states = Parities(), binary_states(16)
    weight = parities.log_prob(states).exp()
    assert abs(weight.sum() - 1) < 1e-12
    assert parities.entropy == pytest.approx(9.6181, abs=5e-5)
    assert -torch.xlogy(weight, weight).sum() == pytest.approx(parities.entropy)
    assert independent_nats(states, weight) == pytest.approx(16 * BIT)
    assert chow_liu_nats(states, weight) == pytest.approx(16 * BIT)


@pytest.mark.parametrize(
    ("made", "shape"),
    [
        (Ising(side=2), (4,)),
        (Parities(triples=2), (8,)),
        (DelayedXor(delay=2, num_steps=8), (8, 1)),
        (ColourCopies(1, 3), (1, 3, 3)),
        (DiagonalCopies(2, 5), (2, 5, 1)),
    ],
)
def test_binary_source_frequencies_match_its_log_prob(made, shape):
    states = binary_states(math.prod(shape))
    probability = made.log_prob(states.view(-1, *shape)).exp()
    assert abs(probability.sum() - 1) < 1e-12
    assert -torch.xlogy(probability, probability).sum() == pytest.approx(made.entropy)
    bits = made.sample(100_000, generator())["x"].flatten(1).long()
    count = torch.bincount((bits << torch.arange(bits.shape[1])).sum(1), minlength=len(states)).double()
    chi_square = ((count - 1e5 * probability) ** 2 / (1e5 * probability)).sum()
    freedom = len(states) - 1
    assert abs(chi_square - freedom) < 4.5 * math.sqrt(2 * freedom)


def test_delayed_xor_step_costs_the_flip_alone_and_is_scored_after_the_delay():
    made = DelayedXor()
    batch = made.sample(2_000, generator())
    assert made.delay == 8 and made.step_entropy == pytest.approx(H, abs=5e-6)
    assert not batch["mask"][:, :8].any() and batch["mask"][:, 8:].all()
    x = batch["x"][..., 0].long()
    flipped = x[:, 8:] ^ x[:, 7:-1] ^ x[:, :-8]
    assert abs(flipped.double().mean() - 0.1) < 0.004
    assert chow_liu_nats(x[:, 30:38].float()) > 8 * BIT - 0.02  # within the delay nothing shows


def test_adding_problem_label_is_the_marked_sum_and_the_mean_costs_a_sixth():
    batch = AddingProblem().sample(20_000, generator())
    number, marker = batch["x"].unbind(2)
    assert batch["x"].shape == (20_000, 100, 2) and batch["label"].shape == (20_000, 1)
    assert (marker[:, :50].sum(1) == 1).all() and (marker[:, 50:].sum(1) == 1).all()
    assert torch.allclose(batch["label"][:, 0], (number * marker).sum(1))
    assert AddingProblem().mean_predictor_mse == pytest.approx(0.167, abs=5e-4)
    assert (batch["label"] - 1).square().mean() == pytest.approx(1 / 6, abs=0.006)


def test_colour_copies_bits_per_dimension():
    assert ColourCopies().bits_per_dimension == pytest.approx(0.64600, abs=5e-6)
    pixels = ColourCopies().sample(1_000, generator())["x"].reshape(-1, 3)
    assert chow_liu_nats(pixels) / (3 * BIT) == pytest.approx(0.646, abs=0.01)
    assert independent_nats(pixels) / (3 * BIT) == pytest.approx(1.0, abs=1e-3)


def test_diagonal_copies_are_found_where_the_mask_says():
    batch = DiagonalCopies().sample(4_000, generator())
    x, mask = batch["x"][..., 0].long(), batch["mask"]
    assert DiagonalCopies().pixel_entropy == pytest.approx(H, abs=5e-6)
    source_pixel = torch.roll(x, (1, -2), (1, 2))  # [i, j] is x(i−1, j+2)
    assert mask.shape == x.shape and mask.sum() == 4_000 * 7 * 6
    assert abs((x ^ source_pixel)[mask].double().mean() - 0.1) < 0.004
    assert abs((x ^ source_pixel)[~mask].double().mean() - 0.5) < 0.01


def test_digits_baselines_are_the_known_ones():
    train, test = Digits().everything["x"], Digits(part="test").everything["x"]
    assert independent_nats(train, test=test, pseudo_count=1.0) == pytest.approx(25.22, abs=5e-3)
    assert chow_liu_nats(train, test=test, pseudo_count=0.25) == pytest.approx(20.55, abs=5e-3)


def test_digits_parts_are_disjoint_stratified_and_of_the_levels_asked():
    train, test = (Digits(part=part, levels=17, frames=True).everything for part in ("train", "test"))
    assert len(train["x"]) == 1437 and len(test["x"]) == 360 and test["x"].shape[1:] == (8, 8, 1)
    share = torch.bincount(test["label"]) / (torch.bincount(test["label"]) + torch.bincount(train["label"]))
    assert ((share - 0.2).abs() < 0.005).all()
    assert not {bytes(row.numpy()) for row in train["x"]} & {bytes(row.numpy()) for row in test["x"]}
    assert test["x"].max() == 16 and Digits(levels=17).everything["x"].max() == 1
    assert torch.equal(Digits("test").everything["x"], (test["x"].flatten(1) >= 8).float())


def test_tree_of_a_chain_is_the_chain():
    """x_1 fair, x_2 a copy flipped at 0.1, x_3 a copy of x_2 flipped at 0.1: the tree is exact, in any order of the columns."""
    states = binary_states(3)
    flipped = states[:, 1:] ^ states[:, :-1]
    weight = 0.5 * torch.where(flipped == 1, 0.1, 0.9).double().prod(1)
    for order in ([0, 1, 2], [0, 2, 1], [1, 0, 2]):
        assert chow_liu_nats(states[:, order], weight) == pytest.approx(BIT + 2 * H, abs=2e-5)


def test_tree_takes_a_bit_that_never_changes_and_finds_a_value_never_seen_impossible():
    states = binary_states(3)
    states[:, 1] = 0
    assert chow_liu_nats(states) == pytest.approx(2 * BIT)
    assert chow_liu_nats(states, test=torch.ones(1, 3)) == math.inf


def test_tree_and_independent_pseudo_counts_worked_out_by_hand():
    """Rows 00, 00, 01 and one pseudo-count: p(x_2 = 1) is 2/5; as a tree p(x_1 = 0) is 5/7, p(x_2 = 1 | x_1 = 0) is 2/5."""
    rows, test = torch.tensor([[0, 0], [0, 0], [0, 1]]), torch.tensor([[0, 1]])
    assert independent_nats(rows, test=test, pseudo_count=1) == pytest.approx(-math.log(4 / 5 * 2 / 5))
    assert chow_liu_nats(rows, test=test, pseudo_count=1) == pytest.approx(-math.log(5 / 7 * 2 / 5))


def test_baselines_refuse_grey_levels_and_weights_that_are_no_distribution():
    with pytest.raises(ValueError, match="zeros and ones"):
        independent_nats(torch.full((3, 2), 0.5))
    with pytest.raises(ValueError, match="sum to 1"):
        chow_liu_nats(binary_states(2), torch.ones(4))


def test_uniform_images_cost_eight_bits_a_dimension_and_reach_every_level():
    x = UniformImages(channels=3).sample(500, generator())["x"]
    assert x.shape == (500, 4, 4, 3) and len(x.unique()) == 256
    assert -UniformImages(channels=3).log_prob(x) / (48 * BIT) == pytest.approx(torch.full((500,), 8.0, dtype=torch.float64))


@pytest.mark.parametrize("made", [GaussianMixture(), Ring(), Banana()], ids=["mixture", "ring", "banana"])
def test_plane_density_integrates_to_one(made):
    axis = torch.arange(-8, 12, 0.05, dtype=torch.float64)
    density = made.log_prob(torch.cartesian_prod(axis, axis)).exp()
    assert density.sum() * 0.05**2 == pytest.approx(1, abs=1e-6)
    spread = made.sample(50_000, generator())["x"].double()
    mean = (density[:, None] * torch.cartesian_prod(axis, axis)).sum(0) * 0.05**2
    assert torch.allclose(spread.mean(0), mean, atol=0.04)


def test_mixture_score_is_the_gradient_of_its_log_prob():
    made = GaussianMixture((0.3, 0.7), ((0.0, 1.0, 2.0), (1.0, -1.0, 0.5)), (0.4, 1.2))
    x = torch.randn(50, 3, generator=generator(), dtype=torch.float64, requires_grad=True)
    for scale, variance in (
        (1.0, 0.0),
        (0.6, 0.64),
        (torch.linspace(0.1, 1, 50)[:, None], torch.linspace(1, 0.1, 50)[:, None]),
    ):
        (gradient,) = torch.autograd.grad(made.log_prob(x, scale, variance).sum(), x)
        assert torch.allclose(made.score(x, scale, variance), gradient)


def test_mixture_optimal_noise_is_the_mean_of_the_noise_given_the_noised():
    """Monte Carlo: E[(ε − ε*) g(x_t)] = 0 for any g, which defines the conditional mean; and ᾱ may differ from row to row."""
    made, n = GaussianMixture(), 200_000
    x, noise = made.sample(n, generator())["x"].double(), torch.randn(n, 2, generator=generator(1), dtype=torch.float64)
    for alpha_bar in (0.9, 0.5, torch.rand(n, generator=generator(2), dtype=torch.float64)):
        kept = torch.as_tensor(alpha_bar).reshape(-1, 1)
        x_t = kept.sqrt() * x + (1 - kept).sqrt() * noise
        residual = noise - made.optimal_noise(x_t, alpha_bar)
        for test_function in (torch.ones_like(x_t), x_t, x_t**2, x_t.sin(), (x_t > 0).double()):
            product = residual * test_function
            assert (product.mean(0).abs() < 4.5 * product.std(0) / math.sqrt(n)).all()


def test_mixture_component_is_the_conditional():
    made = GaussianMixture()
    x = made.sample(100, generator())["x"]
    parts = torch.stack([made.component(k).log_prob(x) + math.log(weight) for k, weight in enumerate(made.weights)])
    assert torch.allclose(parts.logsumexp(0), made.log_prob(x))
    batch = made.sample(20_000, generator())
    assert torch.allclose(torch.bincount(batch["label"]) / 20_000, torch.tensor(made.weights), atol=0.015)
    assert torch.allclose(batch["x"][batch["label"] == 1].mean(0), torch.tensor(made.means[1]), atol=0.04)


def test_distortion_at_rate_is_the_known_one():
    variances = CorrelatedGaussian().variances
    for rate, distortion in ((0, 7.875), (1, 3.95604), (2, 2.45658), (4, 1.13448)):
        assert distortion_at_rate(variances, rate) == pytest.approx(distortion, abs=5e-6)
    assert distortion_at_rate((3.0,), 1.5) == pytest.approx(3 * math.exp(-3))  # one Gaussian: σ² e^{−2R}
    with pytest.raises(ValueError, match="rate should be 0 or more"):
        distortion_at_rate(variances, -1)


def test_correlated_gaussian_covariance_pca_and_ppca():
    made = CorrelatedGaussian()
    x = made.sample(50_000, generator())["x"].double()
    assert torch.allclose(x.T @ x / len(x), made.covariance, atol=0.06)
    assert torch.linalg.eigvalsh(made.covariance).flip(0).tolist() == pytest.approx(made.variances)
    assert made.pca_error(2) == pytest.approx(1.875)
    code = x @ made.axes[:, :2]
    assert (x - code @ made.axes[:, :2].T).square().sum(1).mean() == pytest.approx(1.875, abs=0.03)
    noise = made.pca_error(2) / 4
    model = made.axes * torch.tensor([4, 2, noise, noise, noise, noise], dtype=torch.float64) @ made.axes.T
    density = torch.distributions.MultivariateNormal(torch.zeros(6, dtype=torch.float64), model)
    expected = -density.log_prob(torch.zeros(6)) + 0.5 * torch.trace(torch.linalg.solve(model, made.covariance))
    assert made.ppca_nats(2) == pytest.approx(expected.item())
    assert made.ppca_nats(5) == pytest.approx(made.entropy)


def dense_gaussian(made: LinearDynamicalSystem, action: torch.Tensor) -> torch.distributions.MultivariateNormal:
    """The distribution of one whole sequence [T O] given action [T, U]: x is affine in its noises, so take the Jacobian."""
    a, c, b = (torch.tensor(rows, dtype=torch.float64) for rows in (made.transition, made.emission, made.controls))
    size, seen = len(a), len(c)

    def unroll(noise: torch.Tensor) -> torch.Tensor:
        state_noise, seen_noise = noise.split([made.num_steps * size, made.num_steps * seen])
        state_noise, seen_noise = state_noise.view(-1, size), seen_noise.view(-1, seen)
        z, rows = made.initial_std * state_noise[0], []
        for t in range(made.num_steps):
            rows.append(c @ z + made.emission_std * seen_noise[t])
            if t + 1 < made.num_steps:
                z = a @ z + b @ action[t] + made.state_std * state_noise[t + 1]
        return torch.cat(rows)

    zero = torch.zeros(made.num_steps * (size + seen), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(unroll, zero)
    return torch.distributions.MultivariateNormal(unroll(zero), jacobian @ jacobian.T)


def test_kalman_log_likelihood_is_that_of_the_dense_gaussian():
    batch = CONTROLLED.sample(3, generator())
    nats = log_prob(CONTROLLED, batch)
    for row, x, action in zip(nats, batch["x"].double(), batch["action"].double()):
        dense = dense_gaussian(CONTROLLED, action)
        assert row == pytest.approx(dense.log_prob(x.flatten()).item(), abs=1e-9)
        assert CONTROLLED.entropy == pytest.approx(dense.entropy().item())


def test_kalman_sees_an_action_in_the_next_step_only_and_asks_for_actions():
    batch = CONTROLLED.sample(20_000, generator())
    nats = -log_prob(CONTROLLED, batch)
    assert abs(nats.mean() - CONTROLLED.entropy) < 4.5 * nats.std() / math.sqrt(20_000)
    together = (batch["action"][:, :-1] * batch["x"][:, :-1, 1:]).mean(0)
    after = (batch["action"][:, :-1] * batch["x"][:, 1:, 1:]).mean(0)
    assert together.abs().max() < 0.2 and torch.allclose(after, torch.full_like(after, -2.0), atol=0.2)
    with pytest.raises(ValueError, match="exactly where there are controls"):
        CONTROLLED.log_prob(batch["x"])
