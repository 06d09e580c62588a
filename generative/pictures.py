"""What a model has learned, as pictures: samples, reconstructions beside inputs, latent traversals, and a model's own.

A model adds its own by a method `pictures()` → {name: picture}: masks, receptive fields, filters.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generative.model import Batch, Picture, capabilities

SPAN = 2.5  # latent traversals run over ± this many standard deviations
UPSCALED = 256  # pixels that a grid has at least, on its longer side


def pictures(model: Any, batch: Batch, generator: torch.Generator, *, rows: int = 8) -> dict[str, Picture]:
    """Every picture that the model's capabilities and the form of its data allow; {} where there is nothing to see."""
    has, x, made = capabilities(model), batch["x"], own(model)
    if not is_pictorial(x):
        return made
    if "sample" in has:
        n = min(rows * rows, len(x))
        cond = batch[model.conditioned_on][:n] if model.conditioned_on else None
        made["samples"] = grid(model.sample(n, cond, generator=generator), rows, like=x)
    if has >= {"encode", "decode"}:
        few = x[:rows]
        shown = torch.stack([few, model.decode(model.encode(few)).to(few)], 1).flatten(0, 1)
        made["reconstructions"] = grid(shown, 2, like=x)
        made["traversals"] = grid(traversals(model, x), rows, like=x)
    return made


def own(model: Any) -> dict[str, Picture]:
    """What a model shows of itself."""
    return dict(model.pictures()) if hasattr(model, "pictures") else {}


def traversals(model: Any, x: Tensor, *, dimensions: int = 8, points: int = 8) -> Tensor:
    """Decoded codes that differ from the mean in one dimension: those of greatest variance over x, most first.

    Returns data [dimensions · points, …], a dimension a row.
    """
    codes = model.encode(x)  # [B, D]
    mean, deviation = codes.mean(0), codes.std(0)
    chosen = deviation.argsort(descending=True)[:dimensions]
    steps = torch.linspace(-SPAN, SPAN, points, device=codes.device, dtype=codes.dtype)
    moved = mean.repeat(len(chosen), points, 1)  # [dimensions, points, D]
    for row, dimension in enumerate(chosen.tolist()):
        moved[row, :, dimension] += steps * deviation[dimension]
    return model.decode(moved.flatten(0, 1))


def is_pictorial(x: Tensor) -> bool:
    """Frames [B, H, W, 1 or 3], or vectors within [0, 1] whose length is a square above 4: small grey pictures."""
    if x.ndim == 4:
        return x.shape[-1] in (1, 3)
    side = math.isqrt(x.shape[-1]) if x.ndim == 2 else 0
    return x.ndim == 2 and side > 2 and side * side == x.shape[-1] and bool((x >= 0).all() and (x <= 1).all())


def grid(x: Tensor, columns: int, *, like: Tensor | None = None, gap: int = 1) -> Picture:
    """Data [N, …] as one picture, row by row, `gap` pixels apart, small ones enlarged; grey levels span those of `like`."""
    like = x if like is None else like
    top = 255 if like.ndim == 4 and int(like.max()) > 63 else max(1.0, float(like.max()))
    frames = x if x.ndim == 4 else x.reshape(len(x), math.isqrt(x.shape[1]), -1, 1)
    pixels = (frames.float() / top * 255).clamp(0, 255).round().to(torch.uint8).cpu().numpy()
    n, height, width, channels = pixels.shape
    rows = -(-n // columns)
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 128, np.uint8)
    for place, frame in enumerate(pixels):
        top_edge, left = gap + place // columns * (height + gap), gap + place % columns * (width + gap)
        canvas[top_edge : top_edge + height, left : left + width] = frame
    enlarged = max(1, -(-UPSCALED // max(canvas.shape[:2])))
    return canvas.repeat(enlarged, 0).repeat(enlarged, 1)
