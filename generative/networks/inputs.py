"""Data as recorded, checked, and in the form that networks compute with."""

from __future__ import annotations

import torch
from torch import Tensor


def vectors(x: Tensor, in_features: int, dtype: torch.dtype) -> Tensor:
    """x [B, D] as `dtype`. Raises ValueError for another shape."""
    if x.ndim != 2 or x.shape[1] != in_features:
        raise ValueError(
            f"x is {list(x.shape)}; expected vectors [B, {in_features}]: flatten frames first, or set in_features to their size"
        )
    return x.to(dtype)


def images(x: Tensor, shape: tuple[int, int, int], levels: int, dtype: torch.dtype) -> Tensor:
    """Frames [B, H, W, C] of levels 0…levels − 1 as floats in [0, 1], channels first [B, C, H, W].

    `shape` is (H, W, C). Raises ValueError for another shape, for floats and for levels out of range.

    >>> images(torch.full((1, 2, 2, 1), 255, dtype=torch.uint8), (2, 2, 1), 256, torch.float32).tolist()
    [[[[1.0, 1.0], [1.0, 1.0]]]]
    """
    if x.ndim != 4 or tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(f"x is {list(x.shape)}; expected frames [B, {', '.join(map(str, shape))}]: height, width, channels")
    if x.dtype != torch.uint8:
        raise ValueError(f"x is {x.dtype}; expected frames as recorded, uint8 of the levels 0 to {levels - 1}")
    if levels < 256 and x.numel() and not torch.compiler.is_compiling() and int(x.max()) >= levels:  # a look breaks a graph
        raise ValueError(f"x reaches level {int(x.max())}; expected at most {levels - 1}: set levels to what was recorded")
    return x.movedim(-1, 1).to(dtype) / (levels - 1)


def require_shape(shape: tuple[int, int, int], levels: int, num_halvings: int) -> None:
    """Of a configuration: frames (H, W, C) that can be halved so many times. Raises ValueError."""
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape is {shape}; expected (height, width, channels), at least 1 each")
    if min(shape[:2]) < 2**num_halvings:
        raise ValueError(
            f"frames of {shape[0]} × {shape[1]} can't be halved {num_halvings} times; expected at least "
            f"{2**num_halvings} pixels each way, or fewer levels of channels"
        )
    if not 2 <= levels <= 256:
        raise ValueError(f"levels is {levels}; expected 2 to 256, as a frame's bytes hold")
