"""The autoencoder: a code from which the data can be rebuilt.

    min over φ, ψ of mean ½‖x − g_ψ(f_φ(x))‖² + λ ‖f_φ(x)‖₁

(Rumelhart, Hinton & Williams 1986; notes §5.2.) Undercomplete, dim z < dim x, it must find what matters in x; overcomplete,
it could copy, and λ > 0 asks for a sparse code instead, of which few numbers differ from 0 (Ng 2011, with the L1 penalty of
sparse coding). Then the decoder's columns are kept at unit norm where the code enters it, as in sparse coding (Olshausen &
Field 1996): else codes would shrink and columns grow, and the penalty would cost nothing. Errors of frames are in units of
[0, 1]. The squared error is −log N(x; g(f(x)), I) without its constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generative.autoencoders.coders import check_coders, decoder, encoder
from generative.autoencoders.data_form import DataForm, scored_sum
from generative.autoencoders.interpolation import interpolate
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks.mlp import Activation


@dataclass(frozen=True)
class AutoencoderConfig:
    shape: tuple[int, ...] = (64,)  # of a datum: (D,) for vectors, (H, W, C) for frames
    latent: int = 8  # dimensions of the code; above D: overcomplete
    hidden: tuple[int, ...] = (256,)  # widths of dense layers, from the data on; the decoder mirrors them
    channels: tuple[int, ...] = ()  # of convolutions, each of which halves the frame; none: dense layers
    activation: Activation = "relu"
    levels: int = 256  # grey levels of frames
    sparsity: float = 0.0  # λ, nats per unit of the code's L1 norm

    def __post_init__(self) -> None:
        check_coders(DataForm(self.shape, self.levels), self.latent, self.hidden, self.channels)
        require(self.sparsity >= 0, "sparsity", self.sparsity, "0 or more")


class Autoencoder(GenerativeModel):
    """x → code [B, latent] → x̂."""

    Config = AutoencoderConfig
    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config)
        self.form = DataForm(config.shape, config.levels)
        coders = config.hidden, config.channels, config.activation, config.latent
        self.encoder = encoder(self.form, *coders)
        self.decoder = decoder(self.form, *coders)
        self._keep_unit_columns()

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        x = self._inputs(batch["x"])
        code = self.encoder(x)
        squared_error = scored_sum((x - self.decoder(code)) ** 2, self.form.mask_of(batch)).mean()
        size = code.abs().sum(1).mean()
        metrics = {"squared_error": squared_error.detach(), "code_l1": size.detach()}
        return 0.5 * squared_error + self.config.sparsity * size, metrics

    def after_update(self, player: str) -> None:
        self._keep_unit_columns()

    def encode(self, x: Tensor) -> Tensor:
        """f(x) [B, latent]."""
        return self.encoder(self._inputs(x))

    def decode(self, z: Tensor) -> Tensor:
        """g(z) as data are recorded, from z [B, latent]."""
        return self.form.recorded(self.decoder(z))

    def interpolate(self, x0: Tensor, x1: Tensor, n: int) -> Tensor:
        """n data [B, n, …] from each x0 to its x1 [B, …], evenly spaced in the code."""
        return interpolate(self.encode, self.decode, x0, x1, n)

    @torch.no_grad()
    def _keep_unit_columns(self) -> None:
        if self.config.sparsity:
            weight = next(layer for layer in self.decoder.modules() if isinstance(layer, nn.Linear)).weight
            weight.div_(weight.norm(dim=0, keepdim=True).clamp(min=1e-12))

    def _inputs(self, x: Tensor) -> Tensor:
        return self.form.inputs(x, next(self.parameters()).dtype)
