"""Random numbers: every generator of a trial is derived from the trial's seed and the generator's purpose.

Equal purposes give equal streams, different ones independent streams (NumPy's `SeedSequence`), whatever the order in which
they are asked for; so nothing in a trial can shift the numbers that something else draws.
"""

from __future__ import annotations

import zlib

import numpy as np


def derive(seed: int, *purpose: str | int) -> int:
    """A seed in [0, 2³¹) for one purpose, e.g. `derive(3, "evaluation", 5_000)`."""
    keys = [part if isinstance(part, int) else zlib.crc32(part.encode()) for part in purpose]
    return int(np.random.SeedSequence([seed, *keys]).generate_state(1, np.uint32)[0] >> 1)


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A NumPy generator (PCG64) for one purpose."""
    keys = [part if isinstance(part, int) else zlib.crc32(part.encode()) for part in purpose]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *keys])))


def generator_state(rng: np.random.Generator) -> dict:
    """The generator's state as plain numbers and strings, for a checkpoint."""
    return dict(rng.bit_generator.state)


def restore_generator(rng: np.random.Generator, state: dict) -> None:
    """Put a generator back to a state taken by `generator_state`."""
    rng.bit_generator.state = state
