"""NADE at 1,024 dimensions: its recursion against computing every conditional anew for every value."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

import generative


def nade(n: int = 4, dimensions: int = 1024, hidden: int = 64) -> tuple[float, float]:
    """(cached, uncached) seconds for n samples. Raises RuntimeError where the two aren't equal."""
    torch.manual_seed(0)
    model = generative.build("nade", dimensions=dimensions, hidden=hidden).eval()
    seconds, samples = [], []
    for cached in (True, False):
        generator = torch.Generator().manual_seed(1)
        begun = time.perf_counter()
        samples.append(model.sample(n, generator=generator, cached=cached))  # type: ignore[operator]
        seconds.append(time.perf_counter() - begun)
    if not torch.equal(*samples):
        raise RuntimeError("cached and uncached samples differ")
    return seconds[0], seconds[1]


CASES: dict[str, Callable[[], tuple[float, float]]] = {"nade, 1,024 dimensions": nade}
