"""Deep Q-learning (Mnih et al. 2015, Alg. 1; 2013, arXiv:1312.5602; notes §10.3) with the parts of Rainbow that are asked for.

    act:     a = argmax_a Q_θ(s, a), or with probability ε any a;  store (s, a, r, s′)
    target:  y = Σ_{k<n} γᵏ r_k + γⁿ Q_θ̄(s_n, argmax_a Q_θ(s_n, a))            `double`; else max_a Q_θ̄(s_n, a)
    update:  descend  mean_i w_i ℓ(y_i − Q_θ(s_i, a_i))  over a batch of the replay, ℓ Huber's or half the square
    θ̄ ← θ every `target_every` steps, or θ̄ ← (1 − τ) θ̄ + τ θ after each update (`tau`; Lillicrap et al. 2016)

`double`: van Hasselt et al. 2016; `dueling`: Wang et al. 2016; `prioritised`: Schaul et al. 2016; `n_step`: Sutton & Barto
2018, §7.1, uncorrected for exploration as in Rainbow (Hessel et al. 2018, arXiv:1710.02298).

An `encoder` that learns (mpagents.encoders) is part of the network; in mode joint its own loss is added (deep/auxiliary.py).
Only termination stops the bootstrap. All counts are environment steps, whatever num_envs is. Until `learning_starts`
actions are random. An update and the values that the next actions are chosen by are one graph where `compile` says so.
Deviations: the notes take the greedy action of the target network, which is `double: false`; Adam, not RMSprop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.spaces import Discrete
from torch import Tensor

from mpagents.agents.agent import Metrics, Spaces
from mpagents.configuration import NonNegative, NonNegativeInt, Positive, PositiveInt, UnitInterval
from mpagents.deep import optimisers, targets
from mpagents.deep.acting import require_finite
from mpagents.deep.auxiliary import Auxiliary
from mpagents.deep.collection import Collector
from mpagents.deep.compiling import Compile, graph, resolve
from mpagents.deep.exploration import epsilon_greedy
from mpagents.deep.flat_parameters import FlatParameters
from mpagents.deep.observations import ObservationCodec, check_observation
from mpagents.deep.prioritised import Priorities
from mpagents.deep.q_network import QNetwork
from mpagents.deep.replay import Batch, Replay, leaves_of
from mpagents.deep.replay_memory import available_memory, bytes_per_slot, check_memory, check_room, stack_size
from mpagents.deep.valuing import Valuing
from mpagents.schedules import Schedule, numbers, scheduled
from mpagents.seeding import derive, generator, generator_state, restore_generator

EXPLORING = Schedule(start=1.0, end=0.05, fraction=0.1)
DECAYING = Schedule(start=2.3e-3, end=0.0)
ANNEALED = Schedule(start=0.4, end=1.0)


class DQN:
    """Deep Q-learning for Discrete actions."""

    encoder_modes = ("finetune", "joint")

    @dataclass(frozen=True)
    class Config:
        learning_rate: NonNegative | Schedule = DECAYING  # of Adam, over environment steps
        hidden_sizes: tuple[PositiveInt, ...] = (64, 64)  # units of hidden layers, after the CNN where there are frames
        activation: Literal["tanh", "relu", "silu", "gelu", "elu"] = "relu"
        num_envs: PositiveInt = 1  # copies of the environment, stepped side by side
        batch_size: PositiveInt = 64  # transitions
        replay_size: PositiveInt = 50_000  # observations
        frame_stack: bool = True  # store one frame of stacked ones [C, H, W]; false: whole observations
        learning_starts: NonNegativeInt = 1_000  # environment steps
        train_every: PositiveInt = 2  # environment steps
        updates: PositiveInt = 1  # each time
        target_every: PositiveInt = 500  # environment steps
        tau: UnitInterval | None = None  # share of θ that θ̄ takes in at each update, instead of target_every
        double: bool = True  # θ chooses the next action and θ̄ values it; false: θ̄ does both
        dueling: bool = False  # Q = V + A − mean A
        n_step: PositiveInt = 5  # rewards in a target before it bootstraps
        prioritised: bool = False  # draw transitions by their error; false: uniformly
        alpha: UnitInterval = 0.6  # of priorities: 0 is uniform
        beta: UnitInterval | Schedule = ANNEALED  # of importance weights: 1 takes all bias away
        epsilon: UnitInterval | Schedule = EXPLORING  # exploration: share of random actions
        huber: bool = True  # false: half the squared error
        max_grad_norm: Positive = 10.0  # of the gradient, which is scaled down to it
        compile: Compile = "auto"
        device: Literal["auto", "cpu", "cuda"] = "cpu"
        log_every: PositiveInt = 1_000  # environment steps

    @classmethod
    def check(cls, config: Config, spaces: Spaces) -> None:
        if not isinstance(spaces.action, Discrete):
            raise ValueError(f"action space is {spaces.action}; dqn needs Discrete ones (actor_critic takes continuous ones)")
        check_observation(spaces.observation)
        codec = ObservationCodec(spaces.observation)
        lead = max(map(stack_size, codec.leaves.values())) - 1 if config.frame_stack else 0
        check_room(config.replay_size, config.num_envs, lead, config.n_step)
        slot_bytes = bytes_per_slot(codec, config.frame_stack, int(spaces.action.n))
        check_memory(config.replay_size, slot_bytes, available_memory())

    def __init__(self, config: Config, spaces: Spaces, *, seed: int, encoder: Any = None, device: str = "cpu") -> None:
        assert isinstance(spaces.action, Discrete)
        self.config, self.spaces, self.device = config, spaces, torch.device(device)
        self.num_actions, self.first_action = int(spaces.action.n), int(spaces.action.start)
        self.codec = ObservationCodec(spaces.observation, encoder)
        start = torch.Generator().manual_seed(derive(seed, "network"))
        shape = self.codec, self.num_actions, config.hidden_sizes, config.activation, config.dueling
        self.flat = FlatParameters(QNetwork(*shape, start).to(self.device))
        self.parameters, self.target = self.flat.vector, self.flat.vector.clone()
        self.auxiliary = Auxiliary(self.flat, self.codec, seed)
        self.moments = optimisers.adam_state(self.parameters)
        self.learning_rate = torch.zeros((), device=self.device)
        priorities = Priorities(config.alpha) if config.prioritised else None
        size, stack = config.replay_size, config.frame_stack
        self.replay = Replay(self.codec, size, spaces.discount, config.n_step, frame_stack=stack, priorities=priorities)
        self.collector = Collector(self.codec, derive(seed, "environment"))
        self.rng = generator(seed, "learner")  # exploration and batches
        self.acting = Valuing(self.codec, self.flat, spaces.action, seed, self.device)
        self.action_probabilities = self.acting.action_probabilities
        self.q: np.ndarray | None = None  # [n, A], what the network tells of the observation that the collector holds
        self.sums = torch.zeros(3, device=self.device)  # of loss, mean Q and gradient norm since they were last logged
        self.compiled: bool | None = None  # resolved when training begins, and kept

    def loss(self, parameters: Tensor, target: Tensor, batch: Batch) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(mean weighted loss, (TD errors [B], mean Q)) of a batch of the replay."""
        mask, next_obs = batch.get("next_mask"), leaves_of(batch, "next_obs.")
        with torch.no_grad():
            target_q = self.flat(target, next_obs)
            if self.config.double:
                next_value = targets.double_value(self.flat(parameters, next_obs), target_q, mask)
            else:
                next_value = targets.max_value(target_q, mask)
            y = targets.td_target(batch["reward"], batch["discount"], next_value)
        q = targets.value_of(self.flat(parameters, leaves_of(batch, "obs.")), batch["action"])
        losses = targets.huber(y - q) if self.config.huber else targets.half_square(y - q)
        loss = (losses * batch["weight"]).mean() if "weight" in batch else losses.mean()
        if self.auxiliary.active:
            loss = loss + self.auxiliary(parameters, leaves_of(batch, "obs."))
        return loss, ((y - q).detach(), q.detach().mean())

    def update(
        self, parameters: Tensor, target: Tensor, moments: optimisers.State, learning_rate: Tensor, sums: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """One gradient step in place on all that isn't the batch; (TD errors [B], Q [n, A] of what is observed now)."""
        loss, (error, q), gradient = optimisers.value_and_gradient(self.loss, parameters, target, batch)
        clipped, norm = optimisers.clip_by_norm(gradient, self.config.max_grad_norm)
        optimisers.adam(parameters, clipped, moments, learning_rate)
        if self.config.tau is not None:
            target.lerp_(parameters, self.config.tau)
        sums.add_(torch.stack([loss, q, norm]))
        return error, self.flat(parameters, leaves_of(batch, "now."))

    def learn(self, num_steps: int) -> None:
        """One update from a batch of the replay; leaves the values of the current observation in `q`."""
        config, priorities = self.config, self.replay.priorities
        if priorities is None:
            slot, extra = self.replay.draw(config.batch_size, self.rng), {}
        else:
            beta = scheduled.py_func(numbers(config.beta, num_steps), self.collector.num_steps)
            slot, weight = priorities.draw(config.batch_size, beta, self.rng)
            extra = {"weight": torch.from_numpy(weight)}
        now = {"now." + name: torch.from_numpy(leaf) for name, leaf in self.collector.obs.items()}
        batch = self.replay.gather(slot) | extra | now
        if self.device.type != "cpu":
            batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        error, q = self._update(self.parameters, self.target, self.moments, self.learning_rate, self.sums, batch)
        self.q = q.cpu().numpy()
        if priorities is not None:
            priorities.update(slot, error.cpu().numpy())

    def act(self) -> np.ndarray:
        """ε-greedy actions [n], a draw for each environment; random ones until learning starts."""
        collector = self.collector
        noise = self.rng.random((2, len(collector.first)))
        epsilon = 1.0 if collector.num_steps < self.config.learning_starts else self.acting.epsilon
        if self.q is None and (noise[0] >= epsilon).any():
            self.q = self._values(self.parameters, self.acting.tensors(collector.obs)).cpu().numpy()
        return epsilon_greedy(self.q, epsilon, noise, self.num_actions, collector.action_mask)

    def train(self, env: Any, num_steps: int) -> Iterator[tuple[int, Metrics]]:
        config, collector = self.config, self.collector
        if collector.num_steps >= num_steps:
            return
        self._prepare(env, num_steps)
        epsilon, learning_rate = numbers(config.epsilon, num_steps), numbers(config.learning_rate, num_steps)
        updates = 0
        while collector.num_steps < num_steps:
            before, obs, first, mask = collector.num_steps, collector.obs, collector.first, collector.action_mask
            self.acting.epsilon = scheduled.py_func(epsilon, before)
            action = self.act()
            transition = collector.step(action + self.first_action)
            self.replay.add(obs, action, transition, first, mask)
            self.q, steps = None, collector.num_steps
            if steps > config.learning_starts:
                self.learning_rate.fill_(scheduled.py_func(learning_rate, steps))
                due = (steps // config.train_every - before // config.train_every) * config.updates
                for _ in range(due):
                    self.learn(num_steps)
                updates += due
                if config.tau is None and steps // config.target_every > before // config.target_every:
                    self.target.copy_(self.parameters)
            if steps // config.log_every > before // config.log_every or steps >= num_steps:
                yield steps, self._metrics(updates)
                updates = 0

    def _prepare(self, env: Any, num_steps: int) -> None:
        config, seen = self.config, self.collector.obs
        self.collector.attach(env)
        self.q = self.q if self.collector.obs is seen else None  # None: the environment was reset
        if self.compiled is None:
            plain = self.codec.encoder is None  # generative models look at their data as they go
            self.compiled = plain and resolve(config.compile, num_steps // config.train_every * config.updates)
        use = self.compiled
        computed = asdict(replace(config, learning_rate=0.0, epsilon=0.0, beta=0.0, log_every=1))  # what a graph depends on
        key = str(self.spaces.observation), self.num_actions, str(computed)
        self._update, self._values = graph(self.update, ("dqn update", *key), use), graph(self.flat, ("dqn act", *key), use)

    def _metrics(self, updates: int) -> dict[str, Any]:
        """What is logged; the means since it last was."""
        metrics = self.collector.metrics() | {"rollout/exploration_rate": self.acting.epsilon}
        if updates:
            loss, q, norm = self.sums / updates
            self.sums.zero_()
            require_finite(loss, self.collector.num_steps)
            metrics |= {"train/loss": loss, "train/q_mean": q, "train/gradient_norm": norm} | self.auxiliary.metrics()
            metrics["train/learning_rate"] = self.learning_rate.item()
        return metrics

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:  # fmt: skip
        return self.acting.predict(observation, state, episode_start, deterministic, action_masks)

    def state_dict(self) -> dict:
        return {
            "parameters": self.parameters, "target": self.target, "moments": self.moments, "replay": self.replay.state_dict(),
            "collector": self.collector.state_dict(), "rng": generator_state(self.rng), "q": self.q,
            "epsilon": self.acting.epsilon, "predict_rng": generator_state(self.acting.rng), "compiled": self.compiled,
            "auxiliary": self.auxiliary.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: dict) -> None:
        self.parameters.copy_(state["parameters"])
        self.target.copy_(state["target"])
        optimisers.load_state(self.moments, state["moments"])
        self.replay.load_state_dict(state["replay"])
        self.auxiliary.load_state_dict(state.get("auxiliary"))
        self.collector.load_state_dict(state["collector"])
        self.acting.epsilon, self.q, self.compiled = state["epsilon"], state["q"], state["compiled"]
        restore_generator(self.rng, state["rng"])
        restore_generator(self.acting.rng, state["predict_rng"])
