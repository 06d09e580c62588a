"""Autoencoders: principal components, scores, bounds of the likelihood, and the KL constraint."""

from __future__ import annotations

import math

import pytest
import torch

import generative
from generative.autoencoders.gaussian import active_units, kl_to_standard_normal, normal_log_prob, with_free_bits
from generative.autoencoders.linear_autoencoder import principal_angle
from generative.sources import distortion_at_rate, source

DIGITS = source("digits")
FRAMES = source("digits", levels=17, frames=True)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(name: str, **config):
    torch.manual_seed(0)
    return generative.build(name, **config)


def fitted(model, data, steps: int, **settings):
    settings = {"validation": 0.0, "device": "cpu", "batch_size": 256, "learning_rate": 5e-3} | settings
    for _ in generative.fit(model, data, steps=steps, **settings):
        pass
    return model


def test_kl_to_standard_normal_equals_the_integral():
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    mean, log_std = torch.tensor(0.7).double(), torch.tensor(-0.4).double()
    log_q = normal_log_prob(grid[:, None], mean, log_std)
    log_p = normal_log_prob(grid[:, None], torch.zeros(1), torch.zeros(1))
    integral = torch.trapezoid(log_q.exp() * (log_q - log_p), grid)
    assert kl_to_standard_normal(mean, log_std).item() == pytest.approx(integral.item(), abs=1e-6)


def test_free_bits_stop_the_gradient_of_cheap_dimensions():
    kl = torch.tensor([[0.1, 1.0], [0.3, 3.0]], requires_grad=True)
    with_free_bits(kl, 0.5).backward()
    assert kl.grad.tolist() == [[0.0, 0.5], [0.0, 0.5]]


def test_active_units_of_one_datum_are_none():
    assert active_units(torch.tensor([[3.0, -1.0]])).item() == 0


def test_linear_autoencoder_closed_form_reaches_the_trailing_eigenvalues():
    x = source("correlated_gaussian").sample(500, seeded())["x"].double() + 3
    model = built("linear_autoencoder", shape=(6,), latent=2).double()
    model.fit_closed_form(x)
    covariance = torch.cov(x.T, correction=0)
    trailing = torch.linalg.eigvalsh(covariance)[:4].sum().item()
    assert model.loss({"x": x}, generator=seeded())[1]["squared_error"].item() == pytest.approx(trailing, rel=1e-10)
    codes = model.encode(x)
    leading = torch.linalg.eigvalsh(covariance).flip(0)[:2]
    torch.testing.assert_close(torch.cov(codes.T, correction=0), leading.diag())
    torch.testing.assert_close(codes.mean(0), torch.zeros(2).double(), atol=1e-10, rtol=0)


def test_linear_autoencoder_trained_spans_the_principal_axes():
    data = source("correlated_gaussian")
    settings = {"batch_size": 1_024, "learning_rate": 0.01}
    model = fitted(built("linear_autoencoder", shape=(6,), latent=2), data, 500, **settings).double()
    residual = torch.eye(6) - model.decoder.weight @ model.encoder.weight
    error = torch.trace(residual @ data.covariance @ residual.T).item()
    assert error == pytest.approx(data.pca_error(2), rel=1e-3)
    assert principal_angle(model.decoder.weight, data.axes[:, :2]) < 0.02


def test_principal_angle_of_tilted_planes():
    tilted = torch.tensor([[1.0, 0.0], [0.0, math.cos(1e-3)], [0.0, math.sin(1e-3)]], dtype=torch.float64)
    assert principal_angle(torch.eye(3, 2).double(), tilted).item() == pytest.approx(1e-3, rel=1e-6)


def test_autoencoder_loss_is_half_the_summed_squared_error():
    model = built("autoencoder", shape=(3,), latent=1, hidden=())
    for parameter in model.parameters():
        parameter.data.zero_()
    model.decoder.output.bias.data.copy_(torch.tensor([1.0, 0.0, 0.0]))
    x = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
    assert model.loss({"x": x}, generator=seeded())[0].item() == pytest.approx(0.5 * (4 + 5) / 2)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    assert model.loss({"x": x, "mask": mask}, generator=seeded())[0].item() == pytest.approx(0.5 * (0 + 5) / 2)


def test_overcomplete_autoencoder_with_sparsity_leaves_most_of_the_code_unused():
    models = {
        sparsity: fitted(built("autoencoder", latent=100, hidden=(), sparsity=sparsity), DIGITS, 150) for sparsity in (0.0, 0.3)
    }
    x = DIGITS.everything["x"]
    sizes = {sparsity: model.encode(x).abs().sum(1).mean().item() for sparsity, model in models.items()}
    assert sizes[0.3] < 0.3 * sizes[0.0]
    columns = models[0.3].decoder.output.weight.norm(dim=0)
    torch.testing.assert_close(columns, torch.ones(100))


