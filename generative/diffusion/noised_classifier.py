"""The classifier that classifier guidance needs: p(y | x_t) at every level of noise, trained on noised inputs.

    loss = E −log p(y | x_t) + λ E‖ε̂(x_t; t) − √(1−ᾱ_t) ∇ log p(y | x_t) − ε‖²/D,   x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε,   t ~ Unif{1…T}

The first term is that of Dhariwal & Nichol 2021, §4 (arXiv:2105.05233; notes §9.4). It tells the slope, which is all that
guidance uses, badly where there is much noise, for it hardly depends on it there. The second asks for the slope itself: guided,
the diffusion shall predict the noise (Chao et al. 2022, arXiv:2203.14206). It needs the diffusion:

    classifier = NoisedClassifier.guiding(diffusion, num_classes=3, matching=10.0)
    guided = classifier_guided(diffusion.noise_predictor(guidance=0), classifier.log_prob_of(label), schedule, w)

Deviation: the network sees √ᾱ_t x_t. Where noise drowns the data, ∇ log p(y | x_t) vanishes as √ᾱ_t, and guidance divides it by
√ᾱ_t to say x̂_0: so the gradient has to vanish as fast, not nearly so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from generative import configured
from generative.autoencoders.data_form import DataForm
from generative.autoencoders.gaussian import standard_normal
from generative.diffusion.networks import TimedNetwork, check_sizes
from generative.diffusion.samplers import NoisePredictor
from generative.diffusion.scaling import Scaling, spread_times
from generative.diffusion.schedules import Schedule, ScheduleName, at, diffused
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks import targets


@dataclass(frozen=True)
class NoisedClassifierConfig:
    shape: tuple[int, ...] = (64,)  # of a datum: (D,) for vectors, (H, W, C) for frames
    num_classes: int = 10
    levels: int = 256  # grey levels of frames
    std: float = 1.0  # of vectors, in their units: they are divided by it
    schedule: ScheduleName = "cosine"
    num_steps: int = 1000  # T
    hidden: tuple[int, ...] = (128, 128)  # widths of the MLP, for vectors
    channels: tuple[int, ...] = (16, 32)  # of the U-Net's scales, for frames
    embedding: int = 64  # numbers that tell the network the time
    matching: float = 0.0  # λ; above 0 it is trained with the diffusion that it is to guide (`guiding`)

    def __post_init__(self) -> None:
        form = DataForm(self.shape, self.levels)
        check_sizes(form, self.hidden, self.channels, self.embedding)
        require(self.num_classes >= 2, "num_classes", self.num_classes, "at least 2")
        require(self.std > 0, "std", self.std, "above 0")
        require(self.matching >= 0, "matching", self.matching, "0 or more")


class NoisedClassifier(GenerativeModel):
    """Reads `label` beside x."""

    Config = NoisedClassifierConfig
    config: NoisedClassifierConfig

    def __init__(self, config: NoisedClassifierConfig) -> None:
        super().__init__(config)
        c = config
        self.form = DataForm(c.shape, c.levels)
        self.scaling = Scaling(self.form, c.std)
        self.schedule_of_noise = Schedule(c.schedule, c.num_steps)
        self.noise_of: NoisePredictor | None = None  # of the diffusion that it is to guide
        self.network = TimedNetwork(self.form, c.num_classes, c.hidden, c.channels, c.embedding, c.num_steps)

    @classmethod
    def guiding(cls, diffusion: Any, **config: Any) -> NoisedClassifier:
        """One for a trained diffusion's data and noise; it asks the diffusion while it trains with `matching`, not later."""
        shared = {key: getattr(diffusion.config, key) for key in ("shape", "levels", "std", "schedule", "num_steps")}
        made = cls(configured(NoisedClassifierConfig, {**shared, **config}, "noised classifier"))
        made.noise_of = diffusion.noise_predictor(guidance=0)
        return made

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits [B, num_classes] of x_t as the diffusion sees it, at steps t [B]; of frames the mean over pixels."""
        made = self.network(at(self.schedule_of_noise.alpha_bar.sqrt(), t, x_t) * x_t, t)
        return made.mean((2, 3)) if self.form.is_frames else made

    def log_prob_of(self, label: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """log p(y | x_t) [B] of x_t and t, for the labels y [B]."""
        return lambda x_t, t: -self._cross_entropy(self(x_t, t), label)

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        x0 = self.scaling.inner(batch["x"], next(self.parameters()).dtype)
        t = spread_times(len(x0), self.config.num_steps, generator).to(x0.device)
        noise = standard_normal(tuple(x0.shape), generator, x0)
        x_t = diffused(x0, t, noise, self.schedule_of_noise)
        label, matching = targets.target_of(batch), self.config.matching
        with torch.set_grad_enabled(torch.is_grad_enabled() or matching > 0):
            seen = x_t.detach().requires_grad_(matching > 0)
            logits = self(seen, t)
            cross_entropy = self._cross_entropy(logits, label)
            loss, metrics = cross_entropy.mean(), {"accuracy": (logits.argmax(1) == label).to(x0.dtype).mean()}
            if matching:
                metrics["matching"] = mismatch = self._mismatch(cross_entropy, seen, t, noise)
                loss = loss + matching * mismatch
        return loss, {name: value.detach() for name, value in metrics.items()}

    def _mismatch(self, cross_entropy: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Squared error a dimension of the noise that the guided diffusion tells. Raises ValueError where there is none."""
        if self.noise_of is None:
            raise ValueError(
                "matching needs the diffusion that is to be guided; build it by NoisedClassifier.guiding(diffusion, …)"
            )
        (slope,) = torch.autograd.grad(cross_entropy.sum(), x_t, create_graph=self.training)  # of −log p
        with torch.no_grad():
            unguided = self.noise_of(x_t, t)
        return (unguided + at((1 - self.schedule_of_noise.alpha_bar).sqrt(), t, x_t) * slope - noise).square().mean()

    def _cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets.labels(label, (len(logits),), self.config.num_classes), reduction="none")
