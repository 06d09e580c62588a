"""The conditional variational RNN: prior, posterior, decoder and transition all depend on a condition c_t.

    p(x | c) = ∫ Π_t p(z_t | h_{t−1}, c_t) p(x_t | z_t, h_{t−1}, c_t) dz,    h_t = f(h_{t−1}, x_t, z_t, c_t)

The condition is one of five. Given: a class (`label` [B], the same c at each step), floats (`cond` [B, C], likewise), or an
agent's actions (`action` [B, T, C]): action_t is taken upon x_t and shows in x_{t+1}, so c_t is the action before x_t, and
zero where a sequence begins. Inferred, `discrete` or `gaussian` (notes §6.6): c_t is a variable with a prior p(c_t | h_{t−1})
and a posterior q(c_t | x_t, h_{t−1}), whose divergence is part of the bound; samples use the priors alone.

After Chung et al. 2015, arXiv:1506.02216; notes §6.6. The step is in `cell.py`, bounds and walks are in `paths.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks.targets import labels
from generative.recurrent import paths
from generative.recurrent.cell import CellConfig, VRNNCell

GIVEN = ("label", "cond", "action")
INFERRED = ("discrete", "gaussian")


@dataclass(frozen=True, kw_only=True)
class ConditionalVRNNConfig(CellConfig):
    condition: Literal["label", "cond", "action", "discrete", "gaussian"]  # given: the first three; inferred: the others
    condition_size: int  # classes of a label, values of a discrete variable, dimensions of the others
    num_steps: int = 20  # T of samples, unless said otherwise or given by the actions

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.condition in GIVEN + INFERRED, "condition", repr(self.condition), " or ".join(GIVEN + INFERRED))
        least = 2 if self.condition in ("label", "discrete") else 1
        require(self.condition_size >= least, "condition_size", self.condition_size, f"at least {least} ({self.condition})")
        require(self.num_steps >= 1, "num_steps", self.num_steps, "at least 1")


class ConditionalVRNN(GenerativeModel):
    """Sequences x [B, T, D] given `cond`, the batch's value under `conditioned_on`; none where c is inferred.

    >>> model = ConditionalVRNN(ConditionalVRNNConfig(in_features=3, condition="action", condition_size=2))
    >>> state = model.filter(torch.zeros(5, 3), model.initial_state(5), torch.zeros(5, 2))
    >>> model.predict(state, 4, torch.zeros(5, 4, 2), generator=torch.Generator()).shape
    torch.Size([5, 4, 3])
    """

    Config = ConditionalVRNNConfig
    config: ConditionalVRNNConfig

    def __init__(self, config: ConditionalVRNNConfig) -> None:
        super().__init__(config)
        given = config.condition in GIVEN
        self.conditioned_on = config.condition if given else None
        if given:
            self.encode = None  # type: ignore[method-assign,assignment]  # x alone doesn't tell the state
        self.cell = VRNNCell(config, config.condition_size, None if given else config.condition)  # type: ignore[arg-type]

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        cond = batch.get(self.conditioned_on) if self.conditioned_on else None
        steps = self._steps(batch["x"], cond, batch.get("first"), batch.get("mask"))
        return paths.loss(paths.evidence_bound(self.cell, steps, paths.noise(self.cell, steps, generator)))

    def elbo(
        self,
        x: Tensor,
        cond: Tensor | None = None,
        *,
        first: Tensor | None = None,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Lower bound [B] of log p(x | cond) in nats, from one path; always the same noise if no generator is given."""
        steps = self._steps(x, cond, first, mask)
        return paths.evidence_bound(self.cell, steps, paths.noise(self.cell, steps, generator)).elbo

    def iwae(
        self,
        x: Tensor,
        num_samples: int,
        generator: torch.Generator,
        cond: Tensor | None = None,
        *,
        resample: bool = False,
        first: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Importance-weighted bound [B] of log p(x | cond) in nats from `num_samples` paths; `resample` for long sequences."""
        steps = self._steps(x, cond, first, mask)
        return paths.importance_bound(self.cell, steps, num_samples, generator, resample)

    def initial_state(self, n: int) -> Tensor:
        """The learned state before a sequence, [n, S]."""
        return self.cell.initial_state(n)

    def filter(self, x: Tensor, state: Tensor, cond: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """The state [n, S] after x [n, D] is seen: by posterior means, or a sample from noise [n, cell.num_noise].

        `cond` is of this step: labels [n], floats [n, C], or the actions [n, C] that led to x, zero at a sequence's start.
        """
        paths.require_cond(self.conditioned_on, cond)
        x = paths.sequences(self.cell, x[:, None], None, None)
        cond = cond[:, None] if cond is not None and self.conditioned_on == "action" else cond
        return paths.filtered(self.cell, paths.Steps(x, self._context(cond, len(x), 1), None, None), state, noise)

    def state_after(
        self, x: Tensor, cond: Tensor | None = None, *, first: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """The state [B, S] after whole sequences, filtered by posterior means. The last action is not yet in it."""
        return paths.infer_along(self.cell, self._steps(x, cond, first, mask))[2]

    def encode(self, x: Tensor, *, first: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """h [B, hidden] of `state_after`; absent where c is given, since x alone doesn't tell the state then."""
        return self.cell.hidden(self.state_after(x, first=first, mask=mask))

    def predict(self, state: Tensor, num_steps: int, cond: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """Samples x [n, num_steps, D] of what follows a state [n, S]; actions [n, num_steps, C] are those before each x."""
        paths.require_cond(self.conditioned_on, cond)
        return paths.predict(self.cell, state, self._context(cond, len(state), num_steps), generator)

    def sample(self, n: int, cond: Tensor | None = None, *, num_steps: int | None = None, generator: torch.Generator) -> Tensor:
        """x [n, num_steps, D]; given actions [n, T, C], x [n, T, D], of which the last action shows in none."""
        num_steps = num_steps or self.config.num_steps
        if self.conditioned_on == "action" and cond is not None and cond.ndim == 3:
            cond, num_steps = paths.previous_actions(cond, None, None), cond.shape[1]
        return self.predict(self.initial_state(n), num_steps, cond, generator=generator)

    def _steps(self, x: Tensor, cond: Tensor | None, first: Tensor | None, mask: Tensor | None) -> paths.Steps:
        paths.require_cond(self.conditioned_on, cond)
        x = paths.sequences(self.cell, x, first, mask)
        if self.conditioned_on == "action" and cond is not None and cond.ndim == 3 and cond.shape[:2] == x.shape[:2]:
            cond = paths.previous_actions(cond, first, mask)
        return paths.Steps(x, self._context(cond, *x.shape[:2]), first, mask)

    def _context(self, cond: Tensor | None, n: int, num_steps: int) -> Tensor:
        """c_t [n, T, C] of every step; [n, T, 0] where it is inferred. Raises ValueError for a wrong shape or class."""
        size, like = self.config.condition_size, self.cell.first_state
        if cond is None:
            return like.new_zeros(n, num_steps, 0)
        if self.conditioned_on == "label":
            cond = F.one_hot(labels(cond, (n,), size), size)
        shape = (n, num_steps, size) if self.conditioned_on == "action" else (n, size)
        require(tuple(cond.shape) == shape, self.conditioned_on or "cond", list(cond.shape), str(list(shape)))
        cond = cond.to(like.dtype)
        return cond if cond.ndim == 3 else cond[:, None].expand(-1, num_steps, -1)
