"""The contract that every generative model keeps, so that one trainer, one storage and one encoder serve them all.

A model is built from its configuration alone, `Class(config)`, and keeps it as `self.config`. `Config` is a frozen dataclass
directly above the class or nested in it; the class's attribute `Config` names it. Every model carries its own preprocessing:
`loss`, `log_prob`, `elbo` and `encode` take the data as recorded (uint8 [B, H, W, C] frames or float vectors), `sample` and
`decode` return the same.

    class Flow(GenerativeModel):
        Config = FlowConfig

        def __init__(self, config: FlowConfig) -> None:
            super().__init__(config)
            …
        def loss(self, batch, player="model", *, generator):
            loss = -self.log_prob(batch["x"]).mean()
            return loss, {"log_prob": -loss.detach()}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

Batch: TypeAlias = dict[str, Tensor]  # x, and where they exist: cond, label, text, action, reward, terminated, first, mask
Picture: TypeAlias = np.ndarray  # uint8 [H, W, C]
Metrics: TypeAlias = Mapping[str, float | Tensor | Picture]  # 0-dim tensors stay on their device until logged

CAPABILITIES = ("sample", "log_prob", "elbo", "encode", "decode")


class GenerativeModel(nn.Module):
    """A model of data, or of data given a condition; trained by minimising `loss`.

    Capabilities, each a method that is present only where the family has it (`capabilities` lists them):

    - `sample(n, cond=None, *, generator)` → n new data, as recorded; an autoregressive model's also takes `given` (data as
      recorded) and `num_given`: that many values of each, first in the model's ordering, are kept (inpainting);
    - `log_prob(x, cond)` → [B], the exact log-likelihood in nats;
    - `elbo(x, cond)` → [B], a lower bound of it in nats, by the model's own estimate;
    - `encode(x)` → [B, D], a deterministic description of x;
    - `decode(z)` → data, as recorded, from descriptions z [B, D].

    A model of data given something names the batch's key in `conditioned_on`; `cond` is what stands there: `label` int64 [B],
    `cond` floats [B, C], or `action` [B, T, A].
    """

    Config: ClassVar[type]
    conditioned_on: str | None = None
    schedule: tuple[tuple[str, int], ...] = (("model", 1),)  # players and their updates per step, in turn

    def __init__(self, config: Any) -> None:
        super().__init__()
        expected = getattr(type(self), "Config", None)
        if not (isinstance(expected, type) and is_dataclass(expected)):
            raise TypeError(f"{type(self).__name__} has no Config; set the class's attribute Config to a frozen dataclass")
        if not isinstance(config, expected):
            raise TypeError(
                f"{type(self).__name__} got a {type(config).__name__}; expected its {expected.__qualname__} "
                "(generative.build makes both from keywords)"
            )
        self.config = config

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        """(loss, metrics): what `player` minimises, a 0-dim mean over the batch in nats, and detached figures to log.

        All randomness comes from `generator`. For an explicit model the loss is −log p or a bound of it, so that minimising it
        is maximum likelihood (notes §1.2).
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def parameters_of(self, player: str) -> Iterator[nn.Parameter]:
        """The trainable parameters of one player, for one optimiser each.

        The player "model" owns the whole model, any other the submodule of its name. Raises ValueError for other names.
        """
        players = [name for name, _ in self.schedule]
        if player not in players:
            raise ValueError(f"unknown player {player!r} of {type(self).__name__} (known: {', '.join(players)})")
        owned = self if player == "model" else self.get_submodule(player)
        return (parameter for parameter in owned.parameters() if parameter.requires_grad)

    def after_update(self, player: str) -> None:
        """Called after each of a player's updates: weight clipping, moving averages. By default nothing."""


def capabilities(model: GenerativeModel | type[GenerativeModel]) -> frozenset[str]:
    """Which of `CAPABILITIES` a model has; a model whose configuration rules one out sets that name to None."""
    return frozenset(name for name in CAPABILITIES if callable(getattr(model, name, None)))
