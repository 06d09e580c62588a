"""What a replay buffer takes of memory, told before it is filled; which observations are stacks of frames."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym

from mpagents.deep.observations import ObservationCodec, has_channels_last, is_image


def stack_size(space: gym.Space) -> int:
    """How many frames an observation [K, H, W] or [K, H, W, C] stacks, as frame stacking and Atari's vector environment do;
    else 1. Three channels [3, H, W] are taken for colours.
    """
    shape = space.shape or ()
    if not is_image(space) or len(shape) == 2:
        return 1
    stacked = len(shape) == 4 or (not has_channels_last(shape) and shape[0] != 3)
    return shape[0] if stacked else 1


def bytes_per_slot(codec: ObservationCodec, frame_stack: bool, num_actions: int) -> int:
    """Memory of one slot: observation, action (8), reward (4), two flags, and a mask [num_actions]."""
    stored = codec.empty(1)
    observation = sum(stored[name].nbytes // (stack_size(leaf) if frame_stack else 1) for name, leaf in codec.leaves.items())
    return observation + 14 + num_actions


def check_room(size: int, num_envs: int, lead: int, n_step: int) -> None:
    """Raise ValueError where the rings of `size` slots in all can't hold one n-step target; `lead`: of stacked frames."""
    least = num_envs * (lead + n_step + 2)
    if size < least:
        raise ValueError(
            f"replay_size {size} is too small for {num_envs} environments and n_step {n_step}; expected at least {least}"
        )


def available_memory() -> int | None:
    """Bytes that can be had without swapping, where the system tells."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)


def check_memory(size: int, slot_bytes: int, available: int | None) -> None:
    """Raise ValueError where `size` slots can't fit."""
    needed = size * slot_bytes
    if available is not None and needed > available:
        fits = available // slot_bytes
        raise ValueError(
            f"replay_size {size:,} needs {needed / 2**30:.1f} GiB ({slot_bytes:,} bytes each) and "
            f"{available / 2**30:.1f} GiB are available; expected at most about {fits:,}"
        )
