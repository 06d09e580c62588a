"""What the pixel worlds ask of their parameters, refused with the name, the value and what was expected."""

from __future__ import annotations

from envs.finite.checks import check_count

LEAST_SIZE = 16  # pixels; below, shapes are thinner than a pixel


def check_size(size: int) -> None:
    """Raise ValueError unless `size` is a whole number of pixels, at least 16."""
    check_count("size", size, LEAST_SIZE)


def check_channels(channels: int) -> None:
    """Raise ValueError unless `channels` is 1 (grey) or 3 (red, green, blue)."""
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels!r}; expected 1 (grey) or 3 (red, green, blue)")
