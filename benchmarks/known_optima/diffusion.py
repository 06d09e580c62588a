"""Diffusion against the exact noise of Gaussian mixtures, their densities and conditionals; latent diffusion against PCA."""

from __future__ import annotations

import math
import time
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

import generative
from benchmarks.known_optima import Row
from generative.diffusion import samplers
from generative.diffusion.guidance import classifier_guided
from generative.diffusion.latent_diffusion import LatentDiffusion
from generative.diffusion.samplers import NoisePredictor
from generative.diffusion.schedules import Schedule, diffused
from generative.sources import source

MIXTURE = source("gaussian_mixture")
SETTINGS = {"schedule": "linear", "hidden": (128, 128, 128), "prediction": "epsilon", "shape": (2,)}
QUICK = {"steps": 6_000, "batch_size": 512, "learning_rate": 2e-3, "ema": 0.999, "validation": 0.0, "keep": "last"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fitted(model: Any, data: Any, settings: dict[str, Any]) -> Any:
    for _ in generative.fit(model, data, **{"seed": 0, "device": "cpu", **settings}):
        pass
    return model


def trained(name: str, data: Any, settings: dict[str, Any], **config: Any) -> Any:
    torch.manual_seed(0)
    return fitted(generative.build(name, **config), data, settings)


@lru_cache
def of_mixture() -> Any:
    return trained("diffusion", MIXTURE, QUICK, **SETTINGS)


@lru_cache
def of_mixture_given_label() -> Any:
    return trained("diffusion", MIXTURE, {**QUICK, "batch_size": 1_024}, **{**SETTINGS, "num_classes": 3, "prediction": "v"})


def exact(mixture: Any, schedule: Schedule) -> NoisePredictor:
    return lambda x, t: mixture.optimal_noise(x, schedule.alpha_bar[t]).to(x)


def sliced_wasserstein(x: Tensor, y: Tensor, projections: int = 100) -> float:
    """√ of the mean over directions of W₂² between the projections of x and y [N, D], as many of each."""
    directions = torch.randn(x.shape[1], projections, generator=seeded(9)).to(x)
    directions = directions / directions.norm(dim=0)
    return ((x @ directions).sort(0).values - (y @ directions).sort(0).values).square().mean().sqrt().item()


def excess_risk() -> tuple[str, str, bool]:
    """E‖ε̂ − ε*‖²/D at t ~ Unif{1…T} and x_t of the mixture."""
    model, noise, n = of_mixture(), seeded(1), 200_000
    t = torch.randint(1, 1001, (n,), generator=noise)
    x0 = MIXTURE.sample(n, noise)["x"]
    x_t = diffused(x0, t, torch.randn(x0.shape, generator=noise), model.schedule_of_noise)
    with torch.no_grad():
        excess = (model.noise_predictor()(x_t, t) - exact(MIXTURE, model.schedule_of_noise)(x_t, t)).square().mean().item()
    return f"{excess:.5f}", f"{excess:.5f}", excess <= 1e-3


def variance_of_each_step() -> tuple[str, str, bool]:
    """The largest deviation from 1 of the variance of x_t on the way from T to 0: data N(0, I), ancestral sampler.

    Measured against the chain of the exact ε* = √(1−ᾱ) x_t under the same noise, whose variance is 1 at each step.
    """
    data = source("gaussian_mixture", weights=(1.0,), means=((0.0, 0.0),), stds=(1.0,))
    model = trained("diffusion", data, {**QUICK, "steps": 1_000}, **SETTINGS)
    schedule, noise = model.schedule_of_noise, seeded(1)
    x = truth = torch.randn(10_000, 2, generator=noise)
    worst = 0.0
    with torch.no_grad():
        for t in range(schedule.num_steps, 0, -1):
            z = torch.randn(x.shape, generator=noise) if t > 1 else None
            found = samplers.predicted(model.noise_predictor(), x, t, schedule, False)[1]
            x = samplers.ancestral_step(x, found, t, schedule, schedule.beta, z)
            best = math.sqrt(1 - schedule.alpha_bar[t].item()) * truth
            truth = samplers.ancestral_step(truth, best, t, schedule, schedule.beta, z)
            worst = max(worst, abs(x.var().item() / truth.var().item() - 1))
    return f"{1 + worst:.4f} at worst", f"{worst:.2%}", worst <= 0.01


def ode_log_prob() -> tuple[str, str, bool]:
    x = MIXTURE.sample(2_000, seeded(1))["x"]
    found, truth = of_mixture().ode_log_prob(x, num_steps=200).mean().item(), MIXTURE.log_prob(x).mean().item()
    return f"{found:.4f} of {truth:.4f}", f"{found - truth:+.4f}", abs(found - truth) <= 0.02


def elbo() -> tuple[str, str, bool]:
    x = MIXTURE.sample(10_000, seeded(1))["x"]
    gap = MIXTURE.log_prob(x) - of_mixture().elbo(x, generator=seeded(2), num_times=64)
    error = gap.std().item() / math.sqrt(len(x))
    reached = gap.mean().item()
    return f"{reached:.4f} ± {error:.4f} below log p", f"{reached:.4f}", -3 * error < reached <= 0.05


def against_exact(noise_of: NoisePredictor, mixture: Any, sampler: str) -> tuple[str, str, bool]:
    """Sliced W₂ to the mixture of one sampler, with the learned ε and with the exact one, from the same noise."""
    model, schedule, n = of_mixture(), Schedule("linear"), 20_000
    reference = mixture.sample(n, seeded(3))["x"].float()
    x = torch.randn(n, 2, generator=seeded(4))
    distances = [
        sliced_wasserstein(model.denoised(predictor, x, seeded(5), sampler, 25 if sampler == "ode" else 50), reference)
        for predictor in (noise_of, exact(mixture, schedule))
    ]
    ratio = distances[0] / distances[1]
    return f"{distances[0]:.4f} and {distances[1]:.4f} exact", f"{ratio:.2f}×", ratio <= 1.2


def sampled(sampler: str) -> Row:
    task = f"Gaussian mixture, sliced W₂ of {sampler}'s samples, learned ε and exact"
    return Row("diffusion", task, "1×", "≤ 1.2×", lambda: against_exact(of_mixture().noise_predictor(), MIXTURE, sampler))


def classifier_free() -> tuple[str, str, bool]:
    """The worst of the three classes."""
    model, n = of_mixture_given_label(), 20_000
    found = [
        against_exact(model.noise_predictor(torch.full((n,), label), 1.0), MIXTURE.component(label), "ode")
        for label in range(3)
    ]
    return max(found, key=lambda one: float(one[1].rstrip("×")))


def classifier() -> tuple[str, str, bool]:
    """The unconditional model, guided by a classifier of noised inputs: the worst of the three classes."""
    config = {"shape": (2,), "num_classes": 3, "schedule": "linear"}
    judge = trained("generative.diffusion.noised_classifier:NoisedClassifier", MIXTURE, {**QUICK, "steps": 2_000}, **config)
    found = []
    for label in range(3):
        log_prob = judge.log_prob_of(torch.full((20_000,), label))
        guided = classifier_guided(of_mixture().noise_predictor(), log_prob, judge.schedule_of_noise, 1.0)
        found.append(against_exact(guided, MIXTURE.component(label), "ode"))
    return max(found, key=lambda one: float(one[1].rstrip("×")))


def speed() -> tuple[str, str, bool]:
    model, seconds = generative.build("diffusion", **SETTINGS), {}
    for sampler, steps in (("ancestral", 1000), ("ddim", 20)):
        begun = time.perf_counter()
        model.sample(1_000, generator=seeded(), sampler=sampler, num_steps=steps)
        seconds[sampler] = time.perf_counter() - begun
    ratio = seconds["ancestral"] / seconds["ddim"]
    return f"{ratio:.0f}×", f"{seconds['ancestral']:.1f} s and {seconds['ddim']:.2f} s", ratio >= 20


def latent() -> tuple[str, str, bool]:
    """Covariance of samples against that of PCA's reconstructions, its worst entry in units of the greatest variance."""
    data = source("correlated_gaussian")
    autoencoder = generative.build("linear_autoencoder", shape=(6,), latent=2)
    x = data.sample(50_000, seeded())["x"]
    autoencoder.fit_closed_form(x)
    torch.manual_seed(0)
    model = LatentDiffusion.over(autoencoder, hidden=(128, 128))
    model.measure_scale(x)
    fitted(model, data, {**QUICK, "steps": 2_000})
    leading, variances = data.axes[:, :2], torch.tensor(data.variances[:2], dtype=torch.float64)
    drawn = model.sample(50_000, generator=seeded(1), sampler="ode", num_steps=25).double()
    worst = (torch.cov(drawn.T) - leading * variances @ leading.T).abs().max().item() / variances.max().item()
    along = ((drawn @ leading).var(0) / variances - 1).abs().max().item()
    std = model.encode(data.sample(50_000, seeded(2))["x"]).std().item()
    gap = max(worst, along)
    return f"latent std {std:.3f}", f"covariance {gap:.1%}", gap <= 0.05 and abs(std - 1) <= 0.05


DIGITS = {"levels": 17, "frames": True}


@lru_cache
def of_digits() -> Any:
    config = {"shape": (8, 8, 1), "levels": 17, "channels": (16, 32), "num_classes": 10, "null_share": 0.2}
    settings = {"steps": 1_500, "batch_size": 64, "learning_rate": 3e-3, "ema": 0.995, "keep": "last", "validation": 0.0}
    return trained("diffusion", source("digits", **DIGITS), settings, **config)


def digits_bits() -> tuple[str, str, bool]:
    test = source("digits", part="test", **DIGITS).everything
    nats = -of_digits().elbo(test["x"], test["label"], generator=seeded(1), num_times=128).mean().item()
    bits = nats / (64 * math.log(2))
    return f"{bits:.3f}", f"{bits - math.log2(17):+.3f} to uniform levels", bits < math.log2(17)


def digits_agreement() -> tuple[str, str, bool]:
    """Of guided samples, the share that a network trained on real digits takes for the class asked for."""
    judge = trained(
        "classifier", source("digits", **DIGITS), {"steps": 1_000, "keep": "last"},
        shape=(8, 8, 1), levels=17, num_classes=10, network="cnn", channels=(32, 64),
    )  # fmt: skip
    label = torch.arange(500) % 10
    share = judge.accuracy(of_digits().sample(500, label, generator=seeded(1), guidance=2.0), label)
    test = source("digits", part="test", **DIGITS).everything
    return f"{share:.1%}", f"{judge.accuracy(test['x'], test['label']):.1%} of real ones", share >= 0.95


NOISE = "Gaussian mixture, excess of ‖ε − ε̂‖² a dimension, over ε*"
ROWS: list[Row] = [
    Row("diffusion", NOISE, "0", "≤ 0.001", excess_risk),
    Row("diffusion", "N(0, I), variance at each of 1,000 ancestral steps, σ² = β", "1", "± 1 %", variance_of_each_step),
    Row("diffusion", "Gaussian mixture, log p by the probability-flow ODE", "log p", "± 0.02 nats", ode_log_prob),
    Row("diffusion", "Gaussian mixture, variational bound", "log p", "≤ 0.05 nats below, never above", elbo),
    *(sampled(sampler) for sampler in ("ddim", "ode")),
    Row("diffusion", "p(x | y), classifier-free guidance at w = 1, sliced W₂ to exact ε*", "1×", "≤ 1.2×", classifier_free),
    Row("diffusion", "p(x | y), classifier guidance at w = 1, sliced W₂ to exact ε*", "1×", "≤ 1.2×", classifier),
    Row("diffusion", "DDIM of 20 steps against 1,000 ancestral ones", "50×", "≥ 20×", speed),
    Row("latent_diffusion", "Gaussian, 2 principal components", "their covariance", "± 5 %, latent std ± 0.05", latent),
    Row("diffusion", "digits of 17 levels, test bits/dim given the class (bound)", "unknown", "< log₂ 17 = 4.09", digits_bits),
    Row("diffusion", "digits, guided by w = 2, share that is taken for its class", "100 %", "≥ 95 %", digits_agreement),
]