def test_denoising_autoencoder_learns_the_score_of_smoothed_data():
    data, std = source("gaussian_mixture"), 0.5
    model = built("denoising_autoencoder", shape=(2,), latent=64, hidden=(64,), std=std, activation="silu")
    fitted(model, data, 1_000, batch_size=512)
    noise = seeded(1)
    noisy = data.sample(10_000, noise)["x"] + std * torch.randn(10_000, 2, generator=noise)
    score = data.score(noisy, 1.0, std**2)
    excess = (model.score(noisy) - score).square().sum() / score.square().sum()
    assert excess.item() < 0.05  # longer training: below 0.01, see the benchmark


def test_masking_autoencoder_inpaints_the_conditional_mean():
    rho = 0.8
    x = torch.randn(20_000, 2, generator=seeded())
    x[:, 1] = rho * x[:, 0] + math.sqrt(1 - rho**2) * x[:, 1]
    model = built("denoising_autoencoder", shape=(2,), latent=32, hidden=(32,), corruption="masking")
    fitted(model, x, 400)
    asked = torch.tensor([[1.0, 9.0], [0.0, 9.0], [-1.5, 9.0]])
    filled = model.inpaint(asked, torch.tensor([[True, False]]).expand(3, 2))
    torch.testing.assert_close(filled[:, 0], asked[:, 0])
    torch.testing.assert_close(filled[:, 1], rho * asked[:, 0], atol=0.12, rtol=0)


def test_inpainting_does_not_see_what_is_erased():
    model = built("denoising_autoencoder", shape=(8, 8, 1), levels=17, corruption="masking", channels=(8,))
    x = FRAMES.sample(4, seeded())["x"]
    known = torch.ones(4, 8, 8, dtype=torch.bool)
    known[:, 2:5] = False
    other = torch.where(known[..., None], x, 16 - x)
    assert torch.equal(model.inpaint(x, known), model.inpaint(other, known))
    assert torch.equal(model.inpaint(x, known)[known], x[known])


