"""The two kinds of world that the agent `imagination` learns: a model of vectors or frames, and counts of a finite MDP.

Both take in real steps, learn from them, give the environment to dream in, and say what the policy is given for an observation.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

import generative
from generative.windows import Reading, windows
from mpagents.deep.acting import require_finite
from mpagents.deep.collection import Transition
from mpagents.dream import Dream, array_spec, encoded_action
from mpagents.experience import Experience
from mpagents.seeding import derive
from mpagents.tabular.counting import Counts, count_transition, counted_model, is_full, no_counts, widen
from mpagents.tabular.dream import FiniteDream
from mpagents.tabular.mdp import FiniteMDP
from mpagents.tabular.posterior import drawn_model

Seen = tuple[Tensor, ...]  # what of the world an agent keeps in mind: the model's state, and the action taken last


@dataclasses.dataclass(frozen=True)
class Learning:
    """How a model is fitted."""

    updates: int  # each time
    batch_size: int  # sequences
    length: int  # rows of a sequence
    learning_rate: float
    max_grad_norm: float
    num_rows: int  # of real experience that are kept
    num_starts: int  # visited states that dreams of one time start from


def model_config(model: str, settings: dict[str, Any], observation: gym.Space, action: gym.Space) -> Any:
    """The configuration of a world model for these spaces. Raises ValueError where there can be none."""
    seen, acted = array_spec(observation), array_spec(action)
    if seen.num is not None:
        raise ValueError(f"model is {model!r}, and observations are {observation}; expected vectors or frames, or model 'auto'")
    shape = seen.frame or (len(seen.low),)
    told = {"shape": shape, "in_features": shape[0], "action_size": acted.num or len(acted.low)}
    cls = generative.model_class(model)
    if not hasattr(cls, "imagine"):
        raise ValueError(f"model is {model!r}, which imagines nothing; expected a world model, such as ensemble_dynamics")
    fields = {field.name for field in dataclasses.fields(cls.Config)}
    return generative.configured(cls.Config, {key: value for key, value in told.items() if key in fields} | settings, model)


def is_markov(model: str) -> bool:
    """Whether an observation tells the whole state of this world model."""
    return getattr(generative.model_class(model), "markov", False)


class LearnedWorld:
    """A world model of `generative.world`, fitted to windows of the experience; a policy sees the model's features."""

    def __init__(
        self, model: str, settings: dict[str, Any], learning: Learning, dreams: dict[str, Any], spaces: Any, seed: int
    ) -> None:  # fmt: skip
        self.learning, self.dreams = learning, dreams
        self.action = array_spec(spaces.action)
        config = model_config(model, settings, spaces.observation, spaces.action)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "world"))
            cls: Any = generative.model_class(model)
            self.model: Any = cls(config).eval()
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter in self.trained:
            parameter.requires_grad_(False)
        self.optimiser = torch.optim.Adam(self.trained, lr=learning.learning_rate, fused=True)
        self.rng = torch.Generator().manual_seed(derive(seed, "fit"))
        self.markov = is_markov(model)
        blank = torch.from_numpy(np.zeros((1, *spaces.observation.shape), spaces.observation.dtype))
        features = self.model.features(self.model.begin(blank)).shape[1]
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (features,))
        self.experience: Experience | None = None

    def add(self, x: np.ndarray, first: np.ndarray, action: np.ndarray, step: Transition, next_x: np.ndarray) -> None:
        if self.experience is None:
            self.experience = Experience(x, action, self.learning.num_rows)
        self.experience.add(x, first, action, step, next_x)

    def fit(self, num_steps: int) -> dict[str, Tensor]:
        """The updates of one time; means of the losses. Raises FloatingPointError where one is not finite."""
        sums: dict[str, Tensor] = {}
        source = self._source()
        if hasattr(self.model, "measure"):
            self.model.measure(source.at(torch.arange(0, len(source), max(1, self.learning.length - 1))))
        self.model.train()
        for parameter in self.trained:
            parameter.requires_grad_(True)
        for _ in range(self.learning.updates):
            loss, told = self.model.loss(source.sample(self.learning.batch_size, self.rng), generator=self.rng)
            self.optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.trained, self.learning.max_grad_norm)
            self.optimiser.step()
            self.model.after_update("model")
            for name, value in {"loss": loss.detach(), **told}.items():
                sums[name] = sums.get(name, 0.0) + value / self.learning.updates
        self.model.eval()
        self.optimiser.zero_grad()
        for parameter in self.trained:
            parameter.requires_grad_(False)
        require_finite(sums["loss"], num_steps)
        return sums

    def _source(self) -> Any:
        assert self.experience is not None
        columns, runs = self.experience.rows()
        length = min(self.learning.length, int(np.diff(runs).max()))
        return windows(columns, runs, Reading(length, crossing=True, actions="led"), self.action.num)

    def dream(self, *, horizon: int | None = None, afresh: bool = False) -> Dream:
        """The world to dream in, from visited states; `afresh`: from first ones."""
        settings = self.dreams | ({} if horizon is None else {"horizon": horizon})
        starts = self._first_states() if afresh else self._visited_states()
        return Dream(self.model, starts, self.action, observes="features", **settings)

    @torch.no_grad()
    def _visited_states(self) -> tuple[Tensor, ...]:
        source = self._source()
        sequences = -(-self.learning.num_starts // source.reading.length)
        states, valid = self.model.posterior(source.sample(sequences, self.rng))
        return tuple(part[valid] for part in states)

    def knows_beginnings(self) -> bool:
        """Whether an episode's first observation is among the rows that are kept."""
        assert self.experience is not None
        columns, runs = self.experience.rows()
        return any(columns["first"][begin:end].any() for begin, end in runs)

    @torch.no_grad()
    def _first_states(self) -> tuple[Tensor, ...]:
        assert self.experience is not None
        columns, runs = self.experience.rows()
        rows = np.concatenate([np.arange(begin, end) for begin, end in runs])
        x = columns["x"][rows[columns["first"][rows]][-self.learning.num_starts :]]
        return self.model.begin(torch.from_numpy(x))

    @torch.no_grad()
    def see(self, x: np.ndarray, seen: Seen, first: np.ndarray) -> tuple[np.ndarray, Seen]:
        """(features [n, F] of an observation x [n, …], what to keep in mind); `seen` is () before the first one."""
        now = torch.from_numpy(x)
        if self.markov or not seen:
            state = self.model.begin(now)
        else:
            state = self.model.filter(seen[:-1], seen[-1], now, torch.from_numpy(first))
        return self.model.features(state).numpy(), () if self.markov else state

    def remember(self, state: Seen, action: np.ndarray) -> Seen:
        """What to keep in mind after `action` [n, …]."""
        return (*state, encoded_action(torch.from_numpy(action), self.action.num)) if state else ()

    def state_dict(self) -> dict:
        state = self.optimiser.state_dict()["state"]
        return {
            "model": self.model.state_dict(), "optimiser": {str(place): of_one for place, of_one in state.items()},
            "rng": self.rng.get_state(), "experience": None if self.experience is None else self.experience.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        optimiser = {int(place): of_one for place, of_one in state["optimiser"].items()}
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": optimiser, "param_groups": groups})
        self.rng.set_state(state["rng"])
        self.experience = None
        if (kept := state["experience"]) is not None:
            x, action = (np.array(kept["columns"][name][:, 0]) for name in ("x", "action"))
            self.experience = Experience(x, action, self.learning.num_rows)
            self.experience.load_state_dict(kept)


class CountedWorld:
    """Relative frequencies of a finite MDP, as `model_based` has them; a policy sees the states' numbers.

    In dreams, pairs that were never tried end the episode and pay the best reward seen (or 0), so that a policy tries them.
    """

    markov = True

    def __init__(self, horizon: int, spaces: Any, *, temperature: float = 1.0, learns: bool = True) -> None:
        """`learns`: False counts nothing but beginnings, so that every pair stays untried."""
        self.observation_space, self.horizon, self.discount = spaces.observation, horizon, spaces.discount
        self.temperature, self.learns = temperature, learns
        size = int(spaces.observation.n), int(spaces.action.n)
        self.counts: Counts = no_counts(np.zeros(size, np.int64))

    def add(self, x: np.ndarray, first: np.ndarray, action: np.ndarray, step: Transition, next_x: np.ndarray) -> None:
        np.add.at(self.counts.starts, x[first], 1)
        if not self.learns:
            return
        for i in np.flatnonzero(step.valid):
            s, a = x[i], action[i]
            while is_full(self.counts, s, a):
                self.counts = widen(self.counts)
            count_transition(self.counts, s, a, step.reward[i], next_x[i], step.terminated[i])

    def knows_beginnings(self) -> bool:
        return True

    def fit(self, num_steps: int) -> dict[str, Any]:
        return {"known_pairs": int((self.counts.visits > 0).sum())}

    def dream(self, *, horizon: int | None = None, afresh: bool = False) -> FiniteDream:
        believed = max(0.0, float(self.counts.best_reward[0]))
        mdp = counted_model(self.counts, discount=self.discount, known_after=1, unknown_value=believed)
        visited = self.counts.starts + self.counts.visits.sum(axis=1)
        starts = None if afresh else visited
        return FiniteDream(mdp, horizon=horizon or self.horizon, starts=starts, temperature=self.temperature)

    def mdp(self) -> FiniteMDP:
        """What was counted, for a planner; pairs that were never tried are worth the worst reward for ever."""
        counts = self.counts
        worst = (counts.paid[counts.seen > 0] / counts.seen[counts.seen > 0]).min(initial=0.0)
        return counted_model(counts, discount=self.discount, known_after=1, unknown_value=float(worst) / (1.0 - self.discount))

    def drawn_mdp(self, rng: np.random.Generator) -> FiniteMDP:
        """What may be, given the counts: for a planner that explores."""
        return drawn_model(self.counts, self.discount, rng)

    def see(self, x: np.ndarray, seen: Seen, first: np.ndarray) -> tuple[np.ndarray, Seen]:
        return x, ()

    def remember(self, state: Seen, action: np.ndarray) -> Seen:
        return ()

    def state_dict(self) -> dict:
        return self.counts._asdict()

    def load_state_dict(self, state: dict) -> None:
        self.counts = Counts(**{name: np.array(values) for name, values in state.items()})
