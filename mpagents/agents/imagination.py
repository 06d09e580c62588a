"""Learning in imagination: a world model is learned from few real steps, and an agent inside trains in its dreams.

    repeat:  real steps by the policy → experience;  world model ← experience;  policy ← dreams from every visited state

The world is an ensemble of Gaussian networks over vectors, another world model of `generative` over vectors or frames (the
policy then sees the model's features, also when it acts), or, of a finite MDP, the counts of what followed. The agent inside
is an actor-critic by default, in its clipped form with several epochs over each batch of dreams: its advantages are those of
λ-returns on the imagined rollouts, with the value of the last state where a dream is cut. Plain A2C oscillates in the dream and
in the real environment. With `inner: dqn` the inner agent is Deep Q-learning, on imagined transitions alone.

Sutton 1990 (Dyna), Janner et al. 2019 (arXiv:1906.08253: short branches from real states), Hafner et al. 2020
(arXiv:1912.01603: λ-returns in the latent space); notes §10. Steps are real ones; `dream/…` are of dreams. `dream/gap` compares
the stochastic policy's mean return in dreams from first states, uncut, with the real returns since it was last logged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.spaces import Discrete

from mpagents.agents import agent_class
from mpagents.agents.agent import Metrics, Spaces
from mpagents.configuration import NonNegative, NonNegativeInt, Positive, PositiveInt, validate
from mpagents.deep.collection import Collector
from mpagents.deep.observations import ObservationCodec
from mpagents.dream import array_spec
from mpagents.seeding import derive
from mpagents.torch_env import TorchVectorEnv
from mpagents.worlds import CountedWorld, LearnedWorld, Learning, model_config

INNER: dict[str, dict[str, Any]] = {  # settings of the agent inside that differ from its own defaults
    "actor_critic": {"epochs": 4, "minibatches": 4, "learning_rate": 1e-3, "entropy_coefficient": 0.001},
    "dqn": {"train_every": 64, "learning_starts": 1_000, "target_every": 25_000, "batch_size": 256},
}
JUDGED = 16  # dreams whose mean return is logged


class Imagination:
    """Any environment of vectors or frames with Discrete or Box actions, and finite ones, through a learned model."""

    @dataclass(frozen=True)
    class Config:
        model: str = "auto"  # auto: ensemble_dynamics of vectors, world_model of frames, counts of a finite MDP
        settings: dict[str, Any] = field(default_factory=dict)  # the world model's, e.g. {num_members: 5}
        inner: Literal["actor_critic", "dqn"] = "actor_critic"  # the agent that learns in dreams
        inner_settings: dict[str, Any] = field(default_factory=dict)  # of it, e.g. {hidden_sizes: [64, 64]}
        num_envs: PositiveInt = 1  # real ones
        collect_steps: PositiveInt = 250  # real steps between two times of learning
        updates: NonNegativeInt = 200  # of the world model, each time; 0: it is never fitted (a control)
        batch_size: PositiveInt = 32  # sequences of an update
        length: PositiveInt = 16  # rows of a sequence
        learning_rate: Positive = 1e-3  # of the world model, by Adam
        max_grad_norm: Positive = 100.0  # of the world model
        num_rows: PositiveInt = 100_000  # real rows that are kept
        dreams: PositiveInt = 256  # at once
        horizon: PositiveInt = 50  # steps after which a dream is cut
        rollouts: PositiveInt = 6  # each time: so many times all dreams are dreamt to the horizon
        temperature: NonNegative = 1.0  # of what is drawn in dreams
        ends: Literal["threshold", "draw"] = "threshold"  # of a dream, by the probability that it ends
        judged_steps: PositiveInt = 500  # to which the dreams are followed whose return is logged
        device: Literal["cpu"] = "cpu"
        log_every: PositiveInt = 1_000  # environment steps

    @classmethod
    def check(cls, config: Config, spaces: Spaces) -> None:
        if _is_finite(config, spaces):
            if not isinstance(spaces.action, Discrete):
                raise ValueError(f"action space is {spaces.action}; expected Discrete where observations are Discrete")
        else:
            model_config(_model(config, spaces), config.settings, spaces.observation, spaces.action)
        inner = agent_class(config.inner)
        inner.check(_inner_config(config), spaces)  # type: ignore[attr-defined]

    def __init__(self, config: Config, spaces: Spaces, *, seed: int, encoder: Any = None, device: str = "cpu") -> None:
        self.config, self.spaces = config, spaces
        self.world: Any = _world(config, spaces, seed)
        self.recurrent = not self.world.markov
        inner_spaces = Spaces(self.world.observation_space, spaces.action, spaces.discount)
        cls: Any = agent_class(config.inner)
        self.inner = cls(_inner_config(config), inner_spaces, seed=derive(seed, "inner"))
        self.outside = cls(_inner_config(config), inner_spaces, seed=derive(seed, "outside"))  # draws what isn't training
        self.collector = Collector(ObservationCodec(spaces.observation), derive(seed, "environment"))
        self.seen: tuple[torch.Tensor, ...] = ()  # what of the real world is kept in mind
        self.dreamt = 0  # imagined steps
        self.metrics: dict[str, Any] = {}  # of the last time of learning

    def train(self, env: Any, num_steps: int) -> Iterator[tuple[int, Metrics]]:
        config, collector = self.config, self.collector
        if collector.num_steps >= num_steps:
            return
        collector.attach(env)
        real: list[float] = []  # returns of the episodes that ended since the last yield
        while (before := collector.num_steps) < num_steps:
            real += self._collect(min(config.collect_steps, num_steps - before))
            steps = collector.num_steps
            if config.updates:
                told = self.world.fit(steps)
                self.metrics |= {f"model/{name}": value for name, value in told.items()}
            logs = steps // config.log_every > before // config.log_every or steps >= num_steps
            if logs:
                judged, real = self._judge(real), []
            self._imagine(-(-num_steps // config.collect_steps))
            if logs:
                yield steps, collector.metrics() | self.metrics | judged

    def _collect(self, num_steps: int) -> list[float]:
        """Take real steps by the policy; the returns of the episodes that ended."""
        collector, (name,) = self.collector, self.collector.codec.leaves
        until, episodes = collector.num_steps + num_steps, collector.num_episodes
        while collector.num_steps < until:
            x, first = collector.obs[name], collector.first
            features, state = self.world.see(x, self.seen, first)
            action, _ = self.inner.predict(features, action_masks=collector.action_mask)
            transition = collector.step(action)
            self.seen = self.world.remember(state, action)
            self.world.add(x, first, action, transition, transition.next_obs[name])
        return list(collector.returns)[-(collector.num_episodes - episodes) :] if collector.num_episodes > episodes else []

    def _imagine(self, times: int) -> None:
        """Train the agent inside in dreams; its schedules run over all of the `times` that it will."""
        config = self.config
        steps = config.rollouts * config.dreams * config.horizon
        until = self.dreamt + steps
        env = TorchVectorEnv(self.world.dream(), config.dreams)
        for step, metrics in self.inner.train(env, max(until, times * steps)):
            self.dreamt = step
            self.metrics |= {_renamed(key): value for key, value in metrics.items()}
            if step >= until:
                break

    def _judge(self, real: list[float]) -> dict[str, float]:
        """Mean return of the policy in dreams from first states, and its lead over the real ones since it was last told."""
        env = TorchVectorEnv(self.world.dream(horizon=self.config.judged_steps, afresh=True), JUDGED)
        observation, _ = env.reset(seed=self.collector.num_steps)
        returns, alive = np.zeros(JUDGED), np.ones(JUDGED, np.bool_)
        while alive.any():
            action, _ = self._policy().predict(observation)
            observation, reward, terminated, truncated, _ = env.step(action)
            returns += reward * alive
            alive &= ~(terminated | truncated)
        found = {"dream/return": float(returns.mean())}
        if real:
            found |= {"dream/real_return": float(np.mean(real)), "dream/gap": float(returns.mean() - np.mean(real))}
        return found

    def _policy(self) -> Any:
        """The policy as it is now, with noise of its own, so that nothing outside of training shifts what training draws."""
        self.outside.parameters.copy_(self.inner.parameters)
        if getattr(self.inner, "scale", None) is not None:  # of observations
            self.outside.scale.load_state_dict(self.inner.scale.state_dict())
        if hasattr(self.inner, "epsilon"):
            self.outside.epsilon = self.inner.epsilon
        return self.outside

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:  # fmt: skip
        """(actions [n, …], state): of a model with memory its state and the action, else as it was given."""
        (x,) = self.collector.codec.store(observation).values()
        first = np.zeros(len(x), np.bool_) if episode_start is None else np.array(episode_start, np.bool_)
        before = tuple(torch.tensor(part) for part in state or ()) if self.recurrent else ()
        features, seen = self.world.see(x, before, first)
        action, _ = self._policy().predict(features, deterministic=deterministic, action_masks=action_masks)
        if not self.recurrent:
            return action, state
        return action, tuple(part.numpy() for part in self.world.remember(seen, action))

    def state_dict(self) -> dict:
        return {
            "world": self.world.state_dict(), "inner": self.inner.state_dict(),
            "predict_rng": self.outside.state_dict()["predict_rng"],
            "collector": self.collector.state_dict(), "seen": list(self.seen), "dreamt": self.dreamt,
            "metrics": {key: float(value) for key, value in self.metrics.items()},
        }  # fmt: skip

    def load_state_dict(self, state: dict) -> None:
        self.world.load_state_dict(state["world"])
        self.inner.load_state_dict(state["inner"])
        self.outside.load_state_dict(self.outside.state_dict() | {"predict_rng": state["predict_rng"]})
        self.collector.load_state_dict(state["collector"])
        self.seen, self.dreamt, self.metrics = tuple(state["seen"]), state["dreamt"], dict(state["metrics"])


def _is_finite(config: Imagination.Config, spaces: Spaces) -> bool:
    return config.model == "auto" and isinstance(spaces.observation, Discrete)


def _model(config: Imagination.Config, spaces: Spaces) -> str:
    """The world model's name."""
    if config.model != "auto":
        return config.model
    return "ensemble_dynamics" if array_spec(spaces.observation).frame is None else "world_model"


def _inner_config(config: Imagination.Config) -> Any:
    """The configuration of the agent inside; a rollout of an actor-critic is a whole dream."""
    cls: Any = agent_class(config.inner)
    told = {"num_envs": config.dreams, "log_every": config.dreams, "compile": False}
    if config.inner == "actor_critic":
        told["rollout_steps"] = config.horizon
    return validate(cls.Config, INNER[config.inner] | told | config.inner_settings, ("inner_settings",))


def _world(config: Imagination.Config, spaces: Spaces, seed: int) -> Any:
    if _is_finite(config, spaces):
        return CountedWorld(config.horizon, spaces)
    learning = Learning(
        config.updates, config.batch_size, config.length, config.learning_rate, config.max_grad_norm, config.num_rows,
        num_starts=16 * config.dreams,
    )  # fmt: skip
    dreams = {"horizon": config.horizon, "temperature": config.temperature, "ends": config.ends}
    return LearnedWorld(_model(config, spaces), config.settings, learning, dreams, spaces, seed)


def _renamed(key: str) -> str:
    """rollout/… of dreams is dream/…; what was learned in them stays train/…."""
    return key.replace("rollout/", "dream/")
