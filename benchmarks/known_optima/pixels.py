"""PixelRNN, PixelCNN and gated PixelCNN against the entropies of their frames, and on digits."""

from __future__ import annotations

import math
from functools import partial

import torch

import generative
from benchmarks.known_optima import Row
from generative.sources import Digits, binary_states
from generative.synthetic import ColourCopies, DiagonalCopies, Ising

MODELS = ("pixel_rnn", "pixel_cnn", "gated_pixel_cnn")
CHOW_LIU = 20.55  # test nats of the best tree over binarised digits
DIAGONAL_MASKS = {"kernel": 3, "first_kernel": 3, "hidden": 24, "num_layers": 3}


def trained(name: str, source: object, config: dict, **settings: object) -> generative.GenerativeModel:
    """The model after a training from scratch."""
    torch.manual_seed(0)
    model = generative.build(name, **config)
    for _ in generative.fit(model, source, **settings):
        pass
    return model


@torch.no_grad()
def mean_log_prob(model: generative.GenerativeModel, x: torch.Tensor, cond: torch.Tensor | None = None) -> torch.Tensor:
    """log p [N] of frames, float64, a thousand at a time."""
    labels = [None] * len(x) if cond is None else cond.split(1024)
    return torch.cat([model.log_prob(part, label) for part, label in zip(x.split(1024), labels)]).double()


def ising(name: str, config: dict, **settings: object) -> tuple[str, str, bool]:
    source = Ising(frames=True)
    model = trained(name, source, {"height": 4, "width": 4, **config}, validation=0, keep="last", **settings)
    log_q = mean_log_prob(model, binary_states(16).view(-1, 4, 4, 1))
    kl = float((source.table.exp() * (source.table - log_q)).sum())
    total = float(log_q.exp().sum())
    return f"KL {kl:.4f} nats, Σp = {total:.6f}", f"{kl:.4f}", kl <= 0.02 and abs(total - 1) <= 1e-5


def colours(name: str, config: dict, **settings: object) -> tuple[str, str, bool]:
    source = ColourCopies()
    shape = {"height": source.height, "width": source.width, "channels": 3}
    model = trained(name, source, {**shape, **config}, validation=0, keep="last", **settings)
    test = source.sample(8192, torch.Generator().manual_seed(1))["x"]
    excess = float((source.log_prob(test) - mean_log_prob(model, test)).mean()) / source.entropy
    bits = source.bits_per_dimension * (1 + excess)
    return f"{bits:.4f} bits/dim", f"{bits - source.bits_per_dimension:.4f}", bits <= 0.655


def diagonal(name: str, low: float, high: float, **settings: object) -> tuple[str, str, bool]:
    """Nats a copy: the entropy and what the model loses to the truth on the same frames."""
    source, generator = DiagonalCopies(), torch.Generator().manual_seed(1)
    model = trained(name, source, DIAGONAL_MASKS, validation=0, keep="last", **settings)
    excess = []
    for _ in range(8):
        batch = source.sample(2048, generator)
        num_copies = int(batch["mask"][0].sum())
        fair_nats = (batch["x"][0].numel() - num_copies) * math.log(2)
        with torch.no_grad():
            nats = model.loss(batch, generator=generator)[0]
        excess.append((nats + source.log_prob(batch["x"]).mean() + fair_nats) / num_copies)
    nats_a_copy = source.pixel_entropy + float(torch.stack(excess).mean())
    return f"{nats_a_copy:.4f} nats a copy", f"{nats_a_copy - source.pixel_entropy:.4f}", low <= nats_a_copy <= high


def digits(name: str, config: dict, **settings: object) -> tuple[str, str, bool]:
    model = trained(name, Digits(frames=True), config, **settings)
    test = Digits("test", frames=True).everything
    label = test["label"] if model.conditioned_on else None
    nats = -float(mean_log_prob(model, test["x"], label).mean())
    return f"{nats:.2f} nats", f"{nats - CHOW_LIU:.2f}", nats < CHOW_LIU


ISING = {"steps": 1000, "batch_size": 128, "learning_rate": 5e-3, "ema": 0.99}
COLOURS = {"steps": 400, "batch_size": 64, "learning_rate": 5e-3, "ema": 0.98}
DIAGONAL = {"steps": 1000, "batch_size": 64, "learning_rate": 5e-3, "ema": 0.98}
DIGITS = {"steps": 2000, "batch_size": 64, "learning_rate": 3e-3, "ema": 0.99, "validate_every": 100, "patience": 8}
SMALL = {"hidden": 16, "num_layers": 2}
REGULAR = {"hidden": 24, "num_layers": 3, "input_dropout": 0.1}

ROWS = [
    *(
        Row(name, "Ising 4 × 4, β = 0.4", "8.66343 nats (KL 0)", "KL ≤ 0.02, Σp = 1", partial(ising, name, SMALL, **ISING))
        for name in MODELS
    ),
    *(Row(name, "colour copies", "0.6460 bits/dim", "≤ 0.655", partial(colours, name, SMALL, **COLOURS)) for name in MODELS),
    Row(
        "gated_pixel_cnn", "diagonal copies, 3 × 3 masks", "0.3251 nats a copy", "≤ 0.33",
        partial(diagonal, "gated_pixel_cnn", 0.32, 0.33, **DIAGONAL),
    ),
    Row(
        "pixel_cnn", "diagonal copies, 3 × 3 masks: its blind spot", "ln 2 = 0.6931 nats a copy", "≥ 0.69",
        partial(diagonal, "pixel_cnn", 0.69, 0.71, **DIAGONAL),
    ),
    *(
        Row(name, "digits, binarised, test", "unknown (Chow–Liu 20.55)", "< 20.55", partial(digits, name, REGULAR, **DIGITS))
        for name in MODELS
    ),
]  # fmt: skip
