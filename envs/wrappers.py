"""Wrappers for a study's `wrappers:`, which are called with the environment alone."""

from __future__ import annotations

import gymnasium
import numpy as np


def unit_box(env: gymnasium.Env) -> gymnasium.Env:
    """Observations within finite bounds scaled to ± 1: MountainCar's speed is seen in ± 0.07 otherwise, next to nothing.

    Raises ValueError where a bound is infinite.
    """
    space = env.observation_space
    if not isinstance(space, gymnasium.spaces.Box) or not (np.isfinite(space.low) & np.isfinite(space.high)).all():
        raise ValueError(f"observation space is {space}; expected a Box with finite bounds")
    return gymnasium.wrappers.RescaleObservation(env, np.float32(-1), np.float32(1))
