"""Actor-critic (notes §10.3): a policy that follows the advantages a learned value tells, from one-step TD to PPO.

    rollout:  T steps of n environments under π_θ
    targets:  A_t = δ_t + γλ A_{t+1},  δ_t = r + γ V(s′) − V(s),  G_t = A_t + V(s_t)            (Schulman et al. 2016)
    update:   ascend  log π_θ(a | s) A  (or PPO's clipped ratio)  − c_V (V(s) − G)²/2 + c_H H(π_θ)

The notes' form is `rollout_steps: 1, gae_lambda: 0`, with the sign of ascent, log π · (r + γV′ − V): the notes print that of
descent. A2C (Mnih et al. 2016, arXiv:1602.01783) is `rollout_steps: 5, gae_lambda: 1, epochs: 1, clip_ratio: null,
optimiser: rmsprop, learning_rate: 7e-4, normalise_advantage: false`; PPO (Schulman et al. 2017, arXiv:1707.06347) is several
`epochs` over a rollout with a `clip_ratio`. `recurrent` puts an LSTM between torso and heads: its state is kept for each
environment, forgotten where an episode begins, and run anew over whole rollouts when learning. An `encoder` that learns
(mpagents.encoders) is part of the network; in mode joint its own loss is added (deep/auxiliary.py).

Deviations: values and old log-probabilities are computed for whole rollouts before learning, by the parameters that acted;
moments of observations change after an update, so that acting and learning normalise alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mpagents.agents.agent import Metrics, Spaces
from mpagents.configuration import NonNegative, Positive, PositiveInt, UnitInterval
from mpagents.deep import optimisers
from mpagents.deep.acting import Acting, training_metrics
from mpagents.deep.auxiliary import Auxiliary
from mpagents.deep.collection import Collector
from mpagents.deep.compiling import Compile, graph, resolve
from mpagents.deep.flat_parameters import FlatParameters
from mpagents.deep.fused import iteration
from mpagents.deep.losses import clipped_ratio, explained_variance, normalised, policy_gradient, value_loss, weighted_mean
from mpagents.deep.normalisation import ObservationScale, RewardScale
from mpagents.deep.observations import ObservationCodec, check_observation
from mpagents.deep.policies import masked_logits, policy_head
from mpagents.deep.policy_networks import PolicyValueNetwork, Sizes, State
from mpagents.deep.returns import gae
from mpagents.deep.rollout import Batch, Rollout, as_columns, masks_of, minibatches, successors
from mpagents.schedules import Schedule, numbers, scheduled
from mpagents.seeding import derive
from mpagents.torch_env import TorchVectorEnv

Parts = dict[str, Tensor]  # of a loss, and how well it went; each 0-dim
DECAYING = Schedule(start=1e-3, end=0.0)


class ActorCritic:
    """Policy gradient with a learned value: one-step TD, A2C and PPO; Gaussian and softmax policies; LSTM."""

    encoder_modes = ("finetune", "joint")

    @dataclass(frozen=True)
    class Config:
        num_envs: PositiveInt = 8  # copies of the environment, stepped side by side
        rollout_steps: PositiveInt = 32  # of each environment between updates
        gae_lambda: UnitInterval = 0.95  # λ of advantages: 0 is one-step TD, 1 Monte Carlo
        epochs: PositiveInt = 10  # passes over a rollout
        minibatches: PositiveInt = 1  # of each epoch
        clip_ratio: Positive | None = 0.2  # PPO's; null: the plain policy gradient
        learning_rate: NonNegative | Schedule = DECAYING  # over environment steps
        optimiser: Literal["adam", "rmsprop"] = "adam"  # with ε 1e-5; α of RMSprop is 0.99
        value_coefficient: NonNegative = 1.0  # of half the squared error
        entropy_coefficient: NonNegative = 0.0  # of the policy's entropy, which is rewarded
        max_grad_norm: Positive = 0.5  # of the gradient, which is scaled down to it
        normalise_advantage: bool = True  # over a minibatch
        normalise_observations: bool = False  # by running moments
        normalise_rewards: bool = True  # by the standard deviation of the discounted return
        hidden_sizes: tuple[PositiveInt, ...] = (64, 64)  # units, of the policy and of the value each
        activation: Literal["tanh", "relu", "silu", "gelu", "elu"] = "tanh"
        recurrent: Literal[False] | PositiveInt = False  # units of the LSTM
        initial_log_std: float = 0.0  # of a Gaussian policy, where ±1 are the action's bounds
        device: Literal["auto", "cpu", "cuda"] = "cpu"
        compile: Compile = "auto"
        log_every: PositiveInt = 1_000  # environment steps

        def __post_init__(self) -> None:
            if self.epochs > 1 and self.clip_ratio is None:
                raise ValueError(f"epochs is {self.epochs} without a clip_ratio; expected 1, or a clip_ratio such as 0.2")
            if self.recurrent and self.minibatches > self.num_envs:
                what = f"minibatches is {self.minibatches} with num_envs {self.num_envs}"
                raise ValueError(f"{what}; a recurrent policy splits by environment, so expected minibatches ≤ num_envs")
            if self.minibatches > (rows := self.num_envs * self.rollout_steps):
                raise ValueError(f"minibatches is {self.minibatches} of a rollout of {rows} steps; expected at most {rows}")

    @classmethod
    def check(cls, config: Config, spaces: Spaces) -> None:
        check_observation(spaces.observation)
        policy_head(spaces.action)

    def __init__(self, config: Config, spaces: Spaces, *, seed: int, encoder: Any = None, device: str = "cpu") -> None:
        self.config, self.spaces, self.device = config, spaces, torch.device(device)
        self.recurrent, self.single_update = bool(config.recurrent), config.epochs == config.minibatches == 1
        self.plain = not (config.recurrent or config.normalise_rewards or config.normalise_observations)
        self.codec, self.head = ObservationCodec(spaces.observation, encoder), policy_head(spaces.action)
        sizes = Sizes(config.hidden_sizes, config.activation, int(config.recurrent), config.initial_log_std)
        start = torch.Generator().manual_seed(derive(seed, "network"))
        self.network = PolicyValueNetwork(self.codec, self.head, sizes, start).to(self.device)
        self.flat = FlatParameters(self.network)
        self.parameters, self.auxiliary = self.flat.vector, Auxiliary(self.flat, self.codec, seed)
        self.moments = (optimisers.adam_state if config.optimiser == "adam" else optimisers.rmsprop_state)(self.parameters)
        self.learning_rate = torch.zeros((), device=self.device)
        self.reward_scale = RewardScale(spaces.discount)
        self.rng = torch.Generator().manual_seed(derive(seed, "train"))
        self.scale = ObservationScale(self.codec) if config.normalise_observations else None
        self.acting = Acting(self.codec, self.head, self.flat, derive(seed, "predict"), self.device, self.scale)
        self.action_probabilities = self.acting.action_probabilities
        self.collector = Collector(self.codec, derive(seed, "environment"))
        self.state: State = ()  # the LSTM's, of the training environments

    def targets(self, parameters: Tensor, batch: Batch, output: Tensor, value: Tensor, states: State) -> tuple[Batch, Parts]:
        """What a rollout [T, n] teaches: advantages, returns, and log-probabilities under the policy that acted."""
        with torch.no_grad():
            next_value = self.flat.call(self.network.value, parameters, *successors(batch, states)).reshape(value.shape)
            flags = batch["terminated"], batch["truncated"], batch["valid"]
            decay = self.config.gae_lambda
            advantage = gae(batch["reward"], value, next_value, *flags, discount=self.spaces.discount, trace_decay=decay)
            log_prob = self.head.log_prob(masked_logits(output, *masks_of(batch)), batch["action"])
            weight, returns = batch["valid"].float(), advantage + value
            learned = {"log_prob": log_prob, "advantage": advantage, "value": value, "return": returns, "weight": weight}
            metrics = {"explained_variance": explained_variance(value, returns, weight)}
        return {name: batch[name] for name in ("obs", "first", "action", "mask") if name in batch} | learned, metrics

    def loss(self, parameters: Tensor, batch: Batch, state: State) -> tuple[Tensor, Parts]:
        """The loss of a minibatch of `targets`, or of a whole rollout, whose targets come from the very values that learn."""
        config, parts = self.config, Parts()
        output, value, states = self.flat(parameters, batch["obs"], batch["first"], state)
        if "advantage" not in batch:
            batch, parts = self.targets(parameters, batch, output.detach(), value.detach(), states)
        weight, advantage = batch["weight"], batch["advantage"]
        output = masked_logits(output, *masks_of(batch))
        log_prob = self.head.log_prob(output, batch["action"])
        if config.normalise_advantage:
            advantage = normalised(advantage, weight)
        if config.clip_ratio is None:
            policy = policy_gradient(log_prob, advantage, weight)
        else:
            policy = clipped_ratio(log_prob, batch["log_prob"], advantage, weight, config.clip_ratio)
        entropy = weighted_mean(self.head.entropy(output), weight)
        error = value_loss(value, batch["return"], weight)
        total = policy + config.value_coefficient * error - config.entropy_coefficient * entropy
        if self.auxiliary.active:
            total = total + self.auxiliary(parameters, batch["obs"])
        return total, parts | {"policy_loss": policy.detach(), "value_loss": error.detach(), "entropy": entropy.detach()}

    def update(self, parameters: Tensor, moments: dict, learning_rate: Tensor, batch: Batch, state: State) -> Parts:
        """One gradient step in place on `parameters` and `moments`: gradient, clipping, optimiser."""
        total, parts, gradient = optimisers.value_and_gradient(self.loss, parameters, batch, state)
        clipped, norm = optimisers.clip_by_norm(gradient, self.config.max_grad_norm)
        step = optimisers.adam if self.config.optimiser == "adam" else optimisers.rmsprop
        step(parameters, clipped, moments, learning_rate, eps=1e-5)
        return {"loss": total, "gradient_norm": norm, **parts}

    def learn(self, rollout: Batch, state: State) -> Parts:
        """All of the learning from one rollout."""
        config, steps = self.config, (self.parameters, self.moments, self.learning_rate)
        if self.single_update:
            return self._update(*steps, rollout, state)
        with torch.no_grad():
            said = self.network(rollout["obs"], rollout["first"], state)
            batch, metrics = self.targets(self.parameters, rollout, *said)
        batch = batch if self.recurrent else as_columns(batch)
        for _ in range(config.epochs):
            for part, start in minibatches(batch, state, config.minibatches, self.rng):
                metrics |= self._update(*steps, part, start)
        return metrics

    def train(self, env: Any, num_steps: int) -> Iterator[tuple[int, Metrics]]:
        config, collector = self.config, self.collector
        if collector.num_steps >= num_steps:
            return
        collector.attach(env)
        self.state = self.state or self.network.initial_state(env.num_envs)
        self._prepare(env, num_steps)
        fused = isinstance(env, TorchVectorEnv) and self.single_update and self.plain
        rollout = Rollout(collector, config.rollout_steps, self.head.empty(env.num_envs))
        rate = numbers(config.learning_rate, num_steps)
        while collector.num_steps < num_steps:
            before = collector.num_steps
            self.learning_rate.fill_(scheduled.py_func(rate, before))
            if fused and num_steps - before >= rollout.reward.size:
                metrics = self._iterate(env, rollout)
            else:
                start, batch = self.state, self._collect(rollout, num_steps)
                metrics = self.learn(batch, start)
                if self.scale is not None:
                    self.scale.update(rollout.obs, rollout.flags["valid"])
            steps = collector.num_steps
            if steps // config.log_every > before // config.log_every or steps >= num_steps:
                told = training_metrics(metrics, self.learning_rate, steps)
                yield steps, collector.metrics() | told | self.auxiliary.metrics()

    def _prepare(self, env: Any, num_steps: int) -> None:
        config, spaces = self.config, self.spaces
        updates = num_steps // (env.num_envs * config.rollout_steps) * config.epochs * config.minibatches
        use = self.codec.encoder is None and resolve(config.compile, updates)  # generative models look at their data
        computed = asdict(replace(config, learning_rate=0.0, log_every=1))  # what a graph depends on
        key = str(spaces.observation), str(spaces.action), spaces.discount, str(computed)
        self._update = graph(self.update, ("actor-critic update", *key), use)
        self.acting.compile(key, use)
        if isinstance(env, TorchVectorEnv):
            self._iteration = graph(partial(iteration, self, env.torch_env), ("iteration", env.torch_env, *key), use)

    def _iterate(self, env: Any, rollout: Rollout) -> Parts:
        """Collect and learn in one graph."""
        noise = self.head.noise(rollout.reward.shape, self.rng).to(self.device)
        places = env.walk, noise, env.noise(len(noise), 2)
        metrics, env.walk, reward, ended = self._iteration(self.parameters, self.moments, self.learning_rate, *places)
        self.collector.absorb(reward.cpu().numpy(), ended.cpu().numpy(), env.observe())
        return metrics

    def _collect(self, rollout: Rollout, num_steps: int) -> Batch:
        """Fill a rollout, or less where the budget ends."""
        noise = self.head.noise(rollout.reward.shape, self.rng).to(self.device)
        self.state = rollout.fill(self.collector, self.acting, self.state, noise, num_steps)
        if self.config.normalise_rewards:
            self.reward_scale.rescale(rollout)
        return rollout.tensors(self.device, scale=self.scale)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:  # fmt: skip
        return self.acting.predict(observation, state, episode_start, deterministic, action_masks)

    def state_dict(self) -> dict:
        return {
            "parameters": self.parameters, "moments": self.moments, "state": list(self.state),
            "reward_scale": self.reward_scale.state_dict(), "collector": self.collector.state_dict(),
            "scale": None if self.scale is None else self.scale.state_dict(),
            "rng": self.rng.get_state(), "predict_rng": self.acting.rng.get_state(), "auxiliary": self.auxiliary.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: dict) -> None:
        self.parameters.copy_(state["parameters"])
        if self.scale is not None:
            self.scale.load_state_dict(state["scale"])
        optimisers.load_state(self.moments, state["moments"])
        self.state = tuple(part.to(self.device) for part in state["state"])
        self.reward_scale.load_state_dict(state["reward_scale"])
        self.collector.load_state_dict(state["collector"])
        self.auxiliary.load_state_dict(state.get("auxiliary"))
        self.rng.set_state(state["rng"])
        self.acting.rng.set_state(state["predict_rng"])
