"""The settings of a training, its optimisers and the course of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD}
WORTH_COMPILING = 20_000  # steps from which `auto` compiles


@dataclass(frozen=True)
class FitConfig:
    steps: int = 5_000
    batch_size: int = 128
    learning_rate: float = 1e-3
    optimiser: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)  # of adam and adamw
    weight_decay: float = 0.0
    warm_up: int = 0  # steps
    decay: Literal["cosine", "none"] = "cosine"  # of the learning rate, to 0 at the last step
    max_grad_norm: float | None = None  # global norm of a player's gradient
    ema: float | None = None  # d, the decay of averaged weights
    validation: float = 0.1  # share of finite data that is held out; a source without end is drawn from anew
    validate_every: int | None = None  # steps; default: a tenth of all
    validation_size: int = 1_000  # data judged, at most
    patience: int | None = None  # validations without improvement after which it stops
    keep: Literal["best", "last"] = "best"  # weights left at the end; best: of the lowest validation loss
    log_every: int = 100  # steps
    pictures_every: int | None = None  # steps; default: none are made
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: Literal["auto"] | bool = "auto"
    autocast: bool = False  # loss in bfloat16 where torch deems it safe

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "validation_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not 0 <= self.validation < 1 or not (self.ema is None or 0 < self.ema < 1):
            raise ValueError(f"validation is {self.validation} and ema {self.ema}; expected [0, 1) and (0, 1)")


def learning_rate(config: FitConfig, step: int) -> float:
    """Of the update that follows `step` finished ones."""
    rate = config.learning_rate
    if step < config.warm_up:
        return rate * (step + 1) / config.warm_up
    if config.decay == "none":
        return rate
    return rate * 0.5 * (1 + math.cos(math.pi * (step - config.warm_up) / max(1, config.steps - config.warm_up)))


def to_compile(config: FitConfig) -> bool:
    return config.compile is True or (config.compile == "auto" and config.steps >= WORTH_COMPILING)


def optimiser(config: FitConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that `config` names, over one player's parameters."""
    extra: dict = {"betas": config.betas} if config.optimiser.startswith("adam") else {}
    if config.optimiser != "rmsprop":
        extra["fused"] = True  # one kernel for all parameters
    return OPTIMISERS[config.optimiser](list(parameters), lr=config.learning_rate, weight_decay=config.weight_decay, **extra)
