"""What the pixel models share: frames of levels, their head p(level | parameters), scoring, and the receptive field.

log p(x) = Σ over rows i, columns j, colours c of log p(x(i, j, c) | all values before it), in raster order with the colours
of a pixel innermost, R → G → B (notes §6.4). A network gives the parameters of every factor at once, [B, C, H, W, P].
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from generative.autoregressive.ancestral import check_label
from generative.discretised_logistic import DiscretisedLogisticMixture
from generative.dropout import dropped
from generative.likelihoods import CategoricalHead, Likelihood, require
from generative.model import Batch, Picture
from generative.pictures import grid

Head = Literal["categorical", "logistic_mixture"]


FrameConfig: TypeAlias = Any  # height, width, channels, levels, head, components, hidden, num_layers, … of each model


def check_config(config: FrameConfig) -> None:
    """Raises ValueError: what was got and what was expected."""
    for name in ("height", "width", "channels", "num_layers", "components"):
        require(getattr(config, name) >= 1, name, getattr(config, name), "at least 1")
    require(2 <= config.levels <= 256, "levels", config.levels, "from 2 to 256 (frames are uint8)")
    require(config.num_classes is None or config.num_classes >= 1, "num_classes", config.num_classes, "at least 1, or None")
    require(config.hidden >= config.channels, "hidden", config.hidden, f"at least one feature a channel, {config.channels}")
    for name in ("kernel", "first_kernel"):
        require(getattr(config, name) % 2 == 1 and getattr(config, name) >= 3, name, getattr(config, name), "odd, 3 or more")
    require(0 <= config.input_dropout < 1, "input_dropout", config.input_dropout, "a share in [0, 1)")
    require(config.head in get_args(Head), "head", repr(config.head), " or ".join(map(repr, get_args(Head))))


def frame_head(config: FrameConfig) -> Likelihood:
    """p(level | parameters): a softmax over the levels, or a mixture of discretised logistics."""
    if config.head == "categorical":
        return CategoricalHead(config.levels)
    return DiscretisedLogisticMixture(config.levels, config.components)


def frame_levels(x: Tensor, config: FrameConfig) -> Tensor:
    """Frames uint8 [B, H, W, C] as levels int64 [B, C, H, W]. Raises ValueError for other shapes, types and levels."""
    height, width, channels = config.height, config.width, config.channels
    if x.ndim != 4 or x.shape[1:] != (height, width, channels):
        raise ValueError(
            f"x is {list(x.shape)}; expected frames [B, H, W, C] = [B, {height}, {width}, {channels}]: "
            "resize them, or set height, width and channels"
        )
    if x.dtype != torch.uint8:
        raise ValueError(f"x is {x.dtype}; expected torch.uint8, frames of levels 0…{config.levels - 1}")
    if torch.compiler.is_compiling():  # a look at values would break the graph
        return x.movedim(3, 1).long()
    if config.levels < 256 and len(x) and int(x.max()) >= config.levels:
        raise ValueError(f"x has level {int(x.max())}; expected 0…{config.levels - 1}: quantise the frames, or set levels")
    return x.movedim(3, 1).long()


def frame_input(levels: Tensor, model: Any) -> Tensor:
    """Levels as the network sees them: from −1 to 1, so that the 0 outside the frame is not an end of the scale."""
    return levels.to(next(model.parameters()).dtype) * (2 / (model.config.levels - 1)) - 1


def frame_log_probs(model: Any, x: Tensor, cond: Tensor | None, generator: torch.Generator | None = None) -> Tensor:
    """log p of every value of frames uint8 [B, H, W, C] given those before it: [B, C, H, W] nats.

    With a generator the model's share of input dropout is applied.
    """
    config = model.config
    levels = frame_levels(x, config)
    check_label(cond, config.num_classes, len(x))
    inputs = dropped(frame_input(levels, model), config.input_dropout, generator)
    return model.head.log_prob(model(inputs, cond), levels)


def frame_loss(model: Any, batch: Batch, generator: torch.Generator) -> Tensor:
    """Mean over the batch of −Σ log p, over the entries that `mask` [B, H, W] or [B, H, W, C] scores where there is one."""
    label = batch.get("label") if model.config.num_classes is not None else None
    log_prob = frame_log_probs(model, batch["x"], label, generator)
    mask = batch.get("mask")
    if mask is not None:
        log_prob = log_prob * (mask[:, None] if mask.ndim == 3 else mask.movedim(3, 1))
    return -log_prob.sum((1, 2, 3)).mean()


def receptive_field(model: Any) -> Picture:
    """What the middle pixel's prediction depends on, by input gradients: white where it does, the pixel itself red."""
    config, noise = model.config, torch.Generator().manual_seed(0)
    row, column = config.height // 2, config.width // 2
    x = torch.rand((16, config.channels, config.height, config.width), generator=noise).to(next(model.parameters())) * 2 - 1
    with torch.enable_grad():
        x.requires_grad_()
        (slope,) = torch.autograd.grad(model(x, None)[:, :, row, column].square().sum(), x)
    seen = (slope != 0).any(0).any(0)  # [H, W]
    frame = (seen.to(torch.uint8) * 255)[..., None].repeat(1, 1, 3).cpu()
    frame[row, column] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    return grid(frame[None], 1)
