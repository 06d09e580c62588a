"""Observations of an environment → data as `generative` records them: frames uint8 [n, H, W, C] or vectors float32 [n, D].

Frames come grey [H, W], in colour [H, W, C], stacked as Gymnasium does ([K, H, W] or [K, H, W, C]), and leave with all their
channels last, the oldest frame first. Every conversion that loses something has to be asked for: `grey`, `size`.
"""

from __future__ import annotations

import math

import gymnasium as gym
import torch
from torch import Tensor
from torch.nn import functional as F

from mpagents.deep.observations import has_channels_last

LUMA = (0.299, 0.587, 0.114)  # of red, green, blue (ITU-R BT.601), as Pillow has them
MOST_CHANNELS = 4  # of frames whose channels are last, unless the wanted shape tells it


def as_recorded(obs: Tensor, shape: tuple[int, ...], size: tuple[int, int] | None = None, grey: bool = False) -> Tensor:
    """obs [n, …] as x [n, *shape], shape (H, W, C) or (D,). Raises ValueError, with the fix, where it isn't that.

    >>> as_recorded(torch.zeros(2, 4, 8, 8, dtype=torch.uint8), (8, 8, 4)).shape
    torch.Size([2, 8, 8, 4])
    """
    x = vectors(obs) if len(shape) == 1 else frames(obs, shape, size, grey)
    if tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(f"observation is {list(obs.shape[1:])}; the encoder takes {list(shape)}: {_fix(x, shape)}")
    return x


def vectors(obs: Tensor) -> Tensor:
    """float32 [n, D]; of frames the grey levels in [0, 1], other bytes as they are (a console's memory, small maps)."""
    flat = (obs.flatten(1) if obs.ndim > 1 else obs[:, None]).float()
    return flat / 255 if is_picture(tuple(obs.shape[1:]), obs.dtype == torch.uint8) else flat


def is_picture(shape: tuple[int, ...], of_bytes: bool) -> bool:
    """Frames of 8 × 8 pixels at least: smaller ones (MiniGrid's views of 7 × 7 cells) are codes."""
    if not of_bytes or len(shape) not in (2, 3, 4):
        return False
    return min(shape[-3:-1] if len(shape) > 2 and has_channels_last(shape) else shape[-2:]) >= 8


def frames(
    obs: Tensor, shape: tuple[int, ...] | None = None, size: tuple[int, int] | None = None, grey: bool = False
) -> Tensor:
    """uint8 [n, H, W, C], as many channels as there are; `shape` tells the channels' place where that is in doubt.

    Raises ValueError for other than uint8 frames.
    """
    if obs.dtype != torch.uint8 or obs.ndim not in (3, 4, 5):
        raise ValueError(
            f"observation is {str(obs.dtype).removeprefix('torch.')} {list(obs.shape[1:])}; expected uint8 frames [H, W], "
            "[H, W, C], or stacked ones [K, H, W]: use an encoder of vectors, or an environment that shows frames"
        )
    x = _channels_last(obs, shape)
    if grey and x.shape[3] % 3 == 0 and not _of_grey(obs, x):
        colours = x.unflatten(3, (-1, 3)).float()
        x = (colours @ colours.new_tensor(LUMA)).round().to(torch.uint8)
    if size is not None and tuple(x.shape[1:3]) != tuple(size):
        resized = F.interpolate(x.movedim(-1, 1).float(), tuple(size), mode="bilinear", antialias=True, align_corners=False)
        x = resized.round().clamp(0, 255).to(torch.uint8).movedim(1, -1)
    return x


def entry(space: gym.Space, key: str | None) -> gym.Space:
    """The part of an observation space that is encoded. Raises ValueError where there is none."""
    if isinstance(space, gym.spaces.Dict):
        if key not in space.spaces:
            known = ", ".join(space.spaces)
            raise ValueError(f"key is {key!r}, and the observation has the entries {known}; set `key` to the one to encode")
        space = space.spaces[key]
    elif key is not None:
        raise ValueError(f"key is {key!r}, and the observation is {space}; expected a Dict, or no key")
    if not isinstance(space, gym.spaces.Box):
        raise ValueError(f"observation space is {space}; an encoder takes a Box of frames or of numbers")
    return space


def _of_grey(obs: Tensor, x: Tensor) -> bool:
    """Whether the channels are frames [K, H, W], each grey already."""
    return obs.ndim == 4 and tuple(obs.shape[2:]) == tuple(x.shape[1:3])


def _channels_last(obs: Tensor, shape: tuple[int, ...] | None) -> Tensor:
    if obs.ndim == 3:
        return obs.unsqueeze(-1)
    if obs.ndim == 5:  # [n, K, H, W, C]: the channels of the oldest frame first
        return obs.movedim(1, 3).flatten(3)
    seen = tuple(obs.shape[1:])
    if shape is not None and seen in (tuple(shape), (shape[2], *shape[:2])):
        return obs if seen == tuple(shape) else obs.movedim(1, -1)
    return obs if seen[2] <= MOST_CHANNELS or seen[0] > seen[2] else obs.movedim(1, -1)


def _fix(x: Tensor, shape: tuple[int, ...]) -> str:
    fixes = []
    if len(shape) == 3 and tuple(x.shape[1:3]) != tuple(shape[:2]):
        fixes.append(f"set size: [{shape[0]}, {shape[1]}]")
    if len(shape) == 3 and x.shape[3] == 3 * shape[2]:
        fixes.append("set grey: true")
    if len(shape) == 3 and not fixes:
        fixes.append(f"stack or choose frames so that they have {shape[2]} channels, as it was fitted on")
    if len(shape) == 1:
        fixes.append(f"these are {math.prod(x.shape[1:])} numbers; fit an encoder on this environment")
    return " and ".join(fixes)
