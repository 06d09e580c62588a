"""Pixel models: features of one pixel at a time against a pass over the frames for every pixel, from 8 × 8 upward."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

import generative


def pixels(name: str, side: int, n: int = 2) -> tuple[float, float]:
    """(cached, uncached) seconds for n frames of side × side pixels. Raises RuntimeError where the two aren't equal."""
    torch.manual_seed(0)
    model = generative.build(name, height=side, width=side).eval()
    model.sample(n, generator=torch.Generator())  # type: ignore[operator]  # libraries choose their kernels
    seconds, samples = [], []
    for cached in (True, False):
        generator = torch.Generator().manual_seed(1)
        begun = time.perf_counter()
        samples.append(model.sample(n, generator=generator, cached=cached))  # type: ignore[operator]
        seconds.append(time.perf_counter() - begun)
    if not torch.equal(*samples):
        raise RuntimeError(f"{name}: cached and uncached samples differ")
    return seconds[0], seconds[1]


CASES: dict[str, Callable[[], tuple[float, float]]] = {
    f"{name}, {side} × {side} pixels": partial(pixels, name, side)
    for name in ("pixel_rnn", "pixel_cnn", "gated_pixel_cnn")
    for side in (8, 16, 32)
}
