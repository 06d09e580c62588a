"""The global random generators, which Stable-Baselines3 draws from, as an agent's own."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.utils import set_random_seed


class GlobalRandomness:
    """NumPy's, torch's and Python's global generators, seeded, and in force only within `with`; outside, others' go on."""

    def __init__(self, seed: int) -> None:
        self._inside: dict[str, Any] | None = None
        with self:
            set_random_seed(seed)

    def __enter__(self) -> None:
        self._outside = _generators()
        if self._inside is not None:
            _set_generators(self._inside)

    def __exit__(self, *_: object) -> None:
        self._inside = _generators()
        _set_generators(self._outside)

    def state_dict(self) -> dict:
        assert self._inside is not None
        return {name: self._inside[name] for name in ("numpy", "torch")}

    def load_state_dict(self, state: dict) -> None:
        assert self._inside is not None
        self._inside |= state


def _generators() -> dict[str, Any]:
    found = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}  # noqa: NPY002
    return found | ({"cuda": torch.cuda.get_rng_state_all()} if torch.cuda.is_initialized() else {})


def _set_generators(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"])
