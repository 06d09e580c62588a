"""Digits that models draw: judged by a CNN trained on the real ones, and shown on docs/flows-gans-diffusion.md."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import generative
from generative.pictures import grid
from generative.sources import Digits

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"
FORM = {"shape": (8, 8, 1), "levels": 17}
TRAIN, TEST = Digits(levels=17, frames=True), Digits("test", levels=17, frames=True)
PER_CLASS = 200  # samples judged
NUM_ROWS = 6  # of a picture, each of the digits 0 … 9


@lru_cache
def judge() -> Any:
    torch.manual_seed(0)
    model = generative.build("classifier", **FORM, num_classes=10, network="cnn", channels=(32, 64))
    for _ in generative.fit(model, TRAIN, steps=1_000, batch_size=64, seed=0, device="cpu"):
        pass
    return model


def show(name: str, sample: Callable[[Tensor | None], Tensor], *, by_class: bool) -> None:
    """Write docs/pictures/digits-<name>.png of sample(labels or None); a column for each digit where labels are known."""
    label = torch.arange(10).repeat(NUM_ROWS)
    picture = grid(sample(label if by_class else None), 10, like=TRAIN.everything["x"])
    PICTURES.mkdir(exist_ok=True)
    Image.fromarray(picture.squeeze()).save(PICTURES / f"digits-{name}.png", optimize=True)


def agreement(sample: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """(share of samples that the judge gives their label, their spread: a pixel's deviation within a label beside the real)."""
    label = torch.arange(10).repeat_interleave(PER_CLASS)
    x, real, model = sample(label), TRAIN.everything, judge()
    with torch.no_grad():
        agree = float((model.predict(x) == label).float().mean())
    spread = sum(deviation(x[label == k]) / deviation(real["x"][real["label"] == k]) for k in range(10)) / 10
    return agree, spread


def deviation(frames: Tensor) -> float:
    """Standard deviation of a pixel, in levels, mean over pixels."""
    return float(frames.float().std(0).mean())


def independent_bits() -> float:
    """Test bits a dimension of the best independent pixels over the 17 levels, a count of 1 added to each."""
    train, test = (part.everything["x"].flatten(1).long() for part in (TRAIN, TEST))
    counts = torch.stack([(train == level).sum(0) for level in range(17)]).double() + 1  # [17, D]
    return -(counts / counts.sum(0)).log2().gather(0, test).mean().item()


BITS_BEATEN = independent_bits()
BITS = {"task": "digits, 17 levels, test", "optimum": f"unknown (independent pixels {BITS_BEATEN:.3f})"}
AGREEMENT = "samples of digits by label, judged by a CNN; spread of a label's pixels beside the real"
