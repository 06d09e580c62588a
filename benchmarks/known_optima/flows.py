"""NICE, RealNVP and Glow against densities known in closed form, images without structure, and on digits."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

import generative
from benchmarks.known_optima import Row, judged_digits
from generative import capabilities
from generative.continuous import Banana, Ring
from generative.sources import UniformImages

NUM_JUDGED = 200_000  # vectors: the Monte Carlo error of a KL is then below 0.001


def trained(name: str, source: Any, config: dict[str, Any], settings: dict[str, Any]) -> generative.GenerativeModel:
    """A model built under seed 0 and fitted from scratch."""
    torch.manual_seed(0)
    model = generative.build(name, **config)
    for _ in generative.fit(model, source, device="cpu", **settings):
        pass
    return model


def kl(name: str, source: Any, bound: float, config: dict[str, Any], settings: dict[str, Any]) -> tuple[str, str, bool]:
    """E_p[log p − log q] by the source's own log p, on a fresh sample."""
    model = trained(name, source, {"shape": (2,), **config}, {"validation": 0, "keep": "last", **settings})
    x = source.sample(NUM_JUDGED, torch.Generator().manual_seed(1))["x"]
    with torch.no_grad():
        excess = source.log_prob(x) - torch.cat([model.log_prob(part) for part in x.split(20_000)])
    found, error = excess.mean().item(), excess.std().item() / math.sqrt(NUM_JUDGED)
    return f"KL {found:.4f} ± {error:.4f} nats", f"{found:.4f}", -4 * error < found <= bound


def bits(model: generative.GenerativeModel, x: Tensor, rounds: int, label: Tensor | None = None) -> tuple[float, float]:
    """(−E log p, its standard error) of frames in bits a dimension, each under `rounds` draws of noise."""
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        if "log_prob" in capabilities(model):  # an autoregressive model's: exact, without noise
            nats = -model.log_prob(x, label)[None].double()  # type: ignore[operator]
        else:
            nats = torch.stack([-model.elbo(x, label, generator=noise) for _ in range(rounds)]).double()  # type: ignore[operator]
    scale = math.log(2) * x[0].numel()
    return nats.mean().item() / scale, nats.mean(0).std().item() / math.sqrt(len(x)) / scale


def uniform(name: str, config: dict[str, Any], settings: dict[str, Any]) -> tuple[str, str, bool]:
    source = UniformImages()
    shape = {"shape": (source.height, source.width, source.channels), "alpha": 0.01}
    model = trained(name, source, {**shape, **config}, {"validation": 0, "keep": "last", **settings})
    found, error = bits(model, source.sample(20_000, torch.Generator().manual_seed(1))["x"], 1)
    return f"{found:.4f} ± {error:.4f} bits/dim", f"{found - 8:.4f}", 8 - 4 * error <= found <= 8.02


def digits(name: str, config: dict[str, Any], settings: dict[str, Any]) -> tuple[str, str, bool]:
    model = trained(name, judged_digits.TRAIN, {"levels": 17, **config}, settings)
    found, error = bits(model, judged_digits.TEST.everything["x"], 50)
    judged_digits.show(name, partial(model.sample, 60, generator=torch.Generator().manual_seed(3)), by_class=False)
    beaten = judged_digits.BITS_BEATEN
    return f"{found:.3f} ± {error:.3f} bits/dim", f"{found - beaten:.3f}", found < beaten


def digits_of_a_class(name: str, config: dict[str, Any], settings: dict[str, Any]) -> tuple[str, str, bool]:
    """Samples at temperature TEMPERATURE."""
    model = trained(name, judged_digits.TRAIN, {"levels": 17, **config, "num_classes": 10}, settings)
    test = judged_digits.TEST.everything
    found, _ = bits(model, test["x"], 50, test["label"])

    def sample(label: Tensor) -> Tensor:
        return model.sample(len(label), label, generator=torch.Generator().manual_seed(3), temperature=TEMPERATURE)

    agree, spread = judged_digits.agreement(sample)
    judged_digits.show(f"{name}-by-class", sample, by_class=True)
    reached = f"{agree:.1%}, spread {spread:.2f}; test {found:.3f} bits/dim given the class"
    return reached, f"{1 - agree:.1%}", agree >= 0.9 and spread >= 0.8


BANANA = {"steps": 1500, "batch_size": 256, "learning_rate": 3e-3, "ema": 0.99}
RING = {"steps": 2000, "batch_size": 256, "learning_rate": 5e-3, "ema": 0.995, "max_grad_norm": 10.0}
SHORT = {"steps": 200, "batch_size": 128, "learning_rate": 3e-3, "ema": 0.95}
UNIFORM = {"nice": {**SHORT, "steps": 600, "learning_rate": 1e-2}, "real_nvp": SHORT, "glow": SHORT}  # NICE starts unscaled
DIGITS = {"steps": 1000, "batch_size": 32, "learning_rate": 2e-3, "ema": 0.99, "max_grad_norm": 50.0, "validate_every": 100}
DEEP = {"num_couplings": 12}
TEMPERATURE = 0.9  # of samples by class
SMALL: dict[str, dict[str, Any]] = {
    "nice": {"hidden_sizes": (32, 32)},
    "real_nvp": {"num_couplings": 4, "hidden_sizes": (32, 32)},
    "glow": {"num_steps": 4, "hidden_sizes": (32, 32)},
}
SMALL_FRAMES: dict[str, dict[str, Any]] = {
    "nice": {"hidden_sizes": (32, 32)},
    "real_nvp": {"hidden": 8, "num_blocks": 1, "num_scales": 2},
    "glow": {"hidden": 8, "num_steps": 4},
}
FRAMES = {"shape": (8, 8, 1), "num_scales": 2, "hidden": 32}
OF_DIGITS: dict[str, dict[str, Any]] = {  # the flows, and an autoregressive model beside them
    "nice": {"shape": (8, 8, 1), "hidden_sizes": (256, 256)},
    "real_nvp": {**FRAMES, "num_blocks": 1},
    "glow": {**FRAMES, "num_steps": 6},
    "gated_pixel_cnn": {"head": "logistic_mixture", "hidden": 24, "num_layers": 3, "input_dropout": 0.1},
}

ROWS = [
    *(
        Row(name, "banana", "KL 0", "KL ≤ 0.002", partial(kl, name, Banana(), 0.002, config, BANANA))
        for name, config in SMALL.items()
    ),
    Row("real_nvp", "ring of 8, σ 0.5", "KL 0", "KL ≤ 0.02", partial(kl, "real_nvp", Ring(), 0.02, DEEP, RING)),
    Row(
        "real_nvp", "ring of 8, σ 0.25: a flow can't tear a ring", "KL 0", "reported",
        partial(kl, "real_nvp", Ring(std=0.25), math.inf, DEEP, RING),
    ),
    *(
        Row(name, "uniform images 4 × 4", "8 bits/dim", "8.00–8.02", partial(uniform, name, config, UNIFORM[name]))
        for name, config in SMALL_FRAMES.items()
    ),
    *(
        Row(
            name, judged_digits.BITS["task"], judged_digits.BITS["optimum"], f"< {judged_digits.BITS_BEATEN:.3f}",
            partial(digits, name, config, DIGITS),
        )
        for name, config in OF_DIGITS.items()
    ),
    Row(
        "glow", f"temperature {TEMPERATURE}: {judged_digits.AGREEMENT}", "100 %, spread 1", "≥ 90 %, ≥ 0.8",
        partial(digits_of_a_class, "glow", OF_DIGITS["glow"], DIGITS),
    ),
]  # fmt: skip
