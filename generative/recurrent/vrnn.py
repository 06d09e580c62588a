"""The variational RNN: a VAE at every time step, whose prior, posterior and decoder depend on a recurrent state.

    p(x, z) = Π_t p(z_t | h_{t−1}) p(x_t | z_t, h_{t−1}),    q(z | x) = Π_t q(z_t | x_t, h_{t−1}),    h_t = f(h_{t−1}, x_t, z_t)

Chung et al. 2015, arXiv:1506.02216; notes §6.6. Minimises −ELBO. The initial state is learned, and with it the prior at t = 0;
`first` in a batch resets the state, `mask` marks the steps that are no padding. The step, with what differs from the paper, is
in `cell.py`; the bounds and the walks along sequences are in `paths.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.recurrent import paths
from generative.recurrent.cell import CellConfig, VRNNCell


@dataclass(frozen=True)
class VRNNConfig(CellConfig):
    num_steps: int = 20  # T of samples, unless said otherwise

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_steps >= 1, "num_steps", self.num_steps, "at least 1")


class VRNN(GenerativeModel):
    """Sequences x [B, T, D], T as they come. States are [n, S] tensors that belong to the caller.

    >>> model = VRNN(VRNNConfig(in_features=3, latent=2, hidden=8))
    >>> state = model.filter(torch.zeros(5, 3), model.initial_state(5))
    >>> model.predict(state, 4, generator=torch.Generator()).shape
    torch.Size([5, 4, 3])
    """

    Config = VRNNConfig
    config: VRNNConfig

    def __init__(self, config: VRNNConfig) -> None:
        super().__init__(config)
        self.cell = VRNNCell(config)

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        steps = self._steps(batch["x"], None, batch.get("first"), batch.get("mask"))
        return paths.loss(paths.evidence_bound(self.cell, steps, paths.noise(self.cell, steps, generator)))

    def elbo(
        self,
        x: Tensor,
        cond: None = None,
        *,
        first: Tensor | None = None,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Lower bound [B] of log p(x) in nats, from one path; always the same noise if no generator is given."""
        steps = self._steps(x, cond, first, mask)
        return paths.evidence_bound(self.cell, steps, paths.noise(self.cell, steps, generator)).elbo

    def iwae(
        self,
        x: Tensor,
        num_samples: int,
        generator: torch.Generator,
        cond: None = None,
        *,
        resample: bool = False,
        first: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Importance-weighted bound [B] of log p(x) in nats from `num_samples` paths; `resample` for long sequences."""
        steps = self._steps(x, cond, first, mask)
        return paths.importance_bound(self.cell, steps, num_samples, generator, resample)

    def initial_state(self, n: int) -> Tensor:
        """The learned state before a sequence, [n, S]."""
        return self.cell.initial_state(n)

    def filter(self, x: Tensor, state: Tensor, cond: None = None, noise: Tensor | None = None) -> Tensor:
        """The state [n, S] after x [n, D] is seen: by the posterior's mean, or a sample from noise [n, cell.num_noise]."""
        steps = self._steps(x[:, None], cond, None, None)
        return paths.filtered(self.cell, steps, state, noise)

    def state_after(self, x: Tensor, *, first: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The state [B, S] after whole sequences, filtered by posterior means."""
        return paths.infer_along(self.cell, self._steps(x, None, first, mask))[2]

    def encode(self, x: Tensor, *, first: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """h [B, hidden] of `state_after`."""
        return self.cell.hidden(self.state_after(x, first=first, mask=mask))

    def predict(self, state: Tensor, num_steps: int, cond: None = None, *, generator: torch.Generator) -> Tensor:
        """Samples x [n, num_steps, D] of what follows a state [n, S]."""
        paths.require_cond(self.conditioned_on, cond)
        return paths.predict(self.cell, state, state.new_zeros(len(state), num_steps, 0), generator)

    def sample(self, n: int, cond: None = None, *, num_steps: int | None = None, generator: torch.Generator) -> Tensor:
        """x [n, num_steps, D]."""
        return self.predict(self.initial_state(n), num_steps or self.config.num_steps, cond, generator=generator)

    def _steps(self, x: Tensor, cond: None, first: Tensor | None, mask: Tensor | None) -> paths.Steps:
        paths.require_cond(self.conditioned_on, cond)
        x = paths.sequences(self.cell, x, first, mask)
        return paths.Steps(x, x.new_zeros(*x.shape[:2], 0), first, mask)
