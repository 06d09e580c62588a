"""`Study`: agents × environments × encoders × seeds, as a study file has them; expands into validated trials."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Le, Lt

from mpagents.configuration import STRICT, InvalidInput, Positive, PositiveInt, Problem, validate
from mpagents.specification import MAX_TRIALS, STEP_TIMEOUT, Checkpointing, Evaluation, Expansion, Resources


@dataclass(frozen=True)
class Study:
    """What a study file says. `mpagents.run(study)` runs it; `study.trials()` validates and expands it."""

    __pydantic_config__: ClassVar = STRICT

    name: str
    envs: tuple[Any, ...]  # ids, or mappings with the fields of EnvironmentSpec
    agents: tuple[str | dict[str, Any], ...]  # names, or mappings: name, label, steps and the agent's configuration
    encoders: tuple[str | dict[str, Any] | None, ...] = (None,)  # null: raw observations; see `encoder_entry`
    skip_incompatible: bool = False  # leave impossible pairs out instead of refusing the study
    seeds: Annotated[int, Gt(0), Le(MAX_TRIALS)] | tuple[Annotated[int, Ge(0), Lt(2**63)], ...] = 5  # a count, or a list
    steps: PositiveInt = 100_000  # environment steps per trial
    evaluation: Evaluation = field(default_factory=Evaluation)
    checkpoint: Checkpointing = field(default_factory=Checkpointing)
    resources: Resources = field(default_factory=Resources)  # of a trial: how many run at once, and on which nodes
    step_timeout: Positive | None = STEP_TIMEOUT  # seconds after which a step of an environment has hung; null: never
    tune: dict[str, Any] | None = None  # the search of `mpagents tune`, which checks it; `run` leaves it aside

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Study:
        """From a mapping as a study file has it. Raises InvalidInput with every problem of its form."""
        try:
            return validate(cls, values)
        except InvalidInput as error:
            raise InvalidInput([*error.problems, *_further_problems(cls, values, error.problems)]) from None

    @classmethod
    def from_file(cls, path: str | Path, overrides: tuple[str, ...] = ()) -> Study:
        """From a YAML file, with overrides such as "agents.1.alpha=0.5"."""
        from mpagents.study_file import apply_overrides, read_study_file

        values, _ = read_study_file(Path(path))
        return cls.from_values(apply_overrides(values, overrides))

    def to_values(self) -> dict[str, Any]:
        """The mapping that `from_values` takes."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def trials(self) -> Expansion:
        """Validate everything and expand. Raises InvalidInput with all problems at once, before anything starts."""
        from mpagents.expansion import expand

        return expand(Study.from_values(self.to_values()))  # built in Python, it hasn't been validated yet


def _further_problems(cls: type[Study], values: dict[str, Any], known: list[Problem]) -> list[Problem]:
    """What is wrong in the entries, whose keys are known to be right, of a study that is wrong elsewhere."""
    wrong = {problem.place[0] for problem in known if problem.place}
    sound = {"name": "unnamed"} | {key: value for key, value in values.items() if key not in wrong}
    try:
        validate(cls, sound).trials()
    except InvalidInput as error:
        return [
            problem
            for problem in error.problems
            if problem.place and problem.place[0] not in wrong and problem.place[0] in values
        ]
    return []
