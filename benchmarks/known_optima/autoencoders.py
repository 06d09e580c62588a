"""Autoencoders against principal component analysis, scores, exact marginal likelihoods and the rate–distortion function."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

import generative
from benchmarks.known_optima import Row
from generative.autoencoders.linear_autoencoder import principal_angle
from generative.sources import chow_liu_nats, distortion_at_rate, source

VARIANCES = (4.0, 2.0, 1.0, 0.5, 0.25, 0.125)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(name: str, data: Any, settings: dict[str, Any], **config: Any) -> Any:
    """A model built under seed 0 and fitted to its last step."""
    torch.manual_seed(0)
    model = generative.build(name, **config)
    for _ in generative.fit(model, data, seed=0, device="cpu", **settings):
        pass
    return model


def closed_form() -> tuple[str, str, bool]:
    """Squared error on the very data of the fit, against their covariance's trailing eigenvalues; float64."""
    x = source("correlated_gaussian").sample(20_000, seeded())["x"].double()
    model = generative.build("linear_autoencoder", shape=(6,), latent=2).double()
    model.fit_closed_form(x)
    with torch.no_grad():
        error = 2 * model.loss({"x": x}, generator=seeded())[0].item()
    optimum = torch.linalg.eigvalsh(torch.cov(x.T, correction=0))[:4].sum().item()
    gap = error / optimum - 1
    return f"{error:.6f} of {optimum:.6f}", f"{gap:.0e}", abs(gap) < 1e-10


def linear_by_gradient() -> tuple[str, str, bool]:
    """The expected squared error under the true covariance, and the angle to its leading axes."""
    data = source("correlated_gaussian")
    model = trained(
        "linear_autoencoder", data, {"steps": 2_000, "batch_size": 4_096, "learning_rate": 5e-3}, shape=(6,), latent=2
    ).double()
    with torch.no_grad():
        residual = torch.eye(6).double() - model.decoder.weight @ model.encoder.weight
        offset = model.decoder(model.encoder.bias)
        error = (torch.trace(residual @ data.covariance @ residual.T) + offset @ offset).item()
        angle = principal_angle(model.decoder.weight, data.axes[:, :2]).item()
    gap = error / data.pca_error(2) - 1
    return f"{error:.5f}, angle {angle:.4f}", f"{gap:.3%}", gap <= 1e-3 and angle <= 1e-2


def denoising_score() -> tuple[str, str, bool]:
    """E‖ŝ − ∇log p_σ‖² / E‖∇log p_σ‖² at x̃ ~ p_σ."""
    data, std = source("gaussian_mixture"), 0.5
    model = trained(
        "denoising_autoencoder",
        data,
        {"steps": 3_000, "batch_size": 1_024, "learning_rate": 3e-3},
        shape=(2,), latent=64, hidden=(64,), std=std, activation="silu",
    )  # fmt: skip
    noise = seeded(1)
    noisy = data.sample(50_000, noise)["x"] + std * torch.randn(50_000, 2, generator=noise)
    score = data.score(noisy, 1.0, std**2)
    with torch.no_grad():
        relative = ((model.score(noisy) - score).square().sum() / score.square().sum()).item()
    return f"{relative:.2%}", f"{relative:.2%}", relative <= 0.02


def linear_vae() -> tuple[str, str, bool]:
    """E[−ELBO] against the best marginal likelihood of a linear-Gaussian model, which it reaches: the posterior is Gaussian."""
    data = source("correlated_gaussian")
    model = trained("vae", data, {"steps": 3_000, "batch_size": 256, "learning_rate": 5e-3}, shape=(6,), latent=2, hidden=())
    x = data.sample(1_000_000, seeded(1))["x"]
    with torch.no_grad():  # differences from log p vary less over data than the bound itself
        reached = data.entropy + (data.log_prob(x) - model.elbo(x, generator=seeded(2))).mean().item()
    gap = reached - data.ppca_nats(2)
    return f"{reached:.4f}", f"{gap:.4f}", -0.005 <= gap <= 0.05


def quadrature(model: Any, x: Tensor, points: int = 201, limit: float = 6.0) -> Tensor:
    """log ∫ p(x | z) N(z; 0, I) dz [B] by the trapezium rule over a square of two latent dimensions; nats."""
    axis = torch.linspace(-limit, limit, points)
    z = torch.cartesian_prod(axis, axis)
    prior = -0.5 * z.square().sum(1) - math.log(2 * math.pi) + 2 * math.log(2 * limit / (points - 1))
    with torch.no_grad():
        output = model.net.output(z, None)
        rows = [model.net.observation.log_prob(output, row.expand(len(z), -1)).sum(1) + prior for row in x]
    return torch.stack(rows).logsumexp(1)


def vae_by_quadrature() -> tuple[str, str, bool]:
    """σ is fixed: with as many latent dimensions as data the calibrated one would go to 0, and posteriors to points."""
    data = source("ring")
    model = trained(
        "vae", data, {"steps": 3_000, "batch_size": 256}, shape=(2,), latent=2, hidden=(64, 64), activation="tanh", scale=0.3
    )
    x = data.sample(1_000, seeded(1))["x"]
    exact = quadrature(model, x).mean().item()
    with torch.no_grad():
        bound = model.iwae(x, 1_000, seeded(2)).mean().item()
    return f"{bound:.4f} of {exact:.4f}", f"{exact - bound:.4f}", abs(exact - bound) <= 0.02