def test_vae_loss_is_the_sum_over_dimensions_and_the_mean_over_the_batch():
    model = built("vae", shape=(3,), latent=2, hidden=(), scale=1.0).eval()
    for parameter in model.parameters():
        parameter.data.zero_()
    model.net.encoder.output.bias.data[:2] = torch.tensor([1.0, 2.0])  # KL = (1 + 4)/2
    x = torch.tensor([[1.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
    by_hand = (1 + 2) / 2 + 1.5 * math.log(2 * math.pi) + 2.5
    assert model.loss({"x": x}, generator=seeded())[0].item() == pytest.approx(by_hand, rel=1e-5)


def test_linear_vae_reaches_probabilistic_pca():
    data = source("correlated_gaussian")
    model = fitted(built("vae", shape=(6,), latent=2, hidden=()), data, 800, learning_rate=0.02)
    x = data.sample(100_000, seeded(1))["x"]
    with torch.no_grad():
        excess = (data.log_prob(x) - model.elbo(x)).mean().item()  # differences from log p vary less than either
    best = data.ppca_nats(2) - data.entropy
    assert -0.01 < excess - best < 0.05
    noise = data.pca_error(2) / 4  # the calibrated variance is the mean of the eigenvalues left out
    assert math.exp(20 * model.net.observation.raw_log_scale.item()) == pytest.approx(noise, rel=0.03)


def test_importance_weighted_bound_rises_from_the_elbo_to_the_exact_likelihood():
    model = fitted(built("vae", shape=(2,), latent=2, hidden=(32,), activation="tanh", scale=0.3), source("ring"), 300)
    x = source("ring").sample(50, seeded(1))["x"]
    axis = torch.linspace(-6, 6, 201)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        log_prior = normal_log_prob(z, torch.zeros_like(z), torch.zeros_like(z)) + 2 * math.log(12 / 200)
        joint = [model.net.log_likelihood(row.expand(len(z), -1), z, None) + log_prior for row in x]
        exact = torch.stack(joint).logsumexp(1).mean().item()
        few, many = (model.iwae(x, n, seeded(2)).mean().item() for n in (1, 1_000))
        elbo = model.elbo(x, generator=seeded(3)).mean().item()
    assert abs(few - elbo) < 0.3 and few < many - 0.02
    assert many == pytest.approx(exact, abs=0.02)


def test_vae_warm_up_and_free_bits_act_in_training_only():
    model = built("vae", head="bernoulli", warm_up=4, free_nats=2.0)
    batch = DIGITS.sample(16, seeded())
    losses = []
    for _ in range(5):
        loss, metrics = model.loss(batch, generator=seeded())
        losses.append(loss.item() - metrics["reconstruction"].item())
        model.after_update("model")
    assert losses == pytest.approx([4.0, 8.0, 12.0, 16.0, 16.0], abs=1e-4)  # 8 dimensions at 2 free nats each
    loss, metrics = model.eval().loss(batch, generator=seeded())
    assert loss.item() == pytest.approx(metrics["reconstruction"].item() + metrics["kl"].item(), rel=1e-6)
    assert loss.item() == pytest.approx(-model.elbo(batch["x"], generator=seeded()).mean().item(), rel=1e-6)


def test_vae_resumes_within_the_warm_up_to_the_bit():
    def progress(model):
        return generative.Fit(model, DIGITS, steps=8, log_every=4, validation=0.0, device="cpu")

    whole = built("vae", head="bernoulli", hidden=(16,), warm_up=20)
    _ = list(progress(whole))
    first = progress(built("vae", head="bernoulli", hidden=(16,), warm_up=20))
    next(iter(first))
    second = progress(generative.build("vae", head="bernoulli", hidden=(16,), warm_up=20))
    second.load_state_dict(first.state_dict())
    assert int(second.model.num_updates) == 4
    _ = list(second)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_vae_with_labels_puts_the_class_into_the_label_and_not_into_z():
    model = built("vae", head="bernoulli", hidden=(64,), latent=2, num_classes=10)
    assert model.conditioned_on == "label"
    fitted(model, DIGITS, 250)
    batch = DIGITS.everything
    means = torch.stack([batch["x"][batch["label"] == digit].mean(0) for digit in range(10)])
    drawn = model.sample(1_000, torch.arange(10).repeat(100), generator=seeded()).view(100, 10, 64).mean(0)
    nearest = torch.cdist(drawn, means).argmin(1)
    assert nearest.tolist() == list(range(10))
    with pytest.raises(ValueError, match="label is missing"):
        model.sample(3, generator=seeded())
    with pytest.raises(ValueError, match=r"labels are \[3, 10\]; expected 0 to 9: set num_classes"):
        model.elbo(batch["x"][:2], torch.tensor([3, 10]))
    with pytest.raises(ValueError, match="got labels for a model without condition"):
        built("vae", head="bernoulli").sample(2, torch.tensor([1, 2]), generator=seeded())


@pytest.mark.parametrize("head", ["categorical", "logistic_mixture", "gaussian", "laplace"])
def test_convolutional_vae_gives_frames_as_recorded(head):
    model = built("vae", shape=(8, 8, 1), levels=17, head=head, channels=(8, 16), latent=4)
    batch = FRAMES.sample(64, seeded())
    before = model.loss(batch, generator=seeded())[0].item()
    fitted(model, FRAMES, 30)
    assert model.loss(batch, generator=seeded())[0].item() < before - 5
    for frames in (model.sample(3, generator=seeded()), model.decode(model.encode(batch["x"][:3]))):
        assert frames.shape == (3, 8, 8, 1) and frames.dtype == torch.uint8 and int(frames.max()) in range(1, 17)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("vae", {"shape": (8, 8, 1), "head": "bernoulli"}, r"levels is 256; expected 2 with the bernoulli head"),
        ("vae", {"head": "logistic_mixture"}, r"shape is \(64,\); expected \(H, W, C\): the logistic_mixture head"),
        ("vae", {"scale": -1.0}, r"scale is -1.0; expected a positive number, 'calibrated' or 'learned'"),
        ("vae", {"channels": (8,)}, r"shape is \(64,\); expected \(H, W, C\) where there are channels"),
        ("vae", {"shape": (8, 8)}, r"shape is \(8, 8\); expected \(D,\) for vectors or \(height, width, channels\)"),
        ("autoencoder", {"shape": (8, 8, 1), "channels": (1, 1, 1, 1)}, "expected fewer levels: each halves"),
        ("linear_autoencoder", {"latent": 65}, "latent is 65; expected from 1 to the data's 64 dimensions"),
        ("denoising_autoencoder", {"erased": 1.0}, "erased is 1.0; expected a probability between 0 and 1"),
        ("beta_vae", {"max_kl": 0.0}, "max_kl is 0.0; expected a positive number of nats, or None"),
    ],
)
def test_autoencoder_configurations_are_refused_by_name(name, config, message):
    with pytest.raises(ValueError, match=message):
        generative.build(name, **config)


def test_vae_refuses_grey_values_outside_a_bernoulli():
    with pytest.raises(ValueError, match="x is from 0 to 16; expected 0 to 1 for the bernoulli head"):
        built("vae", head="bernoulli").elbo(torch.tensor([[0.0, 16.0]]).repeat(1, 32))


def test_interpolation_starts_and_ends_at_the_reconstructions():
    model = built("vae", head="bernoulli", hidden=(16,), num_classes=10)
    x0, x1, label = DIGITS.everything["x"][:2], DIGITS.everything["x"][2:4], torch.tensor([1, 2])
    path = model.interpolate(x0, x1, 5, label)
    assert path.shape == (2, 5, 64)
    torch.testing.assert_close(path[:, 0], model.reconstruct(model.encode(x0), label))
    torch.testing.assert_close(path[:, 4], model.reconstruct(model.encode(x1), label))
    middle = (model.encode(x0) + model.encode(x1)) / 2
    torch.testing.assert_close(path[:, 2], model.reconstruct(middle, label))


def test_beta_vae_multiplier_rises_while_the_constraint_is_violated():
    model = built("beta_vae", shape=(6,), latent=6, hidden=(), beta=1.0, max_kl=0.5)
    assert "log_beta" not in dict(model.named_parameters()) and not model.log_beta.requires_grad
    batch = source("correlated_gaussian").sample(64, seeded())
    for log_std, sign in ((-3.0, 1), (0.0, -1)):
        model.net.encoder.output.weight.data.zero_()
        model.net.encoder.output.bias.data.zero_()[6:] = log_std
        before = model.log_beta.item()
        model.loss(batch, generator=seeded())[0].backward()
        model.after_update("model")
        assert model.log_beta.item() - before == pytest.approx(sign * 0.01, rel=0.05)
    held = model.log_beta.item()
    model.eval().loss(batch, generator=seeded())
    model.train().after_update("model")  # a validation in between isn't taken for an update
    assert model.log_beta.item() == pytest.approx(held - 0.01, rel=0.05)


def test_beta_vae_under_a_constraint_reaches_rate_distortion():
    data, nats = source("correlated_gaussian"), 2.0
    model = built("beta_vae", shape=(6,), latent=6, hidden=(), beta=1.0, max_kl=nats)
    fitted(model, data, 1_000, learning_rate=0.01)
    batch = data.sample(200_000, seeded(1))
    with torch.no_grad():
        likelihood, kl, _ = model.net.bound_terms(batch, seeded(2))
    distortion = -2 * likelihood.mean().item() - 6 * math.log(2 * math.pi)
    assert kl.sum(1).mean().item() == pytest.approx(nats, rel=0.02)
    assert distortion == pytest.approx(distortion_at_rate(data.variances, nats), rel=0.02)


def test_beta_vae_of_fixed_beta_switches_off_what_is_not_worth_its_nats():
    """At β the water level is θ = β σ²: a dimension of variance λ costs ½ ln(λ/θ) nats, or none at all."""
    data = source("correlated_gaussian")
    model = fitted(built("beta_vae", shape=(6,), latent=6, hidden=(), beta=1.5), data, 700, learning_rate=0.02)
    with torch.no_grad():
        _, kl, _ = model.net.bound_terms(data.sample(20_000, seeded(1)), seeded(2))
    expected = 0.5 * math.log(4 / 1.5) + 0.5 * math.log(2 / 1.5)
    assert kl.sum(1).mean().item() == pytest.approx(expected, abs=0.03)
    assert (kl.mean(0) > 0.02).sum() == 2


def test_frames_are_taken_about_the_first_batches_mean():
    """Without, codes carry the mean frame: they lie far from 0, and the prior's samples are no frames."""
    frames = torch.full((64, 8, 8, 1), 240, dtype=torch.uint8)
    place = torch.arange(64) % 8
    frames[torch.arange(64), :, place, 0] = 0  # a black column on white
    torch.manual_seed(0)
    model = generative.build("vae", shape=(8, 8, 1), latent=3, channels=(8, 16), activation="silu")
    for _ in generative.fit(model, frames, steps=300, batch_size=64, learning_rate=3e-3, validation=0, keep="last"):
        pass
    torch.testing.assert_close(model.net.centre, frames.float().mean(0).movedim(2, 0) / 255, atol=0.15, rtol=0)
    with torch.no_grad():
        codes, drawn = model.encode(frames), model.sample(200, generator=torch.Generator().manual_seed(1))
    assert (codes.mean(0).abs() < 0.5).all()
    assert 195 < drawn.float().mean() < 225  # the frames' mean is 210
