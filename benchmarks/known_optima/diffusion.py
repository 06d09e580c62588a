"""Diffusion against the exact noise of Gaussian mixtures, their densities and conditionals; latent diffusion against PCA."""

from __future__ import annotations

import math
import time
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

import generative
from benchmarks.known_optima import Row, judged_digits
from generative.diffusion import likelihood, samplers
from generative.diffusion.guidance import classifier_guided
from generative.diffusion.latent_diffusion import LatentDiffusion
from generative.diffusion.noised_classifier import NoisedClassifier
from generative.diffusion.samplers import NoisePredictor
from generative.diffusion.schedules import Schedule, diffused
from generative.sources import source

MIXTURE = source("gaussian_mixture")
SMALL = {"shape": (2,), "hidden": (64, 64, 64), "embedding": 32}
OF_MIXTURE = {"steps": 10_000, "batch_size": 1_536, "learning_rate": 1e-2, "ema": 0.999, "validation": 0.0, "keep": "last"}
SHORT = {**OF_MIXTURE, "steps": 2_000, "batch_size": 512, "learning_rate": 3e-3}
NUM_PAIRS = 4  # of samples, over which a distance is the root of the mean of W₂²


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
    """One model for all rows of the mixture: of p(x | label), and with the label forgotten for half of the data of p(x)."""
    return trained("diffusion", MIXTURE, OF_MIXTURE, **SMALL, num_classes=3, null_share=0.5)


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
        excess = (
            (model.noise_predictor(guidance=0)(x_t, t) - exact(MIXTURE, model.schedule_of_noise)(x_t, t)).square().mean().item()
        )
    return f"{excess:.5f}", f"{excess:.5f}", excess <= 1e-3


def variance_of_each_step() -> tuple[str, str, bool]:
    """The largest deviation from 1 of the variance of x_t on the way from T to 0: data N(0, I), ancestral sampler.

    Measured against the chain of the exact ε* = √(1−ᾱ) x_t under the same noise, whose variance is 1 at each step.
    """
    data = source("gaussian_mixture", weights=(1.0,), means=((0.0, 0.0),), stds=(1.0,))
    model = trained("diffusion", data, {**SHORT, "steps": 1_000}, **SMALL)
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
    model, x = of_mixture(), MIXTURE.sample(2_000, seeded(1))["x"]
    schedule = model.schedule_of_noise
    found = likelihood.ode_log_prob(model.noise_predictor(guidance=0), x, schedule, times=schedule.times(200)).mean().item()
    truth = MIXTURE.log_prob(x).mean().item()
    return f"{found:.4f} of {truth:.4f}", f"{found - truth:+.4f}", abs(found - truth) <= 0.02


def elbo() -> tuple[str, str, bool]:
    model, x = of_mixture(), MIXTURE.sample(10_000, seeded(1))["x"]
    chain = likelihood.Chain(model.schedule_of_noise)
    bound = likelihood.variational_bound(model.noise_predictor(guidance=0), x, chain, generator=seeded(2))
    gap = MIXTURE.log_prob(x) - bound
    error = gap.std().item() / math.sqrt(len(x))
    reached = gap.mean().item()
    return f"{reached:.4f} ± {error:.4f} below log p", f"{reached:.4f}", -3 * error < reached <= 0.05


def against_exact(
    noise_of: NoisePredictor, mixture: Any, bound: float, sampler: str, num_steps: int, n: int = 20_000
) -> tuple[str, str, bool]:
    """Sliced W₂ to the mixture of one sampler, with the learned ε and with the exact one, from the same noise.

    Beside them the floor: the distance of two samples of the mixture, as many of each.
    """
    model, squares = of_mixture(), torch.zeros(3, dtype=torch.float64)
    for pair in range(NUM_PAIRS):
        reference, another = (mixture.sample(n, seeded(seed + pair))["x"].float() for seed in (10, 20))
        x = torch.randn(n, 2, generator=seeded(30 + pair))
        made = [
            model.denoised(predictor, x, seeded(40 + pair), sampler, num_steps)
            for predictor in (noise_of, exact(mixture, model.schedule_of_noise))
        ]
        squares += torch.tensor([sliced_wasserstein(sample, reference) ** 2 for sample in (*made, another)]).double()
    learned, best, floor = (squares / NUM_PAIRS).sqrt().tolist()
    ratio = learned / best
    return f"{learned:.4f}; exact {best:.4f}, floor {floor:.4f}", f"{ratio:.2f}×", ratio <= bound


def sampled(sampler: str, num_steps: int, n: int) -> Row:
    def measure() -> tuple[str, str, bool]:
        return against_exact(of_mixture().noise_predictor(guidance=0), MIXTURE, 1.1, sampler, num_steps, n)

    task = f"Gaussian mixture, sliced W₂ of {n:,} samples by {sampler} in {num_steps:,} steps, to exact ε*"
    return Row("diffusion", task, "1×", "≤ 1.1×", measure)


def worst(found: list[tuple[str, str, bool]]) -> tuple[str, str, bool]:
    """Of the three classes."""
    return max(found, key=lambda one: float(one[1].rstrip("×")))


def classifier_free() -> tuple[str, str, bool]:
    labels = [torch.full((20_000,), label) for label in range(3)]
    return worst([
        against_exact(of_mixture().noise_predictor(label, 1.0), MIXTURE.component(int(label[0])), 1.2, "ode", 25)
        for label in labels
    ])  # fmt: skip


