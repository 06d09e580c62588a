"""The linear autoencoder, x̂ = W_d (W_e x + b_e) + b_d, which is principal component analysis.

Its least squared error over all W of k dimensions is the sum of the D − k trailing eigenvalues of the data's covariance,
reached where W_d spans the k leading eigenvectors and W_e is its pseudo-inverse (Eckart & Young 1936; Baldi & Hornik 1989,
who also show that there are no other minima; notes §5.1). `fit_closed_form` goes there by a singular value decomposition; by
gradient descent the span is the same and the basis within it any. The loss is ½‖x − x̂‖²: −log N(x; x̂, I) without its
constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generative.autoencoders.data_form import DataForm, scored_sum
from generative.autoencoders.interpolation import interpolate
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics


@dataclass(frozen=True)
class LinearAutoencoderConfig:
    shape: tuple[int, ...] = (64,)  # of a datum: (D,) for vectors, (H, W, C) for frames
    latent: int = 8  # k, at most D
    levels: int = 256  # grey levels of frames

    def __post_init__(self) -> None:
        size = DataForm(self.shape, self.levels).size
        require(1 <= self.latent <= size, "latent", self.latent, f"from 1 to the data's {size} dimensions")


def principal_components(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(mean [D], the k leading principal axes [D, k], most variance first) of data x [N, D], N ≥ k."""
    mean = x.mean(0)
    return mean, torch.linalg.svd(x - mean, full_matrices=False).Vh[:k].T


def principal_angle(a: Tensor, b: Tensor) -> Tensor:
    """The largest angle between the spans of two full-rank [D, k], 0-dim, in radians; by its sine, exact near 0."""
    a, b = torch.linalg.qr(a).Q, torch.linalg.qr(b).Q
    return torch.linalg.matrix_norm(a - b @ (b.T @ a), 2).clamp(max=1).asin()


class LinearAutoencoder(GenerativeModel):
    """PCA by a network without non-linearities."""

    Config = LinearAutoencoderConfig
    config: LinearAutoencoderConfig

    def __init__(self, config: LinearAutoencoderConfig) -> None:
        super().__init__(config)
        self.form = DataForm(config.shape, config.levels)
        self.encoder = nn.Linear(self.form.size, config.latent)
        self.decoder = nn.Linear(config.latent, self.form.size)

    @torch.no_grad()
    def fit_closed_form(self, x: Tensor) -> None:
        """Set the weights to the optimum for data x [N, …] as recorded; codes are then centred and uncorrelated.

        Computed in float64. Raises ValueError for fewer data than dimensions of the code.
        """
        require(len(x) >= self.config.latent, "the number of data", len(x), f"at least latent = {self.config.latent}")
        mean, axes = principal_components(self._flat(x).double(), self.config.latent)
        self.encoder.weight.copy_(axes.T)
        self.encoder.bias.copy_(-mean @ axes)
        self.decoder.weight.copy_(axes)
        self.decoder.bias.copy_(mean)

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        x = self._flat(batch["x"])
        squared_error = scored_sum((x - self.decoder(self.encoder(x))) ** 2, self.form.mask_of(batch, flat=True)).mean()
        return 0.5 * squared_error, {"squared_error": squared_error.detach()}

    def encode(self, x: Tensor) -> Tensor:
        """W_e x + b_e [B, k]."""
        return self.encoder(self._flat(x))

    def decode(self, z: Tensor) -> Tensor:
        """W_d z + b_d as data are recorded, from z [B, k]."""
        return self.form.recorded(self.decoder(z))

    def interpolate(self, x0: Tensor, x1: Tensor, n: int) -> Tensor:
        """n data [B, n, …] from each x0 to its x1 [B, …], evenly spaced in the code."""
        return interpolate(self.encode, self.decode, x0, x1, n)

    def _flat(self, x: Tensor) -> Tensor:
        return self.form.inputs(x, self.encoder.weight.dtype).flatten(1)
