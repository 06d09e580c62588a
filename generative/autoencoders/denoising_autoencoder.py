"""The denoising autoencoder: it rebuilds the data from a damaged copy, by Gaussian noise or by erased entries.

    min over r = g ∘ f of E ½‖x − r(x̃)‖²,    so r*(x̃) = E[x | x̃]

(Vincent et al. 2008; notes §5.2, where the code is overcomplete.) With x̃ = x + σε the optimum knows the density: by
Tweedie's formula r*(x̃) − x̃ = σ² ∇ log p_σ(x̃), with p_σ the data's density smoothed by the noise (Vincent 2011; Alain &
Bengio 2014, arXiv:1211.4246); `score` reads it off. With erased entries it is an inpainter (`inpaint`): the network gets x̃
with 0 for what is erased, and beside it the mask of what is kept, so that an erased entry isn't taken for a 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from generative.autoencoders.coders import check_coders, decoder, encoder
from generative.autoencoders.data_form import DataForm, scored_sum
from generative.autoencoders.gaussian import standard_normal
from generative.autoencoders.interpolation import interpolate
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks.mlp import Activation


@dataclass(frozen=True)
class DenoisingAutoencoderConfig:
    shape: tuple[int, ...] = (64,)  # of a datum: (D,) for vectors, (H, W, C) for frames
    latent: int = 128  # dimensions of the code, overcomplete by default
    corruption: Literal["gaussian", "masking"] = "gaussian"
    std: float = 0.5  # σ of Gaussian noise, in units of x (of frames: of [0, 1])
    erased: float = 0.5  # probability that masking erases an entry (of frames: a pixel)
    hidden: tuple[int, ...] = (256,)  # widths of dense layers, from the data on; the decoder mirrors them
    channels: tuple[int, ...] = ()  # of convolutions, each of which halves the frame; none: dense layers
    activation: Activation = "relu"
    levels: int = 256  # grey levels of frames

    def __post_init__(self) -> None:
        check_coders(DataForm(self.shape, self.levels), self.latent, self.hidden, self.channels)
        require(self.std > 0, "std", self.std, "a positive number")
        require(0 < self.erased < 1, "erased", self.erased, "a probability between 0 and 1")


class DenoisingAutoencoder(GenerativeModel):
    """x̃ → code [B, latent] → E[x | x̃]."""

    Config = DenoisingAutoencoderConfig
    config: DenoisingAutoencoderConfig

    def __init__(self, config: DenoisingAutoencoderConfig) -> None:
        super().__init__(config)
        self.form = DataForm(config.shape, config.levels)
        self.masks = config.corruption == "masking"
        extra = 0 if not self.masks else 1 if self.form.is_frames else self.form.size
        coders = config.hidden, config.channels, config.activation, config.latent
        self.encoder = encoder(self.form, *coders, extra)
        self.decoder = decoder(self.form, *coders)

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        x = self._inputs(batch["x"])
        rebuilt = self.decoder(self.encoder(self._damaged(x, generator)))
        squared_error = scored_sum((x - rebuilt) ** 2, self.form.mask_of(batch)).mean()
        return 0.5 * squared_error, {"squared_error": squared_error.detach()}

    def encode(self, x: Tensor) -> Tensor:
        """f(x) [B, latent] of x taken as it is, undamaged."""
        x = self._inputs(x)
        return self.encoder(self._beside(x, torch.ones_like(x[:, :1] if self.form.is_frames else x)))

    def decode(self, z: Tensor) -> Tensor:
        """g(z) as data are recorded, from z [B, latent]."""
        return self.form.recorded(self.decoder(z))

    def denoise(self, x: Tensor) -> Tensor:
        """r(x) as data are recorded, from x [B, …] that may be noisy."""
        return self.decode(self.encode(x))

    def score(self, x: Tensor) -> Tensor:
        """(r(x) − x)/σ² ≈ ∇ log p_σ(x), of vectors [B, D] or frames [B, H, W, C] (per unit of [0, 1]); float.

        Raises ValueError with masking, which has no score.
        """
        require(not self.masks, "corruption", "'masking'", "'gaussian': only its reconstruction is a score")
        score = (self.decoder(self.encode(x)) - self._inputs(x)) / self.config.std**2
        return score.movedim(1, -1) if self.form.is_frames else score

    def inpaint(self, x: Tensor, known: Tensor) -> Tensor:
        """x as recorded with its unknown entries replaced by what is expected there; what is known stays.

        `known` is boolean, [B, D] for vectors and [B, H, W] for frames. Raises ValueError for a model of Gaussian noise.
        """
        require(self.masks, "corruption", "'gaussian'", "'masking', to inpaint")
        expected = (len(x), *self.form.shape[:2])
        require(known.shape == expected and known.dtype == torch.bool, "known", known.shape, f"booleans {expected}")
        inner = known[:, None] if self.form.is_frames else known
        rebuilt = self.decode(self.encoder(self._beside(self._inputs(x), inner)))
        return torch.where(known[..., None] if self.form.is_frames else known, x, rebuilt.to(x))

    def interpolate(self, x0: Tensor, x1: Tensor, n: int) -> Tensor:
        """n data [B, n, …] from each x0 to its x1 [B, …], evenly spaced in the code."""
        return interpolate(self.encode, self.decode, x0, x1, n)

    def _damaged(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """What the encoder sees in training."""
        if not self.masks:
            return x + self.config.std * standard_normal(tuple(x.shape), generator, x)
        shape = (len(x), 1, *x.shape[2:]) if self.form.is_frames else x.shape
        kept = torch.rand(shape, generator=generator, device=generator.device).to(x.device) >= self.config.erased
        return self._beside(x, kept)

    def _beside(self, x: Tensor, kept: Tensor) -> Tensor:
        """x with 0 for erased entries, and the mask beside it as numbers or a plane; x alone where nothing is masked."""
        return torch.cat([torch.where(kept.bool(), x, 0), kept.to(x)], 1) if self.masks else x

    def _inputs(self, x: Tensor) -> Tensor:
        return self.form.inputs(x, next(self.parameters()).dtype)
