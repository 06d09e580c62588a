"""What a search is made of: the `tune:` block, and pairs.

Each pair (environment × agent × encoder) whose agent or encoder stands in the space is searched on its own. Trials of the
search have seeds of their own; the study's seeds are for what is reported.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

from mpagents.configuration import STRICT, NonNegativeInt, PositiveInt, UnitInterval
from mpagents.specification import Resources, TrialSpec
from mpagents.study import Study
from mpagents.study_file import SHORT_FOR, with_value
from mpagents.tune_space import Domain, Values

Place = tuple[str | int, ...]

FIRST_SEED = 10_000  # of a search, whose `seeds` is a count
NUM_SAMPLES = 20
MAX_SAMPLES = 100_000
METRICS = {"mean_reward": "max", "regret": "min", "mean_ep_length": None}  # and what's better, where that is plain
OF_SCHEDULERS: dict[str, dict[str, Any]] = {  # settings, with their defaults; None: the steps between two evaluations
    "asha": {"grace": None, "reduction_factor": 4.0},
    "median": {"grace": None, "min_samples": 3},
    "pbt": {"every": None, "quantile": 0.25, "resample": 0.25},
    "none": {},
}


@dataclass(frozen=True)
class Scheduling:
    """Which configurations go on."""

    __pydantic_config__: ClassVar = STRICT

    name: Literal["asha", "median", "pbt", "none"] = "none"
    grace: PositiveInt | None = None  # asha, median: environment steps before one may be stopped
    reduction_factor: Annotated[float, Gt(1)] | None = None  # asha: one in so many goes on at each rung
    min_samples: PositiveInt | None = None  # median: configurations that one is compared with, at least
    every: PositiveInt | None = None  # pbt: environment steps between two times that the worst copy the best
    quantile: Annotated[float, Gt(0), Le(0.5)] | None = None  # pbt: the share of the worst, and of the best
    resample: UnitInterval | None = None  # pbt: probability that a setting is drawn anew instead of perturbed

    def get(self, key: str) -> Any:
        """A setting, or the default of its scheduler."""
        value = getattr(self, key)
        return OF_SCHEDULERS[self.name][key] if value is None else value

    def evaluations(self, key: str, every: int) -> int:
        """A number of environment steps as evaluations, of which there is one in `every` steps."""
        return max(1, (self.get(key) or every) // every)


@dataclass(frozen=True)
class Tuning:
    """The `tune:` block."""

    __pydantic_config__: ClassVar = STRICT

    space: dict[str, Any]  # by dotted place: {agents.dqn.learning_rate: {loguniform: [1.0e-4, 1.0e-2]}}
    searcher: Literal["random", "optuna", "grid"] = "random"
    scheduler: Scheduling = field(default_factory=Scheduling)
    metric: Literal["mean_reward", "regret", "mean_ep_length"] = "mean_reward"  # of evaluations, averaged over seeds
    mode: Literal["max", "min"] | None = None  # null: what is better of the metric
    num_samples: Annotated[int, Gt(0), Le(MAX_SAMPLES)] | None = None  # configurations of a pair; null: 20, or the grid
    seeds: Annotated[int, Gt(0), Le(1_000)] | tuple[Annotated[int, Ge(0), Lt(2**63)], ...] = 1  # of a configuration
    seed: NonNegativeInt = 0  # of the search itself
    max_concurrent: PositiveInt | None = None  # configurations at once; null: as many as there are workers
    resources: Resources = field(default_factory=Resources)
    finalists: PositiveInt = 3  # configurations of a pair that are evaluated anew on the study's seeds

    @property
    def direction(self) -> str:
        """max or min."""
        return self.mode or METRICS[self.metric] or "max"

    @property
    def search_seeds(self) -> list[int]:
        return list(range(FIRST_SEED, FIRST_SEED + self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)


@dataclass(frozen=True)
class Pair:
    """An agent in an environment, maybe through an encoder, and the part of the space that is its."""

    study: dict[str, Any]  # a study of this pair alone, as `Study.from_values` takes it
    env: str  # labels
    agent: str
    encoder: str  # "" for none
    space: dict[str, Domain]  # by key
    places: dict[str, Place]  # of the keys, within `study`
    marks: int  # evaluations of a trial

    @property
    def name(self) -> str:
        return f"{self.env}~{self.agent}" + (f"+{self.encoder}" if self.encoder else "")

    def trials(
        self, values: Values, seeds: list[int], *, label: str | None = None, every: int | None = None
    ) -> list[TrialSpec]:
        """The trials of a configuration, one a seed; `every`: of their checkpoints. Raises InvalidInput."""
        study = self.with_values(values) | {"seeds": seeds}
        if label is not None:
            study = put(study, ("agents", 0, "label"), label)
        if every is not None:
            study["checkpoint"] = {"every": every, "keep": 1}
        return Study.from_values(study).trials().trials

    def default(self) -> Values | None:
        """The study's own settings as a configuration of the space; None where one isn't in its domain."""
        (trial,) = self.trials({}, [0])
        found = {key: told_at(place, self.study, {"agents": [trial.agent.config]}) for key, place in self.places.items()}
        return found if all(self.space[key].holds(value) for key, value in found.items()) else None

    def with_values(self, values: Values) -> dict[str, Any]:
        study = dict(self.study)
        for key, value in values.items():
            study = put(study, self.places[key], value)
        return study


def told_at(place: Place, *trees: Any) -> Any:
    """What the first of some nested mappings that has something there has at a place; None where none has."""
    for tree in trees:
        with contextlib.suppress(KeyError, IndexError, TypeError):
            for part in place:
                tree = tree[part]
            return list(tree) if isinstance(tree, tuple) else tree
    return None


def put(values: dict[str, Any], place: Place, new: Any) -> dict[str, Any]:
    """A study's mapping with another value at a place."""
    return with_value(values, place, new, SHORT_FOR.get(str(place[0]), ""))
