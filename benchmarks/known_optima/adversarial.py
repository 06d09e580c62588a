"""Adversarial models against the two theorems on the best discriminator, a ring's modes, and the penalised critic's optimum."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch

import generative
from benchmarks.known_optima import Row, judged_digits
from generative.adversarial.modes import modes_covered
from generative.continuous import GaussianMixture, Ring

NUM_TEST = 1_000_000  # data and samples on which a figure is judged
BALANCED = (0.5, 0.999)  # Adam's betas where both players learn


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(model: Any, data: Any, **settings: Any) -> Any:
    for _ in generative.fit(model, data, seed=0, device="cpu", validation=0.0, keep="last", **settings):
        pass
    return model


def built(name: str, **config: Any) -> Any:
    torch.manual_seed(0)
    return generative.build(name, **config)


def on_a_line(name: str, **config: Any) -> Any:
    """A model whose generator is the identity for good: its samples are N(0, 1)."""
    model = built(name, shape=(1,), latent=1, hidden=(), activation="silu", generator_updates=0, **config)
    with torch.no_grad():
        for parameter, number in zip(model.generator.parameters(), (1.0, 0.0), strict=True):
            parameter.fill_(number)
    return model


def normal(mean: float, std: float = 1.0) -> GaussianMixture:
    return GaussianMixture((1.0,), ((mean,),), (std,))


@torch.no_grad()
def told(model: Any, data: Any) -> dict[str, float]:
    """What the judge's loss says of fresh data and samples."""
    metrics = model.loss(data.sample(NUM_TEST, seeded(1)), generator=seeded(2))[1]
    return {key: float(figure) for key, figure in metrics.items()}


def best_value(mean: float) -> float:
    """−ln 4 + 2 JSD(N(mean, 1), N(0, 1)) by quadrature: ∫ p ln D* + q ln(1 − D*)."""
    x = torch.linspace(-12, 12 + mean, 200_001, dtype=torch.float64)[:, None]
    p, q = normal(mean).log_prob(x), normal(0.0).log_prob(x)
    both = torch.logaddexp(p, q)
    return float(torch.trapezoid(p.exp() * (p - both) + q.exp() * (q - both), x[:, 0]))


def best_distance(mean: float, weight: float) -> float:
    """mean + (1/2λ) ∫ (F_p − F_q)²/ρ, ρ the density of u x + (1 − u) z: N(u m, u² + (1 − u)²), u uniform."""
    x = torch.linspace(-7, 7 + mean, 4_001, dtype=torch.float64)
    u = (torch.arange(1_000, dtype=torch.float64)[:, None] + 0.5) / 1_000
    variance = u**2 + (1 - u) ** 2
    density = (torch.exp(-((x - u * mean) ** 2) / (2 * variance)) / (2 * math.pi * variance).sqrt()).mean(0)
    gap = torch.special.ndtr(x) - torch.special.ndtr(x - mean)
    return mean + float(torch.trapezoid(gap**2 / density, x)) / (2 * weight)


def discriminator(mean: float) -> tuple[str, str, bool]:
    model = trained(on_a_line("gan", features=32), normal(mean), steps=1_000, batch_size=512, learning_rate=1e-2)
    gap = told(model, normal(mean))["value"] - best_value(mean)
    return f"{best_value(mean) + gap:.5f} nats", f"{gap:.5f}", abs(gap) <= 0.01


def equilibrium() -> tuple[str, str, bool]:
    """Both players learn; N(1, 2²) is what the generator, a line, can reach."""
    data = normal(1.0, 2.0)
    model = built("gan", shape=(1,), latent=1, hidden=(), features=32, activation="silu")
    trained(model, data, steps=2_000, batch_size=512, learning_rate=1e-2, betas=BALANCED)
    gap = told(model, data)["value"] + math.log(4)
    mean, std = model.generator.network[0].output.bias.item(), abs(model.generator.network[0].output.weight.item())
    return f"{gap - math.log(4):.5f} nats, N({mean:.2f}, {std:.2f}²)", f"{gap:.5f}", abs(gap) <= 0.01


def critic(weight: float) -> tuple[str, str, bool]:
    model = on_a_line("wgan", features=64, critic_updates=1, penalty_weight=weight)
    trained(model, normal(1.0), steps=2_000, batch_size=1_024, learning_rate=1e-2, ema=0.99)
    optimum = best_distance(1.0, weight)
    gap = told(model, normal(1.0))["distance"] / optimum - 1
    return f"{optimum * (1 + gap):.4f}", f"{gap:.2%}", abs(gap) <= 0.01


def ring(name: str, config: dict[str, Any], **settings: Any) -> tuple[str, str, bool]:
    """Modes with their share of the samples within 3 standard deviations, where the ring's own are 98.9 %."""
    data = Ring()
    model = trained(built(name, shape=(2,), **config), data, betas=BALANCED, ema=0.99, **settings)
    with torch.no_grad():
        num_modes, near = modes_covered(model.sample(10_000, generator=seeded(1)), data.mixture)
    return f"{num_modes} of 8, {near:.1%} near", str(8 - num_modes), num_modes == 8


def digits(name: str, config: dict[str, Any], **settings: Any) -> tuple[str, str, bool]:
    model = built(name, **judged_digits.FORM, num_classes=10, **config)
    trained(model, judged_digits.TRAIN, ema=0.995, **settings)

    def sample(label: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model.sample(len(label), label, generator=seeded(1))

    agree, spread = judged_digits.agreement(sample)
    judged_digits.show(name, sample, by_class=True)
    return f"{agree:.1%}, spread {spread:.2f}", f"{1 - agree:.1%}", agree >= 0.9 and spread >= 0.8


GAN: dict[str, Any] = {"steps": 2_500, "batch_size": 64, "learning_rate": 5e-4, "betas": (0.5, 0.99)}
WGAN: dict[str, Any] = {"steps": 2_500, "batch_size": 64, "learning_rate": 1e-3, "betas": (0.0, 0.9)}
RING = {"latent": 2, "hidden": (64, 64)}
ROWS = [
    *(
        Row(
            "gan", f"best discriminator, N(0, 1) against N({mean:g}, 1)", f"{optimum} nats", "± 0.01",
            partial(discriminator, mean),
        )
        for mean, optimum in ((1.0, -1.16345), (2.0, -0.71263), (0.0, -1.38629))
    ),
    Row("gan", "equilibrium: generator of N(1, 2²)", "−ln 4 = −1.38629 nats", "± 0.01", equilibrium),
    *(
        Row("wgan", f"critic, N(0, 1) against N(1, 1), λ = {weight:g}", str(optimum), "within 1 %", partial(critic, weight))
        for weight, optimum in ((10.0, 1.0545), (100.0, 1.0055))
    ),
    Row(
        "unrolled_gan", "ring of 8", "8 modes", "8 of 8",
        partial(ring, "unrolled_gan", RING, steps=400, batch_size=128, learning_rate=1e-2),
    ),
    *(
        Row(
            name, judged_digits.AGREEMENT, "100 %, spread 1", "≥ 90 %, ≥ 0.8",
            partial(digits, name, {"hidden": (256,), "features": 128, **config}, **settings),
        )
        for name, config, settings in (("gan", {"r1": 1.0}, GAN), ("wgan", {"critic_updates": 3}, WGAN))
    ),
]  # fmt: skip
