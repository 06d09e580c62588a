"""Ancestral sampling of frames, value by value in raster order with the colours of a pixel innermost (notes §6.4)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from generative.autoregressive.ancestral import check_label
from generative.autoregressive.pixel_frames import FrameConfig, frame_input, frame_levels
from generative.likelihoods import Likelihood

# (levels [n, C, H, W], row, column) -> parameters [n, C, P] there: valid for each colour whose predecessors are filled in
Predict: TypeAlias = Callable[[Tensor, int, int], Tensor]


@torch.no_grad()
def sample_frames(
    model: Any, n: int, cond: Tensor | None, generator: torch.Generator, given: Tensor | None, num_given: int, cached: bool
) -> Tensor:
    """Frames uint8 [n, H, W, C] of a pixel model, by its `pixel_by_pixel` predictions or by a pass over all for each value."""
    check_label(cond, model.config.num_classes, n)
    levels = start_from(given, num_given, n, model.config).to(generator.device)
    draw(model.pixel_by_pixel(cond) if cached else afresh(model, cond), model.head, levels, num_given, generator)
    return levels.movedim(1, 3).to(torch.uint8).contiguous()


def draw(predict: Predict, head: Likelihood, levels: Tensor, num_given: int, generator: torch.Generator) -> None:
    """Fills levels [n, C, H, W] in from place `num_given` on.

    `predict` is called at every pixel in order, for its last colour at least, so that it may keep what it computes.
    """
    _, channels, height, width = levels.shape
    for place, (row, column, colour) in enumerate(itertools.product(range(height), range(width), range(channels))):
        if place < num_given and colour < channels - 1:
            continue
        parameters = predict(levels, row, column)[:, colour]  # [n, P]
        if place >= num_given:
            levels[:, colour, row, column] = head.sample(parameters, generator).to(levels.dtype)


def afresh(model: Any, label: Tensor | None) -> Predict:
    """Predictions by a pass over the whole frames."""

    def predict(levels: Tensor, row: int, column: int) -> Tensor:
        return model(frame_input(levels, model), label)[:, :, row, column]

    return predict


def start_from(given: Tensor | None, num_given: int, n: int, config: FrameConfig) -> Tensor:
    """Levels int64 [n, C, H, W]: the first `num_given` values of the given frames, 0 elsewhere."""
    size = config.height * config.width * config.channels
    if not 0 <= num_given <= size:
        raise ValueError(f"num_given is {num_given}; expected 0…{size}, the values of a frame")
    if given is None:
        if num_given:
            raise ValueError(f"num_given is {num_given} and given is None; expected the frames whose values are kept")
        return torch.zeros(n, config.channels, config.height, config.width, dtype=torch.int64)
    if len(given) != n:
        raise ValueError(f"given has {len(given)} frames; expected one for each of the {n} samples")
    values = frame_levels(given, config).movedim(1, 3).flatten(1)  # [n, H·W·C]
    kept = torch.where(torch.arange(size, device=values.device) < num_given, values, 0)
    return kept.view(n, config.height, config.width, config.channels).movedim(3, 1).contiguous()