def rate_distortion(nats: float) -> Row:
    def measure() -> tuple[str, str, bool]:
        data = source("correlated_gaussian")
        model = trained(
            "beta_vae",
            data,
            {"steps": 6_000, "batch_size": 512, "learning_rate": 3e-3, "keep": "last"},
            shape=(6,), latent=6, hidden=(), max_kl=nats, beta=1.0,
        )  # fmt: skip
        generator = seeded(1)
        x = data.sample(1_000_000, generator)["x"]
        with torch.no_grad():
            likelihood, kl, _ = model.net.bound_terms({"x": x}, generator)
        rate = kl.sum(1).mean().item()
        distortion = 2 * (-likelihood.mean().item() - 3 * math.log(2 * math.pi))
        gaps = rate / nats - 1, distortion / optimum - 1
        return f"KL {rate:.4f}, D {distortion:.5f}", f"{gaps[0]:+.2%}, {gaps[1]:+.2%}", max(map(abs, gaps)) <= 3e-3

    optimum = distortion_at_rate(VARIANCES, nats)
    task = f"Gaussian source, KL ≤ {nats:g}"
    return Row("beta_vae", task, f"D({nats:g}) = {optimum:.5f}", "KL and D within 0.3 %", measure)


def digits(name: str, target: float, **config: Any) -> tuple[str, str, bool]:
    """The importance-weighted bound (1,000 samples) on the test part."""
    model = trained(
        name,
        source("digits"),
        {"steps": 4_000, "batch_size": 128},
        head="bernoulli", latent=16, hidden=(256, 256), **config,
    )  # fmt: skip
    train, test = parts()
    with torch.no_grad():
        nats = -model.iwae(test, 1_000, seeded(1)).mean().item()
    return f"{nats:.2f}", f"{nats - chow_liu_nats(train, test=test, pseudo_count=1.0):+.2f} to Chow–Liu", nats <= target


def parts() -> tuple[Tensor, Tensor]:
    """Binarised digits [N, 64] to fit and to judge."""
    return source("digits").everything["x"], source("digits", part="test").everything["x"]


def ppca_of_digits() -> tuple[str, str, bool | None]:
    """Probabilistic PCA in the discrete models' unit, the baseline; of the rank that does best on the test part.

    Bits become x + u with u uniform in [0, 1); that density's mean log bounds the probability: log p(x) ≥ E_u log f(x + u).
    """
    noise = seeded(2)
    train, test = (part.double() + torch.rand(part.shape, generator=noise, dtype=torch.float64) for part in parts())
    variances, axes = torch.linalg.eigh(torch.cov(train.T, correction=0))  # ascending
    squares = ((test - train.mean(0)) @ axes).square().mean(0)
    nats = {}
    for rank in range(64):
        kept = torch.cat([variances[: 64 - rank].mean().expand(64 - rank), variances[64 - rank :]])
        nats[rank] = 0.5 * (squares / kept + kept.log() + math.log(2 * math.pi)).sum().item()
    rank = min(nats, key=lambda each: nats[each])
    tree = chow_liu_nats(parts()[0], test=parts()[1], pseudo_count=1.0)
    return f"{nats[rank]:.2f} (rank {rank})", f"{nats[rank] - tree:+.2f} to Chow–Liu", None


TREE = "unknown (Chow–Liu 20.55)"
DIGITS = "binarised digits, test nats (bound of 1,000 samples)"
GAUSSIAN = "Gaussian, variances 4 … 0.125, 2 dimensions kept"
ROWS: list[Row] = [
    Row("linear_autoencoder", f"closed form; {GAUSSIAN}", "trailing eigenvalues", "exact", closed_form),
    Row("linear_autoencoder", f"trained; {GAUSSIAN}", "1.875", "0.1 %, angle ≤ 0.01", linear_by_gradient),
    Row("denoising_autoencoder", "score of a Gaussian mixture", "relative error 0", "≤ 2 %", denoising_score),
    Row(
        "vae",
        f"linear; {GAUSSIAN}",
        f"pPCA {source('correlated_gaussian').ppca_nats(2):.4f} nats",
        "ELBO within 0.05 nats",
        linear_vae,
    ),
    Row("vae", "2-D latent; importance-weighted bound", "log p by quadrature", "within 0.02 nats", vae_by_quadrature),
    *(rate_distortion(nats) for nats in (1.0, 2.0, 4.0)),
    Row("vae", DIGITS, "unknown", "≤ 18.0", partial(digits, "vae", 18.0, warm_up=1_000)),
    Row("beta_vae", f"{DIGITS}; β = 1.5", TREE, "< 20.55", partial(digits, "beta_vae", 20.55, beta=1.5)),
    Row("pPCA, the baseline", "binarised digits + uniform noise, test nats", TREE, "none", ppca_of_digits),
]
