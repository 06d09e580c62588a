"""A diffusion world model: the next observation, drawn by denoising given a few past ones and the action.

    loss = E ‖v − v̂(√ᾱ_τ x_t + √(1−ᾱ_τ) ε, τ; x_{t−K…t−1}, a_t)‖² − log p(r_t | s_t, a_t) − log p(end_t | s_t, a_t)

a_t is the action that led to x_t, s_t = x_{t−K+1…t} the state: the last K observations, the first one repeated where an episode
has fewer. v is as in `diffusion.py`. Reward and end are judged on s_t, which in a dream holds the predicted x_t. To imagine a
step is to follow the probability-flow ODE by a few steps of DDIM from noise that is passed in; the temperature scales that
noise. Alonso et al. 2024, "Diffusion for World Modeling" (DIAMOND), arXiv:2405.12399, which denoises in 3 steps too.

Deviations: the cosine schedule and v instead of EDM's preconditioning (much the same with data of standard deviation 1); heads
on convolutions of s_t instead of an LSTM, whose features of s_{t−1} the denoiser is told too; the denoiser and the heads see
states under more or less noise in training (`context_noise`), so that a dream's own small errors don't grow (Valevski et al.
2024, arXiv:2408.14837).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from generative.autoencoders.coders import check_coders, encoder
from generative.autoencoders.data_form import DataForm
from generative.autoencoders.gaussian import standard_normal as drawn_normal
from generative.diffusion.networks import TimedMLP, TimedUNet, TimeEmbedding, check_sizes, start_at_zero
from generative.diffusion.scaling import Scaling, spread_times
from generative.diffusion.schedules import Schedule, at, diffused
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks.mlp import Activation
from generative.world.outcome import Outcome
from generative.world.protocol import State, standard_normal
from generative.world.steps import Steps, outcomes, steps_of, valid


@dataclass(frozen=True)
class DiffusionWorldModelConfig:
    shape: tuple[int, ...]  # of an observation: (D,) for vectors, (H, W, C) for frames
    action_size: int  # A; a discrete action is one-hot
    levels: int = 256  # grey levels of frames
    std: float = 1.0  # of vectors, in their units: they are divided by it
    past: int = 2  # K, observations that a state holds
    denoising: int = 3  # steps of DDIM from noise to an observation
    num_steps: int = 1000  # of the noise schedule
    hidden: tuple[int, ...] = (128, 128)  # widths of the denoiser for vectors, and of the heads' encoder and networks
    channels: tuple[int, ...] = (16, 32)  # of the denoiser's scales for frames; each but the first halves the sides
    seen: tuple[int, ...] = (16, 32)  # channels of the heads' encoder for frames; each halves the sides
    embedding: int = 64  # numbers that tell the denoiser time and action
    features: int = 128  # numbers that tell of a state, the heads and the denoiser
    activation: Activation = "silu"
    context_noise: float = 0.1  # greatest standard deviation of the noise on states in training, frames being in [−1, 1]
    reward_scale: float = 0.1  # standard deviation of a reward, in its units

    def __post_init__(self) -> None:
        form = DataForm(self.shape, self.levels)
        Scaling(form, self.std), Schedule("cosine", self.num_steps)
        check_sizes(form, self.hidden, self.channels, self.embedding)
        check_coders(form, self.features, self.hidden, self.seen if form.is_frames else ())
        sizes = {name: getattr(self, name) for name in ("action_size", "past", "denoising")}
        require(min(sizes.values()) >= 1, ", ".join(sizes), tuple(sizes.values()), "at least 1 each")
        require(self.denoising <= self.num_steps, "denoising", self.denoising, f"at most num_steps, {self.num_steps}")
        require(self.context_noise >= 0, "context_noise", self.context_noise, "0 or more")
        require(self.reward_scale > 0, "reward_scale", self.reward_scale, "a number above 0")


class Denoiser(nn.Module):
    """v̂ [B, …] of x_τ [B, …] at noise steps τ [B], given K past observations side by side, their features, and an action.

    The features carry far what convolutions carry a few pixels: whether a door opens may hang on a key at the other end.
    """

    def __init__(self, config: DiffusionWorldModelConfig, form: DataForm) -> None:
        super().__init__()
        self.time = TimeEmbedding(config.num_steps, config.embedding)
        self.action = nn.Linear(config.action_size, config.embedding)
        self.features = nn.Linear(config.features, config.embedding)
        channels, seen = form.inner[0], form.inner[0] * (config.past + 1)
        self.body: TimedUNet | TimedMLP
        if form.is_frames:
            self.body = TimedUNet(seen, config.channels, channels, config.embedding)
        else:
            self.body = TimedMLP(seen, config.hidden, channels, config.embedding)
        start_at_zero(self.body.output)

    def forward(self, x: Tensor, t: Tensor, past: Tensor, features: Tensor, action: Tensor) -> Tensor:
        return self.body(torch.cat([x, past], 1), self.time(t) + self.features(features) + self.action(action))


class DiffusionWorldModel(GenerativeModel):
    """Sequences of vectors or frames given actions [B, T, A]; keeps `generative.world.protocol.WorldModel`.

    The state is one tensor [n, K, …], the last K observations as recorded, the newest last.

    >>> model = DiffusionWorldModel(DiffusionWorldModelConfig(shape=(8, 8, 1), action_size=2))
    >>> state = model.begin(torch.zeros(5, 8, 8, 1, dtype=torch.uint8))
    >>> state, reward, end = model.imagine(state, torch.zeros(5, 2), torch.rand(5, model.num_noise))
    >>> model.observation(state).shape, reward.shape, model.features(state).shape
    (torch.Size([5, 8, 8, 1]), torch.Size([5]), torch.Size([5, 128]))
    """

    Config = DiffusionWorldModelConfig
    config: DiffusionWorldModelConfig
    conditioned_on = "action"

    def __init__(self, config: DiffusionWorldModelConfig) -> None:
        super().__init__(config)
        c = config
        self.form = DataForm(c.shape, c.levels)
        self.scaling, self.noising = Scaling(self.form, c.std), Schedule("cosine", c.num_steps)
        self.num_noise = self.form.size
        kept = self.noising.alpha_bar
        self.levels = [(t, kept[t].item()) for t in self.noising.times(c.denoising)]  # (τ, ᾱ_τ), from noise to data
        self.denoiser = Denoiser(c, self.form)
        stacked = DataForm((*c.shape[:-1], c.shape[-1] * c.past), c.levels)
        channels = c.seen if self.form.is_frames else ()
        self.encoder = encoder(stacked, c.hidden, channels, c.activation, c.features)
        self.outcome = Outcome(c.features + c.action_size, c.hidden, c.activation, c.reward_scale)

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        steps = self._steps(batch)
        stack, known = self._stacks(steps)
        rows = self._scored(steps, known)
        if self.training:
            stack = self._blurred(stack, generator)
        before, reached = stack.roll(1, 1).flatten(0, 1)[rows], stack.flatten(0, 1)[rows]  # [N, K·D] or [N, K·C, H, W]
        x, action = steps.x.flatten(0, 1)[rows], steps.action.flatten(0, 1)[rows]
        reward, terminated = (part.flatten()[rows] for part in outcomes(batch, action.dtype))
        told = self.outcome.nats(torch.cat([self.encoder(reached), action], -1), reward, terminated)
        parts = {"squared_error": self._squared_error(x, before, action, generator), "reward": told[0], "end": told[1]}
        means = {name: part.sum() / len(steps.mask) for name, part in parts.items()}
        return torch.stack([*means.values()]).sum(), {name: value.detach() for name, value in means.items()}

    def begin(self, x: Tensor) -> State:
        return (x[:, None].expand(-1, self.config.past, *(-1,) * (x.ndim - 1)),)

    def posterior(self, batch: Batch) -> tuple[State, Tensor]:
        """The last K observations at each step [B, T, K, …]; where a sequence sets in within an episode, the first states lack
        some and are not valid."""
        steps = self._steps(batch)
        places, known = self._places(steps)
        rows = torch.arange(len(places), device=places.device)[:, None, None]
        return (batch["x"][rows, places],), valid(batch, steps.mask) & known

    def filter(self, state: State, action: Tensor, x: Tensor, first: Tensor) -> State:
        begun = first.view(-1, *(1,) * x.ndim)
        return (torch.where(begun, x[:, None], torch.cat([state[0][:, 1:], x[:, None]], 1)),)

    def imagine(self, state: State, action: Tensor, noise: Tensor, temperature: float = 1.0) -> tuple[State, Tensor, Tensor]:
        past = self._side_by_side(self._inner(state[0]))
        start = temperature * standard_normal(noise.to(past.dtype)).unflatten(1, self.form.inner)
        x = self.scaling.recorded(self._denoised(start, past, action.to(past.dtype)))
        reached = (torch.cat([state[0][:, 1:], x[:, None]], 1),)
        reward, end = self.outcome(torch.cat([self.features(reached), action.to(past.dtype)], -1))
        return reached, reward, end.sigmoid()

    def observation(self, state: State) -> Tensor:
        return state[0][:, -1]

    def features(self, state: State) -> Tensor:
        """What the heads' encoder tells of a state [n, features]."""
        return self.encoder(self._side_by_side(self._inner(state[0])))

    def encode(self, x: Tensor) -> Tensor:
        """Features [B, F] of the state after sequences x [B, T, …] that begin an episode."""
        actions = self._like().new_zeros(*x.shape[:2], self.config.action_size)
        stack = self._stacks(self._steps({"x": x, "action": actions}))[0]
        return self.encoder(stack[:, -1])

    def _denoised(self, x: Tensor, past: Tensor, action: Tensor) -> Tensor:
        """x_0 [n, …] from noise, by x_s = √ᾱ_s x̂_0 + √(1−ᾱ_s) ε̂ between the levels (DDIM with η = 0)."""
        features = self.encoder(past)
        for (t, kept), (_, kept_then) in pairwise(self.levels):
            velocity = self.denoiser(x, torch.full((len(x),), t, device=x.device), past, features, action)
            clean = math.sqrt(kept) * x - math.sqrt(1 - kept) * velocity
            clean = clean.clamp(-1, 1) if self.form.is_frames else clean
            noise = (x - math.sqrt(kept) * clean) / math.sqrt(1 - kept)
            x = math.sqrt(kept_then) * clean + math.sqrt(1 - kept_then) * noise
        return x

    def _squared_error(self, x0: Tensor, past: Tensor, action: Tensor, generator: torch.Generator) -> Tensor:
        """‖v − v̂‖² [B]."""
        noise = drawn_normal(tuple(x0.shape), generator, x0)
        t = spread_times(len(x0), self.config.num_steps, generator).to(x0.device)
        kept = self.noising.alpha_bar
        velocity = at(kept.sqrt(), t, x0) * noise - at((1 - kept).sqrt(), t, x0) * x0
        made = self.denoiser(diffused(x0, t, noise, self.noising), t, past, self.encoder(past), action)
        return ((velocity - made) ** 2).flatten(1).sum(1)

    def _blurred(self, stack: Tensor, generator: torch.Generator) -> Tensor:
        """Under noise of a standard deviation that is uniform in [0, context_noise] for each sequence: [B, T, …] as given."""
        std = torch.rand(len(stack), generator=generator, device=generator.device).to(stack) * self.config.context_noise
        return stack + std.view(-1, *(1,) * (stack.ndim - 1)) * drawn_normal(tuple(stack.shape), generator, stack)

    def _steps(self, batch: Batch) -> Steps:
        steps = steps_of(batch, self.form, self.config.action_size, self._like().dtype)
        return steps._replace(x=2 * steps.x - 1 if self.form.is_frames else steps.x / self.config.std)

    def _scored(self, steps: Steps, known: Tensor) -> Tensor:
        """Which of the B·T steps [N] an action led to from a state that is known. Raises ValueError where there is none."""
        from_known = torch.cat([torch.zeros_like(known[:, :1]), known[:, :-1]], 1)
        rows = (steps.mask & ~steps.first & from_known).flatten().nonzero().squeeze(1)
        if not len(rows):
            past, length = self.config.past, known.shape[1]
            raise ValueError(
                f"no step follows {past} known ones in sequences of {length}; expected more than {past}: set length"
            )
        return rows

    def _places(self, steps: Steps) -> tuple[Tensor, Tensor]:
        """(places in the sequence of each step's last K observations [B, T, K], whether all of them are in it [B, T])."""
        place = torch.arange(steps.mask.shape[1], device=steps.mask.device)
        begun = torch.where(steps.first, place, -1).cummax(1).values  # the last beginning; −1: before the sequence
        back = torch.arange(self.config.past - 1, -1, -1, device=place.device)
        wanted = place[:, None] - back  # [T, K]
        return torch.maximum(wanted, begun[..., None].clamp(min=0)), (begun >= 0) | (wanted[:, 0] >= 0)

    def _stacks(self, steps: Steps) -> tuple[Tensor, Tensor]:
        """The last K observations side by side [B, T, K·D] or [B, T, K·C, H, W], inner; and whether all are known [B, T]."""
        places, known = self._places(steps)
        rows = torch.arange(len(places), device=places.device)[:, None, None]
        return steps.x[rows, places].flatten(2, 3), known

    def _inner(self, stack: Tensor) -> Tensor:
        """Observations as recorded [n, K, …] → [n, K, D] or [n, K, C, H, W]."""
        return self.scaling.inner(stack.flatten(0, 1), self._like().dtype).unflatten(0, stack.shape[:2])

    @staticmethod
    def _side_by_side(stack: Tensor) -> Tensor:
        """[n, K, C, …] → [n, K·C, …], the oldest first."""
        return stack.flatten(1, 2)

    def _like(self) -> Tensor:
        return self.denoiser.action.weight
