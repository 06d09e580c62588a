"""A latent world model: a variational RNN whose state moves by actions, with heads for the reward and the end.

    h_t = f(h_{t−1}, z_{t−1}, a_t)      p(z_t | h_t)      q(z_t | h_t, e(x_t))      p(x_t, r_t, end_t | h_t, z_t)
    loss = E_q Σ_t −log p(x_t | h_t, z_t) − log p(r_t | …) − log p(end_t | …) + KL(q(z_t | h_t, x_t) ‖ p(z_t | h_t))

a_t is the action that led to x_t. The state is (h, z): h remembers, z is what chance decided, Gaussian or several categoricals.
To imagine a step is to draw z from the prior instead of seeing x. Hafner et al. 2019 (arXiv:1811.04551), 2021
(arXiv:2010.02193), 2023 (arXiv:2301.04104); a VRNN (notes §6.6) in which f is given x only through z, so that x need not be
drawn to imagine.

With `unseen`, q is the prior at random steps, where the KL is 0: a bound as well, in which h must carry on what was seen, as
in a dream. `unseen`, `balance` and `free_nats` act in training only, so that validations compare the plain bound.
Reward and end are scored at steps that an action led to. Deviations: h_0 is learned; the decoder's variance is calibrated by
default (Rybkin et al. 2021), since a fixed one lets small things in a frame vanish; no layer normalisation, no symlog.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.autoencoders.coders import check_coders, decoder, encoder
from generative.autoencoders.data_form import DataForm
from generative.autoencoders.observation import Head, Observation, Scale, check_observation
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics
from generative.networks.mlp import Activation
from generative.recurrent.variable import Network
from generative.world.latents import Categoricals, Gaussians, Latent, balanced_kl
from generative.world.outcome import Outcome
from generative.world.protocol import State
from generative.world.steps import Steps, led, outcomes, steps_of, valid


@dataclass(frozen=True)
class WorldModelConfig:
    shape: tuple[int, ...]  # of an observation: (D,) for vectors, (H, W, C) for frames
    action_size: int  # A; a discrete action is one-hot
    levels: int = 256  # grey levels of frames
    latent: Literal["discrete", "gaussian"] = "discrete"  # z
    latent_size: int = 8  # categoricals, or dimensions of a Gaussian
    classes: int = 8  # of each categorical
    uniform: float = 0.01  # share of the uniform distribution in each categorical
    memory: int = 128  # units of h
    embedding: int = 128  # numbers that tell of an observation, e(x)
    hidden: tuple[int, ...] = (128,)  # widths of dense coders, and of the networks of prior, posterior, reward and end
    channels: tuple[int, ...] = ()  # of convolutions, each of which halves the frame; none: dense coders
    activation: Activation = "silu"
    head: Head = "gaussian"  # p(x | h, z)
    scale: Scale = "calibrated"  # of a Gaussian or Laplace, in units of x (of frames: of [0, 1]); calibrated: one for all
    reward_scale: float = 0.1  # standard deviation of a reward, in its units
    balance: float | None = 0.8  # share of the KL's gradient that goes to the prior; None: that of the plain bound
    free_nats: float = 0.0  # nats that z may use at each step without cost
    unseen: float = 0.0  # probability that a step isn't looked at in training: z is then drawn from the prior, as in a dream

    def __post_init__(self) -> None:
        form = DataForm(self.shape, self.levels)
        check_coders(form, self.latent_size, self.hidden, self.channels)
        check_observation(form, self.head, self.scale)
        sizes = {name: getattr(self, name) for name in ("action_size", "latent_size", "memory", "embedding")}
        require(min(sizes.values()) >= 1, ", ".join(sizes), tuple(sizes.values()), "at least 1 each")
        require(self.reward_scale > 0, "reward_scale", self.reward_scale, "a number above 0")
        require(self.balance is None or 0 < self.balance < 1, "balance", self.balance, "a share in (0, 1), or None")
        require(self.free_nats >= 0, "free_nats", self.free_nats, "0 or more")
        require(0 <= self.unseen < 1, "unseen", self.unseen, "a probability below 1")
        latent_of(self)


def latent_of(config: WorldModelConfig) -> Latent:
    if config.latent == "gaussian":
        return Gaussians(config.latent_size)
    require(config.latent == "discrete", "latent", repr(config.latent), "'discrete' or 'gaussian'")
    return Categoricals(config.latent_size, config.classes, config.uniform)


class WorldModel(GenerativeModel):
    """Sequences of vectors or frames given actions [B, T, A]; keeps `generative.world.protocol.WorldModel`.

    The state is (h [n, memory], z [n, Z]).

    >>> model = WorldModel(WorldModelConfig(shape=(3,), action_size=2))
    >>> state = model.begin(torch.zeros(5, 3))
    >>> state, reward, end = model.imagine(state, torch.zeros(5, 2), torch.rand(5, model.num_noise))
    >>> model.observation(state).shape, reward.shape, model.features(state).shape
    (torch.Size([5, 3]), torch.Size([5]), torch.Size([5, 192]))
    """

    Config = WorldModelConfig
    config: WorldModelConfig
    conditioned_on = "action"

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__(config)
        c = config
        self.form, self.latent = DataForm(c.shape, c.levels), latent_of(c)
        self.num_noise = self.latent.num_noise
        features, parameters = c.memory + self.latent.size, self.latent.num_parameters
        self.encoder = encoder(self.form, c.hidden, c.channels, c.activation, c.embedding)
        self.first_memory = nn.Parameter(torch.zeros(c.memory))
        self.moved = nn.Linear(self.latent.size + c.action_size, c.memory)
        self.rnn = nn.GRUCell(c.memory, c.memory)
        self.prior = Network(c.memory, c.hidden, parameters, c.activation)
        self.posterior_network = Network(c.memory + c.embedding, c.hidden, parameters, c.activation)
        self.likelihood = Observation(self.form, c.head, c.scale)
        self.decoder = decoder(self.form, c.hidden, c.channels, c.activation, features, self.likelihood.out_features)
        self.outcome = Outcome(features, c.hidden, c.activation, c.reward_scale)

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        steps = self._steps(batch)
        reward, terminated = outcomes(batch, steps.action.dtype)
        state, posterior = self._walk(steps, self._noise(steps, generator), self._unseen(steps, generator))
        reward_nats, end_nats = self.outcome.nats(self.features(state), reward, terminated)
        led_to = steps.mask & ~steps.first
        balance, free_nats = (self.config.balance, self.config.free_nats) if self.training else (None, 0.0)
        nats = {
            "reconstruction": (-self._log_likelihood(steps.x, state)).masked_fill(~steps.mask, 0),
            "kl": balanced_kl(self.latent, posterior, self.prior(state[0]), balance, free_nats).masked_fill(~steps.mask, 0),
            "reward": reward_nats.masked_fill(~led_to, 0),
            "end": end_nats.masked_fill(~led_to, 0),
        }  # [B, T] each
        means = {name: value.sum(1).mean() for name, value in nats.items()}
        return torch.stack([*means.values()]).sum(), {name: value.detach() for name, value in means.items()}

    def elbo(
        self,
        x: Tensor,
        cond: Tensor | None = None,
        *,
        first: Tensor | None = None,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Lower bound [B] of log p(x | actions) in nats, from one path; always the same noise if no generator is given."""
        steps = self._steps(_batch(x, cond, first, mask))
        noise = self._noise(steps, generator or torch.Generator(x.device).manual_seed(0))
        state, posterior = self._walk(steps, noise)
        bound = self._log_likelihood(steps.x, state) - self.latent.kl(posterior, self.prior(state[0]))  # [B, T]
        return bound.masked_fill(~steps.mask, 0).sum(1)

    def begin(self, x: Tensor) -> State:
        n = len(x)
        action = self.first_memory.new_zeros(n, self.config.action_size)
        return self.filter(self._before(n), action, x, torch.ones(n, dtype=torch.bool, device=x.device))

    def posterior(self, batch: Batch) -> tuple[State, Tensor]:
        """States (h [B, T, memory], z [B, T, Z]) by the posteriors' means, or most probable values; and which are valid."""
        steps = self._steps(batch)
        return self._walk(steps, None)[0], valid(batch, steps.mask)

    def filter(self, state: State, action: Tensor, x: Tensor, first: Tensor) -> State:
        seen = self.encoder(self.form.inputs(x, self.first_memory.dtype))
        return self._seen(state, led(action, first), seen, first, None, None)[0]

    def imagine(self, state: State, action: Tensor, noise: Tensor, temperature: float = 1.0) -> tuple[State, Tensor, Tensor]:
        h = self._remembered(state, action)
        reached = h, self.latent.sample(self.prior(h), noise, temperature)
        reward, end = self.outcome(self.features(reached))
        return reached, reward, end.sigmoid()

    def observation(self, state: State) -> Tensor:
        """The mean of p(x | h, z), as recorded."""
        return self.form.recorded(self.likelihood.mean(self.decoder(self.features(state))))

    def features(self, state: State) -> Tensor:
        """(h, z) side by side [..., memory + Z]."""
        return torch.cat(state, -1)

    def encode(self, x: Tensor, cond: Tensor | None = None, *, first: Tensor | None = None) -> Tensor:
        """Features [B, F] of the state after sequences x [B, T, …]; without actions `cond` as if none had been taken."""
        actions = self.first_memory.new_zeros(*x.shape[:2], self.config.action_size) if cond is None else cond
        path = self._walk(self._steps(_batch(x, actions, first, None)), None)[0]
        return self.features(path)[:, -1]

    def sample(self, n: int, cond: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """Sequences x [n, T, …] that begin an episode, given the actions that lead to each x; the first of them is not used."""
        if cond is None or cond.shape != (n, cond.shape[1], self.config.action_size):
            got = "missing" if cond is None else list(cond.shape)
            raise ValueError(f"cond is {got}; expected the actions [{n}, T, {self.config.action_size}] that lead to each x")
        begins = torch.arange(cond.shape[1], device=cond.device) == 0
        action, state, made = led(cond.to(self.first_memory), begins.expand(n, -1)), self._before(n), []
        for t in range(cond.shape[1]):
            noise = torch.rand((n, self.num_noise), generator=generator, device=generator.device).to(action)
            state = self.imagine(state, action[:, t], noise)[0]
            made.append(self.form.recorded(self.likelihood.sample(self.decoder(self.features(state)), generator)))
        return torch.stack(made, 1)

    def _steps(self, batch: Batch) -> Steps:
        return steps_of(batch, self.form, self.config.action_size, self.first_memory.dtype)

    def _noise(self, steps: Steps, generator: torch.Generator) -> Tensor:
        shape = (*steps.mask.shape, self.num_noise)
        return torch.rand(shape, generator=generator, device=generator.device).to(self.first_memory)

    def _before(self, n: int) -> State:
        """The state before an episode: h_0 is learned, z is 0."""
        return self.first_memory.expand(n, -1), self.first_memory.new_zeros(n, self.latent.size)

    def _remembered(self, state: State, action: Tensor) -> Tensor:
        """h_t = f(h_{t−1}, z_{t−1}, a_t) [n, memory]."""
        return self.rnn(F.silu(self.moved(torch.cat([state[1], action], -1))), state[0])

    def _seen(
        self, state: State, action: Tensor, seen: Tensor, first: Tensor, noise: Tensor | None, unseen: Tensor | None
    ) -> tuple[State, Tensor]:
        """(the state after e(x) [n, E], the parameters of z: of the prior where `unseen` [n]); without noise by z's mode."""
        h, z = (torch.where(first[:, None], new, old) for new, old in zip(self._before(len(seen)), state))
        h = self._remembered((h, z), action)
        parameters = self.posterior_network(torch.cat([h, seen], -1))
        if unseen is not None:
            parameters = torch.where(unseen[:, None], self.prior(h), parameters)
        z = self.latent.mode(parameters) if noise is None else self.latent.sample(parameters, noise)
        return (h, z), parameters

    def _walk(self, steps: Steps, noise: Tensor | None, unseen: Tensor | None = None) -> tuple[State, Tensor]:
        """(states after each step, each [B, T, …], parameters of the posteriors [B, T, P]); padding changes no state."""
        seen = self.encoder(steps.x.flatten(0, 1)).unflatten(0, steps.mask.shape)  # [B, T, E]
        state, states, parameters = self._before(len(seen)), [], []
        for t in range(seen.shape[1]):
            chance = (None if part is None else part[:, t] for part in (noise, unseen))
            after, found = self._seen(state, steps.action[:, t], seen[:, t], steps.first[:, t], *chance)
            state = tuple(torch.where(steps.mask[:, t, None], new, old) for new, old in zip(after, state))
            states.append(state)
            parameters.append(found)
        h, z = (torch.stack(part, 1) for part in zip(*states))
        return (h, z), torch.stack(parameters, 1)

    def _unseen(self, steps: Steps, generator: torch.Generator) -> Tensor | None:
        """Steps that aren't looked at, bool [B, T]: none where an episode or a sequence begins."""
        if not (self.training and self.config.unseen):
            return None
        drawn = torch.rand(steps.mask.shape, generator=generator, device=generator.device).to(steps.mask.device)
        begins = torch.cat([torch.ones_like(steps.first[:, :1]), steps.first[:, 1:]], 1)
        return (drawn < self.config.unseen) & ~begins

    def _log_likelihood(self, x: Tensor, state: State) -> Tensor:
        """log p(x_t | h_t, z_t) [B, T] in nats."""
        output = self.decoder(self.features(state).flatten(0, 1))
        return self.likelihood.log_prob(output, x.flatten(0, 1)).flatten(1).sum(1).unflatten(0, x.shape[:2])


def _batch(x: Tensor, action: Tensor | None, first: Tensor | None, mask: Tensor | None) -> Batch:
    parts = {"x": x, "action": action, "first": first, "mask": mask}
    return {name: value for name, value in parts.items() if value is not None}
