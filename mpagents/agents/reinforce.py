"""REINFORCE (Williams 1992; notes §10.3): the Monte Carlo policy gradient, with reward to go and a baseline.

    θ ← θ + η Σ_t ∇ log π_θ(a_t | s_t) (G_t − b),   G_t = r_t + γ G_{t+1}

The baseline is nothing, the running mean of G, or a learned value V(s_t); it is detached. γᵗ does not weigh the update: the
gradient of the notes' J(θ) has it, but it would all but discard what happens late in an episode, and practice leaves it out.

An update follows as soon as `episodes` episodes have ended, in any of the environments. It takes the steps since the update
before, so every reward to go is earned by the policy that is updated, also in episodes that began under an older one. What
wasn't seen to its termination (an episode cut by a time limit, or still running at the update) is bootstrapped by the
baseline, V of the true final observation or the mean; without a baseline its steps are dropped. Nothing is treated as
terminated that wasn't. An `encoder` that learns (mpagents.encoders) is part of the network; in mode joint its own loss is added
to the policy's.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mpagents.agents.agent import Metrics, Spaces
from mpagents.configuration import NonNegative, Positive, PositiveInt, UnitInterval
from mpagents.deep.acting import Acting, training_metrics
from mpagents.deep.auxiliary import Auxiliary
from mpagents.deep.collection import Collector
from mpagents.deep.flat_parameters import FlatParameters
from mpagents.deep.losses import normalised, policy_gradient, value_loss, weighted_mean
from mpagents.deep.observations import ObservationCodec, check_observation
from mpagents.deep.optimisers import adam, adam_state, clip_by_norm, load_state, value_and_gradient
from mpagents.deep.policies import masked_logits, policy_head
from mpagents.deep.policy_networks import PolicyValueNetwork, Sizes
from mpagents.deep.returns import reaches_termination, reward_to_go
from mpagents.deep.rollout import Batch, Rollout
from mpagents.schedules import Schedule, numbers, scheduled
from mpagents.seeding import derive

DECAYING = Schedule(start=3e-3, end=0.0)


class Reinforce:
    """Monte Carlo policy gradient (REINFORCE) with no baseline, a running mean or a learned value."""

    encoder_modes = ("finetune", "joint")

    @dataclass(frozen=True)
    class Config:
        num_envs: PositiveInt = 1  # copies of the environment, stepped side by side
        episodes: PositiveInt = 8  # that end between updates
        max_steps: PositiveInt = 10_000  # of each environment between updates, whether episodes end or not
        baseline: Literal["none", "mean", "value"] = "value"  # subtracted from returns
        mean_decay: UnitInterval = 0.9  # of the running mean of G, an update
        learning_rate: NonNegative | Schedule = DECAYING  # of the policy, over environment steps
        value_learning_rate: NonNegative = 3e-3  # of V
        value_updates: PositiveInt = 10  # gradient steps of V an update of the policy
        entropy_coefficient: NonNegative = 0.0  # of the policy's entropy, which is rewarded
        max_grad_norm: Positive = 0.5  # of the gradient, which is scaled down to it
        normalise_advantage: bool = True  # over the steps of an update
        hidden_sizes: tuple[PositiveInt, ...] = (64, 64)  # units, of the policy and of the value each
        activation: Literal["tanh", "relu", "silu", "gelu", "elu"] = "tanh"
        initial_log_std: float = 0.0  # of a Gaussian policy, where ±1 are the action's bounds
        device: Literal["auto", "cpu", "cuda"] = "cpu"

    @classmethod
    def check(cls, config: Config, spaces: Spaces) -> None:
        check_observation(spaces.observation)
        policy_head(spaces.action)

    def __init__(self, config: Config, spaces: Spaces, *, seed: int, encoder: Any = None, device: str = "cpu") -> None:
        self.config, self.spaces, self.device = config, spaces, torch.device(device)
        self.codec, self.head = ObservationCodec(spaces.observation, encoder), policy_head(spaces.action)
        sizes = Sizes(config.hidden_sizes, config.activation, initial_log_std=config.initial_log_std)
        start = torch.Generator().manual_seed(derive(seed, "network"))
        self.network = PolicyValueNetwork(self.codec, self.head, sizes, start).to(self.device)
        self.flat = FlatParameters(self.network)
        self.parameters = self.flat.vector
        self.auxiliary = Auxiliary(self.flat, self.codec, seed)
        self.moments = {part: adam_state(self.parameters) for part in ("policy", "value")}
        self.mean_return: float | None = None
        self.rng = torch.Generator().manual_seed(derive(seed, "train"))
        self.acting = Acting(self.codec, self.head, self.flat, derive(seed, "predict"), self.device)
        self.action_probabilities = self.acting.action_probabilities
        self.collector = Collector(self.codec, derive(seed, "environment"))

    def targets(self, batch: Batch) -> Batch:
        """Rewards to go, advantages, and the weight of each row (0: not to be learned from); [T, n]."""
        terminated, valid = batch["terminated"], batch["valid"]
        value, next_value = self._baseline(batch, "obs"), self._baseline(batch, "next_obs")
        flags = terminated, batch["truncated"], valid
        returns = reward_to_go(batch["reward"], next_value, *flags, discount=self.spaces.discount)
        known = reaches_termination(terminated, batch["truncated"]) if self.config.baseline == "none" else valid
        weight = (valid & known).float()
        advantage = returns - value
        if self.config.normalise_advantage:
            advantage = normalised(advantage, weight)
        return batch | {"return": returns, "advantage": advantage, "weight": weight}

    def _baseline(self, batch: Batch, name: str) -> Tensor:
        """b [T, n] of the observations `name`, detached."""
        if self.config.baseline == "value":
            with torch.no_grad():
                return self.network.value(batch[name], batch["first"], ())
        return torch.full_like(batch["reward"], self.mean_return or 0.0)

    def policy_loss(self, parameters: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(loss, entropy) of the policy; its gradient is 0 in the value's parameters, and the other way round."""
        output, _, _ = self.flat(parameters, batch["obs"], batch["first"], ())
        output = masked_logits(output, batch.get("mask"))
        log_prob = self.head.log_prob(output, batch["action"])
        entropy = weighted_mean(self.head.entropy(output), batch["weight"])
        loss = policy_gradient(log_prob, batch["advantage"], batch["weight"])
        if self.auxiliary.active:
            loss = loss + self.auxiliary(parameters, batch["obs"])
        return loss - self.config.entropy_coefficient * entropy, entropy.detach()

    def value_loss(self, parameters: Tensor, batch: Batch) -> tuple[Tensor, None]:
        value = self.flat.call(self.network.value, parameters, batch["obs"], batch["first"], ())
        return value_loss(value, batch["return"], batch["weight"]), None

    def learn(self, rollout: Batch, learning_rate: float) -> dict[str, Tensor]:
        """One step of the policy, then the baseline."""
        batch = self.targets(rollout)
        if not batch["weight"].any():
            warnings.warn("no episode terminated, and baseline none learns from no other; set baseline: value", stacklevel=2)
            return {}
        loss, entropy, gradient = value_and_gradient(self.policy_loss, self.parameters, batch)
        norm = self._descend("policy", gradient, learning_rate)
        metrics = {"loss": loss, "entropy": entropy, "gradient_norm": norm}
        if self.config.baseline == "mean":
            mean, keep = float(weighted_mean(batch["return"], batch["weight"])), self.config.mean_decay
            self.mean_return = mean if self.mean_return is None else keep * self.mean_return + (1 - keep) * mean
        if self.config.baseline == "value":
            for _ in range(self.config.value_updates):
                metrics["value_loss"], _, gradient = value_and_gradient(self.value_loss, self.parameters, batch)
                self._descend("value", gradient, self.config.value_learning_rate)
        return metrics

    def _descend(self, part: str, gradient: Tensor, learning_rate: float) -> Tensor:
        clipped, norm = clip_by_norm(gradient, self.config.max_grad_norm)
        adam(self.parameters, clipped, self.moments[part], torch.tensor(learning_rate, device=self.device), eps=1e-5)
        return norm

    def train(self, env: Any, num_steps: int) -> Iterator[tuple[int, Metrics]]:
        collector, rate = self.collector, numbers(self.config.learning_rate, num_steps)
        if collector.num_steps >= num_steps:
            return
        collector.attach(env)
        rollout = Rollout(collector, self.config.max_steps, self.head.empty(env.num_envs))  # memory is taken as it is written
        while collector.num_steps < num_steps:
            learning_rate = float(scheduled.py_func(rate, collector.num_steps))
            metrics = self.learn(self._collect(rollout, num_steps), learning_rate)
            steps = collector.num_steps
            told = training_metrics(metrics, learning_rate, steps) | self.auxiliary.metrics()
            yield steps, collector.metrics() | told

    def _collect(self, rollout: Rollout, num_steps: int) -> Batch:
        """Step until `episodes` have ended, or the budget has."""
        collector = self.collector
        last, t = collector.num_episodes + self.config.episodes, 0
        rollout.clear()
        with torch.inference_mode():
            while t < self.config.max_steps and collector.num_episodes < last and collector.num_steps < num_steps:
                rollout.write_observation(t, collector)
                noise = self.head.noise((len(collector.first),), self.rng).to(self.device)
                action, _ = self.acting.choose(collector, (), noise)
                rollout.write_transition(t, action, collector.step(self.head.for_environment(action)))
                t += 1
        return rollout.tensors(self.device, t)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:  # fmt: skip
        return self.acting.predict(observation, state, episode_start, deterministic, action_masks)

    def state_dict(self) -> dict:
        return {
            "parameters": self.parameters, "moments": self.moments, "mean_return": self.mean_return,
            "collector": self.collector.state_dict(), "rng": self.rng.get_state(), "predict_rng": self.acting.rng.get_state(),
            "auxiliary": self.auxiliary.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: dict) -> None:
        self.parameters.copy_(state["parameters"])
        for part, moments in self.moments.items():
            load_state(moments, state["moments"][part])
        self.mean_return = state["mean_return"]
        self.collector.load_state_dict(state["collector"])
        self.auxiliary.load_state_dict(state.get("auxiliary"))
        self.rng.set_state(state["rng"])
        self.acting.rng.set_state(state["predict_rng"])
