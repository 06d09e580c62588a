"""How the agent `imagination` finds a policy in the world that it learned: an agent trains in dreams, or counts are solved.

`Learner`: an agent of the registry trains in dreams as in any vector environment; a DQN's replay may hold real transitions too.

`Solver`: a planner of the registry solves the counted MDP exactly, twice. The policy that is told is the one for the counts as
they are. The policy that acts is the one for an MDP drawn from what the counts leave open (`mpagents.tabular.posterior`): would
it follow the counts too, a pair that ended badly once or twice would never be tried again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mpagents.agents import agent_class
from mpagents.agents.agent import Spaces
from mpagents.configuration import validate
from mpagents.deep.collection import Stored, Transition
from mpagents.deep.mixed_replay import MixedReplay
from mpagents.deep.observations import ObservationCodec
from mpagents.deep.replay import Replay
from mpagents.seeding import derive, generator, generator_state, restore_generator
from mpagents.torch_env import TorchVectorEnv

DEFAULTS: dict[str, dict[str, Any]] = {  # settings of an agent inside that differ from its own defaults
    "actor_critic": {"epochs": 4, "minibatches": 4, "learning_rate": 1e-3, "entropy_coefficient": 0.001},
    "dqn": {"train_every": 64, "learning_starts": 1_000, "target_every": 25_000, "batch_size": 256},
}


class Learner:
    """An agent that trains in `dreams` at once for `steps` imagined ones each time."""

    def __init__(self, cls: Any, config: Any, spaces: Spaces, seed: int, dreams: int, steps: int) -> None:
        self.inner = cls(config, spaces, seed=derive(seed, "inner"))
        self.outside = cls(config, spaces, seed=derive(seed, "outside"))  # draws what isn't training
        self.dreams, self.steps = dreams, steps
        self.dreamt = 0  # imagined steps
        self.mixed: MixedReplay | None = None

    def mix(self, replay: Any, share: float, see: Any) -> None:
        """From now on learn from real transitions too: a `share` of each batch, from `replay`, as the world sees them."""
        self.inner.replay = self.mixed = MixedReplay(self.inner.replay, replay, share, see)

    def note(self, obs: Stored, action: np.ndarray, transition: Transition, first: np.ndarray) -> None:
        """A real step."""
        if self.mixed is not None:
            self.mixed.real.add(obs, action - self.inner.first_action, transition._replace(next_mask=None), first)

    def act(self, features: np.ndarray, masks: Any) -> np.ndarray:
        """Actions [n, …] that explore, for the real environment."""
        return self.inner.predict(features, action_masks=masks)[0]

    def rehearse(self, features: np.ndarray) -> np.ndarray:
        """The same policy with noise of its own."""
        return self.predict(features, False, None)

    def predict(self, features: np.ndarray, deterministic: bool, masks: Any) -> np.ndarray:
        """Actions [n, …] of what was learned; nothing outside of training shifts what training draws."""
        outside, inner = self.outside, self.inner
        outside.parameters.copy_(inner.parameters)
        if getattr(inner, "scale", None) is not None:  # of observations
            outside.scale.load_state_dict(inner.scale.state_dict())
        if hasattr(inner.acting, "epsilon"):
            outside.acting.epsilon = inner.acting.epsilon
        return outside.predict(features, deterministic=deterministic, action_masks=masks)[0]

    def improve(self, world: Any, times: int) -> dict[str, Any]:
        """Train in dreams; schedules run over all of the `times` that this will be done. What was told last."""
        told: dict[str, Any] = {}
        until = self.dreamt + self.steps
        env = TorchVectorEnv(world.dream(), self.dreams)
        for step, metrics in self.inner.train(env, max(until, times * self.steps)):
            self.dreamt = step
            told |= {key.replace("rollout/", "dream/"): value for key, value in metrics.items()}
            if step >= until:
                break
        return told

    def state_dict(self) -> dict:
        rng = self.outside.state_dict()["predict_rng"]
        return {"inner": self.inner.state_dict(), "predict_rng": rng, "dreamt": self.dreamt}

    def load_state_dict(self, state: dict) -> None:
        self.inner.load_state_dict(state["inner"])
        self.outside.load_state_dict(self.outside.state_dict() | {"predict_rng": state["predict_rng"]})
        self.dreamt = state["dreamt"]


class Solver:
    """A planner on the counts, and another on what may be."""

    def __init__(self, cls: Any, config: Any, spaces: Spaces, seed: int, world: Any) -> None:
        counted = replace(spaces, mdp=world.mdp())
        self.explorer = cls(config, counted, seed=derive(seed, "inner"))
        self.planner = cls(config, counted, seed=derive(seed, "outside"))
        self.rng = generator(seed, "drawn world")

    def note(self, obs: Stored, action: np.ndarray, transition: Transition, first: np.ndarray) -> None:
        """A real step: the world counts it."""

    def act(self, features: np.ndarray, masks: Any) -> np.ndarray:
        return self.explorer.predict(features, action_masks=masks)[0]

    def rehearse(self, features: np.ndarray) -> np.ndarray:
        return self.explorer.predict(features)[0]

    def predict(self, features: np.ndarray, deterministic: bool, masks: Any) -> np.ndarray:
        return self.planner.predict(features, deterministic=deterministic, action_masks=masks)[0]

    def improve(self, world: Any, times: int) -> dict[str, Any]:
        """Solve the counts anew; what the planner told last."""
        told: dict[str, Any] = {}
        for planner, mdp in ((self.explorer, world.drawn_mdp(self.rng)), (self.planner, world.mdp())):
            planner.mdp, planner.num_sweeps = mdp, 0
            for _, metrics in planner.train(None, 0):
                told = dict(metrics)
        return told

    def state_dict(self) -> dict:
        planners = {"explorer": self.explorer.state_dict(), "planner": self.planner.state_dict()}
        return planners | {"rng": generator_state(self.rng)}

    def load_state_dict(self, state: dict) -> None:
        self.explorer.load_state_dict(state["explorer"])
        self.planner.load_state_dict(state["planner"])
        restore_generator(self.rng, state["rng"])


def check_inner(name: str, config: Any, spaces: Spaces, *, finite: bool, markov: bool) -> None:
    """Raise ValueError where the agent `name` can't be inside of `imagination` with this configuration in such a world."""
    cls, settings = agent_class(name), _settings(name, config)
    if not _plans(name):
        cls.check(settings, spaces)  # type: ignore[attr-defined]
    elif not finite:
        raise ValueError(f"inner is {name!r}, which solves counts of Discrete observations; use actor_critic or dqn here")
    elif spaces.discount >= 1.0:
        raise ValueError(
            f"inner is {name!r} at discount 1, where the best for ever is worth infinitely much; expected a discount below 1 "
            "(or use inner: actor_critic)"
        )
    if getattr(settings, "recurrent", False):
        raise ValueError(
            f"inner_settings.recurrent is {settings.recurrent}; expected false: the agent inside is given what the world model "
            "remembers, and keeps no state of its own in the real environment (model: world_model has a memory)"
        )
    if config.real_share and (name != "dqn" or settings.prioritised):
        raise ValueError(f"real_share is {config.real_share} with inner {name!r}; expected dqn, and not prioritised")
    if config.real_share and not markov:
        raise ValueError(
            f"real_share is {config.real_share} with a world model that has a memory, of which no transition tells; expected "
            "model: ensemble_dynamics"
        )