def classifier() -> tuple[str, str, bool]:
    """The unconditional model, guided by a classifier of noised inputs."""
    torch.manual_seed(0)
    judge = NoisedClassifier.guiding(of_mixture(), num_classes=3, hidden=(64, 64), embedding=32, matching=MATCHING)
    fitted(judge, MIXTURE, {**OF_MIXTURE, "steps": 12_000, "batch_size": 2_048})
    found, noise_of = [], of_mixture().noise_predictor(guidance=0)
    for label in range(3):
        log_prob = judge.log_prob_of(torch.full((20_000,), label))
        guided = classifier_guided(noise_of, log_prob, judge.schedule_of_noise, 1.0)
        found.append(against_exact(guided, MIXTURE.component(label), 1.2, "ode", 25))
    return worst(found)


def speed() -> tuple[str, str, bool]:
    model, seconds = generative.build("diffusion", **SMALL), {}
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
    fitted(model, data, SHORT)
    leading, variances = data.axes[:, :2], torch.tensor(data.variances[:2], dtype=torch.float64)
    drawn = model.sample(50_000, generator=seeded(1), sampler="ode", num_steps=25).double()
    worst = (torch.cov(drawn.T) - leading * variances @ leading.T).abs().max().item() / variances.max().item()
    along = ((drawn @ leading).var(0) / variances - 1).abs().max().item()
    std = model.encode(data.sample(50_000, seeded(2))["x"]).std().item()
    gap = max(worst, along)
    return f"latent std {std:.3f}", f"covariance {gap:.1%}", gap <= 0.05 and abs(std - 1) <= 0.05


@lru_cache
def of_digits() -> Any:
    """Given the class or not: the class is forgotten for half of the data."""
    config = {"channels": (32, 64), "num_classes": 10, "null_share": 0.5, "variance": "posterior", "first_step": 20}
    settings = {"steps": 2_000, "batch_size": 64, "learning_rate": 2e-3, "ema": 0.995, "validate_every": 200}
    model = trained("diffusion", judged_digits.TRAIN, settings, **judged_digits.FORM, **config)
    for name, scale in (("diffusion", 0.0), ("guided-diffusion", GUIDANCE)):
        judged_digits.show(name, partial(model.sample, 60, generator=seeded(3), guidance=scale), by_class=scale > 0)
    return model


def digits_bits() -> tuple[str, str, bool]:
    model, test = of_digits(), judged_digits.TEST.everything
    found = []
    for noise_of in (model.noise_predictor(guidance=0), model.noise_predictor(test["label"])):
        nats = -likelihood.variational_bound(noise_of, model.form.inputs(test["x"], torch.float32) * 2 - 1, model.chain,
            generator=seeded(1), num_times=128)  # fmt: skip
        found.append((nats.mean().item() / (64 * math.log(2)), nats.std().item() / math.sqrt(len(nats)) / (64 * math.log(2))))
    (bits, error), (given, _) = found
    beaten = judged_digits.BITS_BEATEN
    return f"{bits:.3f} ± {error:.3f} bits/dim, {given:.3f} given the class", f"{bits - beaten:.3f}", bits < beaten


def digits_agreement() -> tuple[str, str, bool]:
    model, noise = of_digits(), seeded(1)
    agree, spread = judged_digits.agreement(lambda label: model.sample(len(label), label, generator=noise, guidance=GUIDANCE))
    return f"{agree:.1%}, spread {spread:.2f}", f"{1 - agree:.1%}", agree >= 0.95


GUIDANCE = 2.0  # w of digits
MATCHING = 10.0  # weight of the classifier's slope beside its cross-entropy
GUIDED = "Gaussian mixture given its component, {} at w = 1, sliced W₂ to exact ε*"
NOISE = "Gaussian mixture, excess of ‖ε − ε̂‖² a dimension, over ε*"
ROWS: list[Row] = [
    Row("diffusion", NOISE, "0", "≤ 0.001", excess_risk),
    Row("diffusion", "N(0, I), variance at each of 1,000 ancestral steps, σ² = β", "1", "± 1 %", variance_of_each_step),
    Row("diffusion", "Gaussian mixture, log p by the probability-flow ODE", "log p", "± 0.02 nats", ode_log_prob),
    Row("diffusion", "Gaussian mixture, variational bound", "log p", "≤ 0.05 nats below, never above", elbo),
    *(sampled(*one) for one in (("ode", 25, 20_000), ("ddim", 20, 20_000), ("ancestral", 1_000, 5_000))),
    Row("diffusion", GUIDED.format("classifier-free guidance"), "1×", "≤ 1.2×", classifier_free),
    Row("diffusion", GUIDED.format("classifier guidance"), "1×", "≤ 1.2×", classifier),
    Row("diffusion", "DDIM of 20 steps against 1,000 ancestral ones", "50×", "≥ 20×", speed),
    Row("latent_diffusion", "Gaussian, 2 principal components", "their covariance", "± 5 %, latent std ± 0.05", latent),
    Row("diffusion", **judged_digits.BITS, target=f"< {judged_digits.BITS_BEATEN:.3f} (a bound)", measure=digits_bits),
    Row("diffusion", f"guided by w = {GUIDANCE:g}: {judged_digits.AGREEMENT}", "100 %, spread 1", "≥ 95 %", digits_agreement),
]
