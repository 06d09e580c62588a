"""The denoising diffusion model: a network that sees data at every level of noise and says what the noise was.

    loss = E ‖ε − ε̂(√ᾱ_t x_0 + √(1−ᾱ_t) ε, t)‖²,   t ~ Unif{1…T},  ε ~ N(0, I)

(Sohl-Dickstein et al. 2015; Ho et al. 2020, Alg. 1, arXiv:2006.11239; notes' Algorithm 2.) The network may predict x_0 instead,
or v = √ᾱ ε − √(1−ᾱ) x_0 (Salimans & Ho 2022, arXiv:2202.00512): the loss is then ‖x_0 − x̂_0‖² or ‖v − v̂‖², which weighs the
levels otherwise, and ε̂ follows from x_t. With a condition, it is forgotten at random in training, so that the same network
also knows p(x), as classifier-free guidance needs (Ho & Salimans 2022, arXiv:2207.12598; notes §9.4).

Deviations: the steps of a batch are spread evenly; and the network learns the difference to what would be right for data
N(0, I), √(1−ᾱ) x_t, √ᾱ x_t and 0 (as Karras et al. 2022's skip does, arXiv:2206.00364), so that it starts from there. The
loss is a reweighted bound; `elbo` is the bound itself, in nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from generative.autoencoders.data_form import DataForm, scored_sum
from generative.autoencoders.gaussian import standard_normal
from generative.diffusion import likelihood, samplers
from generative.diffusion.conditioning import Condition, forgotten
from generative.diffusion.guidance import classifier_free
from generative.diffusion.networks import TimedNetwork, check_sizes
from generative.diffusion.samplers import NoisePredictor
from generative.diffusion.scaling import Scaling, spread_times
from generative.diffusion.schedules import Schedule, ScheduleName, at, diffused
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics

Prediction = Literal["epsilon", "x0", "v"]
Sampler = Literal["ancestral", "ddim", "ode"]


@dataclass(frozen=True)
class DiffusionConfig:
    shape: tuple[int, ...] = (64,)  # of a datum: (D,) for vectors, (H, W, C) for frames
    levels: int = 256  # grey levels of frames
    std: float = 1.0  # of vectors, in their units: they are divided by it
    schedule: ScheduleName = "cosine"
    num_steps: int = 1000  # T
    prediction: Prediction = "v"  # epsilon suits linear schedules: under the cosine's last steps x_0 hardly follows from it
    variance: Literal["beta", "posterior"] = "beta"  # σ_t² of the ancestral sampler and of the bound
    first_step: int = (
        1  # from which the bound draws a frame's levels; above 1 where noise of step 1 is far below a level's width
    )
    hidden: tuple[int, ...] = (128, 128, 128)  # widths of the MLP, for vectors
    channels: tuple[int, ...] = (32, 64)  # of the U-Net's scales, for frames; each but the first halves the sides
    embedding: int = 64  # numbers that tell the network time and condition
    num_classes: int = 0  # labels that condition it
    cond_size: int = 0  # numbers of the vector `cond` that conditions it
    action_size: int = 0  # numbers of the action or actions that condition it
    null_share: float = 0.1  # probability in training that the condition is forgotten
    guidance: float = 1.0  # w = 1 + ρ of samples: 0 without the condition, 1 with it, above 1 more of it
    sampler: Sampler = "ddim"
    sample_steps: int = 50  # of ddim and ode; T at most
    eta: float = 0.0  # η of ddim
    feature_level: float = 0.1  # t/T of the noise under which `encode` looks
    feature_depth: int | None = None  # hidden layer or scale that `encode` gives, from 1; None: the deepest

    def __post_init__(self) -> None:
        form = DataForm(self.shape, self.levels)
        Scaling(form, self.std), Schedule(self.schedule, self.num_steps)
        Condition(self.num_classes, self.cond_size, self.action_size)
        check_sizes(form, self.hidden, self.channels, self.embedding)
        require(0 <= self.null_share < 1, "null_share", self.null_share, "a probability below 1")
        require(self.sample_steps >= 1 and self.eta >= 0, "sample_steps and eta", (self.sample_steps, self.eta), "≥ 1 and ≥ 0")
        require(0 < self.feature_level <= 1, "feature_level", self.feature_level, "a share of the noise's steps, in (0, 1]")
        fits = self.first_step == 1 or (form.is_frames and 1 <= self.first_step < self.num_steps)
        require(fits, "first_step", self.first_step, f"from 1 to below num_steps {self.num_steps} for frames, 1 for vectors")
        deepest = len(self.channels if form.is_frames else self.hidden)
        fits = self.feature_depth is None or 1 <= self.feature_depth <= deepest
        require(fits, "feature_depth", self.feature_depth, f"from 1 to the {deepest} of the network, or None")


class Diffusion(GenerativeModel):
    """p(x) or p(x | condition), of vectors or frames."""

    Config = DiffusionConfig
    config: DiffusionConfig
    feature_noise: Tensor

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__(config)
        c = config
        self.form = DataForm(c.shape, c.levels)
        self.scaling = Scaling(self.form, c.std)
        self.schedule_of_noise = Schedule(c.schedule, c.num_steps)
        self.condition = Condition(c.num_classes, c.cond_size, c.action_size)
        self.conditioned_on = self.condition.key
        self.network = TimedNetwork(
            self.form, self.form.inner[0], c.hidden, c.channels, c.embedding, c.num_steps, self.condition.size
        )
        noise = torch.randn((1, *self.form.inner), generator=torch.Generator().manual_seed(0))
        self.register_buffer("feature_noise", noise)  # the same for all data, and stored

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        x0 = self._inner(batch["x"])
        c = self.condition.vector(batch.get(self.conditioned_on or ""), len(x0), x0)
        if c is not None and self.training and self.config.null_share:
            c = forgotten(c, self.config.null_share, generator)
        t = spread_times(len(x0), self.config.num_steps, generator).to(x0.device)
        noise = standard_normal(tuple(x0.shape), generator, x0)
        x_t = diffused(x0, t, noise, self.schedule_of_noise)
        target = {"epsilon": noise, "x0": x0, "v": self._velocity(x0, noise, t)}[self.config.prediction]
        squared_error = scored_sum((target - self._prediction(x_t, t, c)) ** 2, self.form.mask_of(batch)).mean()
        return squared_error, {}

    def noise_predictor(self, cond: Tensor | None = None, guidance: float | None = None) -> NoisePredictor:
        """ε̂(x_t, t), for samplers and likelihoods, of x_t as the network sees it; `cond` is that of each row of x_t.

        guidance: w; by default 1. At 0 no condition is needed. Raises ValueError where cond is missing or not wanted, and for
        other w than 1 where the condition was never forgotten in training.
        """
        scale = 1.0 if guidance is None or self.conditioned_on is None else guidance
        if scale != 1 and not self.config.null_share:
            raise ValueError(f"guidance is {scale}; expected 1, for this model has null_share 0: it only knows conditions")

        def conditional(x: Tensor, t: Tensor) -> Tensor:
            return self._noise(x, t, self.condition.vector(cond, len(x), x))

        return classifier_free(conditional, lambda x, t: self._noise(x, t, None), scale)

    @torch.no_grad()
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
        scale = self.config.guidance if guidance is None else guidance
        noise_of = self.noise_predictor(cond, scale)
        x = standard_normal((n, *self.form.inner), generator, self.feature_noise)
        return self.scaling.recorded(self.denoised(noise_of, x, generator, sampler, num_steps))

    def denoised(
        self,
        noise_of: NoisePredictor,
        x: Tensor,
        generator: torch.Generator,
        sampler: Sampler | None = None,
        num_steps: int | None = None,
    ) -> Tensor:
        """x_0 from x_T [B, D] or [B, C, H, W] by any ε-function, by this model's sampler and schedule."""
        c, schedule, clip = self.config, self.schedule_of_noise, self.form.is_frames
        sampler = sampler or c.sampler
        if sampler == "ancestral":
            return samplers.ancestral(noise_of, x, schedule, generator=generator, variance=c.variance, clip=clip)
        times = schedule.times(num_steps or min(c.sample_steps, c.num_steps))
        if sampler == "ode":
            return samplers.heun(noise_of, x, schedule, times=times, clip=clip)
        require(sampler == "ddim", "sampler", repr(sampler), "ancestral, ddim or ode")
        return samplers.ddim(noise_of, x, schedule, times=times, generator=generator, eta=c.eta, clip=clip)

    @property
    def chain(self) -> likelihood.Chain:
        """Whose bound `elbo` is."""
        c = self.config
        return likelihood.Chain(self.schedule_of_noise, c.variance, c.levels if self.form.is_frames else None, c.first_step)

    def elbo(
        self,
        x: Tensor,
        cond: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        num_times: int | None = 8,
    ) -> Tensor:
        """The variational bound [B] in nats of the ancestral sampler, which draws x_0 at `first_step`.

        Its mean over noise is below log p(x | cond).

        num_times: terms of the sum that are computed for each datum, drawn at random (None: all T); few make a noisy estimate
        that is right in the mean. Without a generator the noise is always the same.
        """
        x0 = self._inner(x)
        noise = generator or torch.Generator(x.device).manual_seed(0)
        bound = likelihood.variational_bound(self.noise_predictor(cond), x0, self.chain, generator=noise, num_times=num_times)
        return bound if self.form.is_frames else bound + self.scaling.log_volume

    def ode_log_prob(
        self,
        x: Tensor,
        cond: Tensor | None = None,
        *,
        num_steps: int | None = None,
        generator: torch.Generator | None = None,
        exact: bool = True,
    ) -> Tensor:
        """log p(x | cond) [B] in nats under the probability-flow ODE, in `num_steps` (None: T) steps of Heun's method.

        Frames are dequantised by uniform noise, which makes it a lower bound in the mean. exact: the divergence by one backward
        pass a dimension; else Hutchinson's estimate. Without a generator the noise is always the same.
        """
        x0 = self._inner(x)
        noise = generator or torch.Generator(x.device).manual_seed(0)
        if self.form.is_frames:
            uniform = torch.rand(x0.shape, generator=noise, device=noise.device).to(x0) - 0.5
            x0 = x0 + uniform * (2 / (self.config.levels - 1))
        probe = None if exact else standard_normal(tuple(x0.shape), noise, x0).sign()
        times = self.schedule_of_noise.times(num_steps)
        found = likelihood.ode_log_prob(self.noise_predictor(cond), x0, self.schedule_of_noise, times=times, probe=probe)
        return found + self.scaling.log_volume

    def encode(self, x: Tensor) -> Tensor:
        """Hidden features [B, F] of x under the same noise for all (as Baranchuk et al. 2022, arXiv:2112.03126)."""
        x0 = self._inner(x)
        step = max(1, round(self.config.feature_level * self.config.num_steps))
        t = torch.full((len(x0),), step, device=x0.device)
        x_t = diffused(x0, t, self.feature_noise, self.schedule_of_noise)
        return self.network.features(x_t, t, self.config.feature_depth or self.network.depth)

    def _inner(self, x: Tensor) -> Tensor:
        return self.scaling.inner(x, self.feature_noise.dtype)

    def _velocity(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        kept = self.schedule_of_noise.alpha_bar
        return at(kept.sqrt(), t, x0) * noise - at((1 - kept).sqrt(), t, x0) * x0

    def _prediction(self, x_t: Tensor, t: Tensor, c: Tensor | None) -> Tensor:
        """The network's, of what `prediction` names."""
        kept = self.schedule_of_noise.alpha_bar
        made = self.network(x_t, t, c)
        if self.config.prediction == "v":
            return made
        return made + at((1 - kept if self.config.prediction == "epsilon" else kept).sqrt(), t, x_t) * x_t

    def _noise(self, x_t: Tensor, t: Tensor, c: Tensor | None) -> Tensor:
        """ε̂(x_t, t), whatever is predicted."""
        made, kept = self._prediction(x_t, t, c), self.schedule_of_noise.alpha_bar
        if self.config.prediction == "epsilon":
            return made
        signal, noise = at(kept.sqrt(), t, x_t), at((1 - kept).sqrt(), t, x_t)
        return signal * made + noise * x_t if self.config.prediction == "v" else (x_t - signal * made) / noise