def dreamer(name: str, config: Any, spaces: Spaces, world: Any, seed: int) -> Learner | Solver:
    """The agent `name` in this world, by the configuration of `imagination`."""
    cls, settings = agent_class(name), _settings(name, config)
    if _plans(name):
        return Solver(cls, settings, spaces, seed, world)
    inside = Spaces(world.observation_space, spaces.action, spaces.discount)
    learner = Learner(cls, settings, inside, seed, config.dreams, config.rollouts * config.dreams * config.horizon)
    if config.real_share:
        codec = ObservationCodec(spaces.observation)
        real = Replay(codec, config.num_rows, spaces.discount, settings.n_step, frame_stack=False)
        learner.mix(real, config.real_share, lambda x: world.see(x, (), np.zeros(len(x), np.bool_))[0])
    return learner


def _plans(name: str) -> bool:
    return getattr(agent_class(name), "planner", False)


def _settings(name: str, config: Any) -> Any:
    """The configuration of the agent inside; a rollout of an actor-critic is a whole dream."""
    cls: Any = agent_class(name)
    told: dict[str, Any] = {}
    if not _plans(name):
        told = DEFAULTS[name] | {"num_envs": config.dreams, "log_every": config.dreams, "compile": False}
    if name == "actor_critic":
        told["rollout_steps"] = config.horizon
    return validate(cls.Config, told | config.inner_settings, ("inner_settings",))
