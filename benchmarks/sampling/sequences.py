"""WaveNet and the Transformer: 1,024 steps with queues or keys and values kept, and by running over all steps so far."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import generative

STEPS = 1_024


def measured(name: str, config: dict[str, Any], n: int = 4) -> tuple[float, float]:
    """(cached seconds, uncached seconds) for n equal sequences."""
    torch.manual_seed(0)
    model: Any = generative.build(name, num_steps=STEPS, **config).eval()
    seconds, samples = [], []
    for cached in (True, False):
        begun = time.perf_counter()
        samples.append(model.sample(n, generator=torch.Generator().manual_seed(0), cached=cached))
        seconds.append(time.perf_counter() - begun)
    assert torch.equal(*samples), f"{name}: cached samples differ from uncached ones"
    return seconds[0], seconds[1]


CASES: dict[str, Callable[[], tuple[float, float]]] = {
    "wavenet": partial(measured, "wavenet", {"dilations": tuple(2**i for i in range(10)), "head": "mu_law"}),
    "transformer": partial(measured, "transformer", {"width": 64, "context": STEPS, "positions": "rotary"}),
}
