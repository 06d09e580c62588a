"""Batches of sequences as world models take them, checked: what was seen, and what led there."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from generative.autoencoders.data_form import DataForm
from generative.model import Batch


class Steps(NamedTuple):
    """Sequences of T steps; without marks every sequence begins an episode and is whole."""

    x: Tensor  # inner data [B, T, D] or [B, T, C, H, W], zero where padded
    action: Tensor  # [B, T, A], the one that led to x_t: zero at an episode's start and where padded
    first: Tensor  # bool [B, T]
    mask: Tensor  # bool [B, T]


def steps_of(batch: Batch, form: DataForm, action_size: int, dtype: torch.dtype) -> Steps:
    """Raises ValueError for shapes that don't fit, by name."""
    x = batch["x"]
    if x.ndim != 2 + len(form.shape) or x.shape[2:] != torch.Size(form.shape) or not x.shape[1]:
        shape = ", ".join(map(str, form.shape))
        raise ValueError(f"x is {list(x.shape)}; expected sequences [B, T, {shape}] with T ≥ 1, or set shape to a step's")
    action = batch.get("action")
    if action is None or action.shape != (*x.shape[:2], action_size):
        got = "missing" if action is None else list(action.shape)
        raise ValueError(f"action is {got}; expected [B, T, {action_size}], the one that led to each x: set action_size")
    begins = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
    begins[:, 0] = True
    first = marks(batch.get("first"), begins, "first")
    mask = marks(batch.get("mask"), torch.ones_like(begins), "mask")
    known = x.masked_fill(~mask.view(*mask.shape, *(1,) * len(form.shape)), 0)
    inner = form.inputs(known.flatten(0, 1), dtype).unflatten(0, mask.shape)
    return Steps(inner, led(action.to(dtype), first | ~mask), first, mask)


def led(action: Tensor, first: Tensor) -> Tensor:
    """Actions [..., A] that led somewhere: none did where an episode begins `first` [...]."""
    return action.masked_fill(first[..., None], 0)


def marks(given: Tensor | None, default: Tensor, name: str) -> Tensor:
    """Marks bool [B, T]. Raises ValueError for others."""
    if given is None:
        return default
    if given.shape != default.shape or given.dtype != torch.bool:
        raise ValueError(f"{name} is {given.dtype} {list(given.shape)}; expected bool {list(default.shape)}, one for a step")
    return given


def outcomes(batch: Batch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(reward, terminated) [B, T] as floats. Raises ValueError where one is missing or of another shape."""
    expected = batch["x"].shape[:2]
    for name in ("reward", "terminated"):
        if name not in batch or batch[name].shape != expected:
            got = list(batch[name].shape) if name in batch else "missing"
            raise ValueError(f"{name} is {got}; expected [B, T] = {list(expected)}, what came with each x: record it")
    return batch["reward"].to(dtype), batch["terminated"].to(dtype)


def valid(batch: Batch, mask: Tensor) -> Tensor:
    """Which states can be dreamt on from, bool [B, T]: real ones that no termination ended."""
    return mask & ~batch["terminated"].bool() if "terminated" in batch else mask
