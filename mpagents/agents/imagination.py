"""Learning in imagination: a world model is learned from few real steps, and an agent inside trains in its dreams.

    repeat:  real steps by the policy → experience;  world model ← experience;  policy ← dreams from every visited state

The world is an ensemble of Gaussian networks over vectors, another world model of `generative` over vectors or frames (the
policy then sees the model's features, also when it acts), or, of a finite MDP, the counts of what followed. The agent inside
is an actor-critic by default, in its clipped form with several epochs over each batch of dreams: its advantages are those of
λ-returns on the imagined rollouts, with the value of the last state where a dream is cut. Plain A2C oscillates in the dream and
in the real environment. With `inner: dqn` the inner agent is Deep Q-learning, on imagined transitions, or (`real_share`) on
imagined and real ones mixed. Counts are solved exactly by a planner, value iteration by default (`mpagents.dreamers`).

Sutton 1990 (Dyna), Janner et al. 2019 (arXiv:1906.08253: short branches from real states), Hafner et al. 2020
(arXiv:1912.01603: λ-returns in the latent space); notes §10. Steps are real ones; `dream/…` are of dreams. `dream/gap` compares
the acting policy's mean return in dreams from first states, as long as real ones, with real returns since it was last logged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.spaces import Discrete

from mpagents.agents.agent import Metrics, Spaces
from mpagents.configuration import NonNegative, NonNegativeInt, Positive, PositiveInt, UnitInterval
from mpagents.deep.collection import Collector
from mpagents.deep.observations import ObservationCodec
from mpagents.dream import array_spec
from mpagents.dreamers import Solver, check_inner, dreamer
from mpagents.seeding import derive
from mpagents.torch_env import TorchVectorEnv
from mpagents.worlds import CountedWorld, LearnedWorld, Learning, is_markov, model_config

Inner = Literal["auto", "actor_critic", "dqn", "value_iteration", "policy_iteration", "modified_policy_iteration"]
JUDGED = 16  # dreams whose mean return is logged


class Imagination:
    """Any environment of vectors or frames with Discrete or Box actions, and finite ones, through a learned model."""

    @dataclass(frozen=True)
    class Config:
        model: str = "auto"  # auto: ensemble_dynamics of vectors, world_model of frames, counts of a finite MDP
        settings: dict[str, Any] = field(default_factory=dict)  # the world model's, e.g. {num_members: 5}
        inner: Inner = "auto"  # the agent that finds the policy; auto: value_iteration in counts, else actor_critic
        inner_settings: dict[str, Any] = field(default_factory=dict)  # of it, e.g. {hidden_sizes: [64, 64]}
        real_share: UnitInterval = 0.0  # of the transitions that a dqn inside learns from: real ones, the others are imagined
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
        finite = _is_finite(config, spaces)
        if not finite:
            made = model_config(_model(config, spaces), config.settings, spaces.observation, spaces.action)
            least = 1 + getattr(made, "past", 1)
            if config.length < least:
                raise ValueError(
                    f"length is {config.length}; expected at least {least} rows: what led to a state, and the state"
                )
        elif not isinstance(spaces.action, Discrete):
            raise ValueError(f"action space is {spaces.action}; expected Discrete where observations are Discrete")
        elif spaces.observation.start or spaces.action.start:  # type: ignore[attr-defined]
            raise ValueError(f"spaces are {spaces.observation} and {spaces.action}; counts need numbers from 0 (no `start`)")
        markov = finite or is_markov(_model(config, spaces))
        check_inner(_inner(config, spaces), config, spaces, finite=finite, markov=markov)

    def __init__(self, config: Config, spaces: Spaces, *, seed: int, encoder: Any = None, device: str = "cpu") -> None:
        self.config, self.spaces = config, spaces
        self.world: Any = _world(config, spaces, seed)
        self.recurrent = self.remembers_actions = not self.world.markov
        self.dreamer = dreamer(_inner(config, spaces), config, spaces, self.world, seed)
        if isinstance(self.dreamer, Solver):
            self.action_probabilities = self.dreamer.planner.action_probabilities
        self.collector = Collector(ObservationCodec(spaces.observation), derive(seed, "environment"))
        self.seen: tuple[torch.Tensor, ...] = ()  # what of the real world is kept in mind
        self.metrics: dict[str, Any] = {}  # of the last time of learning
        self.limit: int | None = None  # of steps in a real episode

    def train(self, env: Any, num_steps: int) -> Iterator[tuple[int, Metrics]]:
        config, collector = self.config, self.collector
        if collector.num_steps >= num_steps:
            return
        collector.attach(env)
        self.limit = getattr(env.spec, "max_episode_steps", None)
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
            self.metrics |= self.dreamer.improve(self.world, -(-num_steps // config.collect_steps))
            if logs:
                yield steps, collector.metrics() | self.metrics | judged

    def _collect(self, num_steps: int) -> list[float]:
        """Take real steps by the policy; the returns of the episodes that ended."""
        collector, (name,) = self.collector, self.collector.codec.leaves
        until, episodes = collector.num_steps + num_steps, collector.num_episodes
        while collector.num_steps < until:
            obs, first = collector.obs, collector.first
            features, state = self.world.see(x := obs[name], self.seen, first)
            action = self.dreamer.act(features, collector.action_mask)
            transition = collector.step(action)
            self.seen = self.world.remember(state, action)
            self.world.add(x, first, action, transition, transition.next_obs[name])
            self.dreamer.note(obs, action, transition, first)
        return list(collector.returns)[-(collector.num_episodes - episodes) :] if collector.num_episodes > episodes else []

    def _judge(self, real: list[float]) -> dict[str, float]:
        """Mean return of the policy in dreams from first states, and its lead over the real ones since it was last told."""
        if not self.world.knows_beginnings():  # episodes longer than what is kept
            return {}
        horizon = min(self.config.judged_steps, self.limit or self.config.judged_steps)
        env = TorchVectorEnv(self.world.dream(horizon=horizon, afresh=True), JUDGED)
        observation, _ = env.reset(seed=self.collector.num_steps)
        returns, alive = np.zeros(JUDGED), np.ones(JUDGED, np.bool_)
        while alive.any():
            observation, reward, terminated, truncated, _ = env.step(self.dreamer.rehearse(observation))
            returns += reward * alive
            alive &= ~(terminated | truncated)
        found = {"dream/return": float(returns.mean())}
        if real:
            found |= {"dream/real_return": float(np.mean(real)), "dream/gap": float(returns.mean() - np.mean(real))}
        return found

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:  # fmt: skip
        """(actions [n, …], state): of a model with memory its state and the action, else as it was given."""
        (x,) = self.collector.codec.store(observation).values()
        first = np.zeros(len(x), np.bool_) if episode_start is None else np.array(episode_start, np.bool_)
        before = tuple(torch.tensor(part) for part in state or ()) if self.recurrent else ()
        features, seen = self.world.see(x, before, first)
        action = self.dreamer.predict(features, deterministic, action_masks)
        if not self.recurrent:
            return action, state
        return action, tuple(part.numpy() for part in self.world.remember(seen, action))

    def state_dict(self) -> dict:
        return {
            "world": self.world.state_dict(), "dreamer": self.dreamer.state_dict(),
            "collector": self.collector.state_dict(), "seen": list(self.seen),
            "metrics": {key: float(value) for key, value in self.metrics.items()},
        }  # fmt: skip

    def load_state_dict(self, state: dict) -> None:
        self.world.load_state_dict(state["world"])
        self.dreamer.load_state_dict(state["dreamer"])
        self.collector.load_state_dict(state["collector"])
        self.seen, self.metrics = tuple(state["seen"]), dict(state["metrics"])


def _is_finite(config: Imagination.Config, spaces: Spaces) -> bool:
    return config.model == "auto" and isinstance(spaces.observation, Discrete)


def _model(config: Imagination.Config, spaces: Spaces) -> str:
    """The world model's name."""
    if config.model != "auto":
        return config.model
    return "ensemble_dynamics" if array_spec(spaces.observation).frame is None else "world_model"


def _inner(config: Imagination.Config, spaces: Spaces) -> str:
    """The name of the agent inside."""
    if config.inner != "auto":
        return config.inner
    return "value_iteration" if _is_finite(config, spaces) else "actor_critic"


def _world(config: Imagination.Config, spaces: Spaces, seed: int) -> Any:
    if _is_finite(config, spaces):
        return CountedWorld(config.horizon, spaces, temperature=config.temperature, learns=config.updates > 0)
    learning = Learning(
        config.updates, config.batch_size, config.length, config.learning_rate, config.max_grad_norm, config.num_rows,
        num_starts=16 * config.dreams,
    )  # fmt: skip
    dreams = {"horizon": config.horizon, "temperature": config.temperature, "ends": config.ends}
    return LearnedWorld(_model(config, spaces), config.settings, learning, dreams, spaces, seed)
