"""Latent diffusion: a diffusion over the codes of a trained autoencoder, which is frozen within it.

    z = s f(x),   s = 1/std(f(x)),   z ~ diffusion,   x = g(z / s)           (Rombach et al. 2022, arXiv:2112.10752; notes §9.5)

The scale s brings the codes to the size of the noise. It is one number, measured once on data (`measure_scale`; else on the
first minibatch of the training) and kept as a buffer. The mean of the codes is left to the diffusion.

    autoencoder = generative.load("vae.safetensors")
    model = LatentDiffusion.over(autoencoder, num_classes=10)
    model.measure_scale(x)
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generative import MODELS, build, capabilities, configured, load
from generative.diffusion.diffusion import Diffusion, DiffusionConfig, Sampler
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class LatentDiffusionConfig:
    autoencoder: str = "vae"  # registered name of a model that encodes and decodes, or the .safetensors file of one
    autoencoder_config: dict[str, Any] = field(default_factory=dict)  # its settings, as JSON has them; none with a file
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)  # over codes; its shape becomes theirs

    def __post_init__(self) -> None:
        known = self.autoencoder in MODELS or self.autoencoder.endswith(SUFFIX)
        require(known, "autoencoder", repr(self.autoencoder), f"a registered model or a {SUFFIX} file of generative.save")
        as_stored = json.loads(json.dumps(self.autoencoder_config))  # tuples become lists, so that it reads back the same
        object.__setattr__(self, "autoencoder_config", as_stored)


class LatentDiffusion(GenerativeModel):
    """p(x) or p(x | condition) by way of codes [B, L]."""

    Config = LatentDiffusionConfig
    config: LatentDiffusionConfig
    scale: Tensor
    measured: Tensor

    def __init__(self, config: LatentDiffusionConfig) -> None:
        if config.autoencoder.endswith(SUFFIX):
            autoencoder = load(Path(config.autoencoder))
        else:
            autoencoder = build(config.autoencoder, **config.autoencoder_config)
        config = describe(autoencoder, config.diffusion)
        super().__init__(config)
        self.autoencoder: Any = autoencoder.requires_grad_(False).eval()
        self.diffusion = Diffusion(config.diffusion)
        self.conditioned_on = self.diffusion.conditioned_on
        self.register_buffer("scale", torch.ones(()))  # s
        self.register_buffer("measured", torch.tensor(False))

    @classmethod
    def over(cls, autoencoder: GenerativeModel, **diffusion: Any) -> LatentDiffusion:
        """A new one over a copy of a trained autoencoder; keywords are the settings of the diffusion."""
        given = configured(DiffusionConfig, diffusion, "latent_diffusion.diffusion")
        made = cls(describe(autoencoder, given))
        made.autoencoder.load_state_dict(autoencoder.state_dict())
        return made

    def train(self, mode: bool = True) -> LatentDiffusion:
        """As in torch; the autoencoder stays as it is used."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    @torch.no_grad()
    def measure_scale(self, x: Tensor) -> None:
        """s = 1/std of the codes of data x as recorded, all dimensions together, each about its own mean."""
        code = self.autoencoder.encode(x)
        variance = code.double().var(0, correction=0).mean()
        self.scale.copy_(variance.clamp(min=1e-12).rsqrt())
        self.measured.fill_(True)

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        if self.training and not self.measured:
            self.measure_scale(batch["x"])
        code = self.encode(batch["x"])
        seen = {key: value for key, value in batch.items() if key != "mask"} | {"x": code}  # a code has no entries of x
        loss, metrics = self.diffusion.loss(seen, player, generator=generator)
        return loss, {**metrics, "latent_std": code.var(0, correction=0).mean().sqrt()}

    def sample(
        self,
        n: int,
        cond: Tensor | None = None,
        *,
        generator: torch.Generator,
        sampler: Sampler | None = None,
        num_steps: int | None = None,
        guidance: float | None = None,
    ) -> Tensor:
        """n data as recorded, given `cond`; sampler, steps and guidance by default as configured."""
        code = self.diffusion.sample(n, cond, generator=generator, sampler=sampler, num_steps=num_steps, guidance=guidance)
        return self.decode(code)

    def encode(self, x: Tensor) -> Tensor:
        """z = s f(x) [B, L]."""
        return self.scale * self.autoencoder.encode(x).detach()

    def decode(self, z: Tensor) -> Tensor:
        """g(z / s) as data are recorded, from z [B, L]."""
        return self.autoencoder.decode(z / self.scale)


def describe(autoencoder: GenerativeModel, diffusion: DiffusionConfig) -> LatentDiffusionConfig:
    """A configuration that builds this autoencoder by its registered name, with a diffusion over its codes.

    Raises ValueError for a model that is not registered, and one that can't encode or decode.
    """
    path = f"{type(autoencoder).__module__}:{type(autoencoder).__qualname__}"
    name = next((name for name, registered in MODELS.items() if registered == path), None)
    if name is None:
        raise ValueError(f"the autoencoder is a {path}, which isn't registered; expected one of generative.MODELS")
    has = capabilities(autoencoder)
    config: Any = autoencoder.config
    fits = has >= {"encode", "decode"} and hasattr(config, "latent")
    require(fits, f"what {name} does", ", ".join(sorted(has)), "an autoencoder's encode and decode, without labels")
    return LatentDiffusionConfig(name, dataclasses.asdict(config), replace(diffusion, shape=(config.latent,), std=1.0))
