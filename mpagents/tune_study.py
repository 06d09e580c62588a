"""A study file with a `tune:` block, read: its form, every key of the space at both ends, what goes together, the pairs."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpagents.configuration import InvalidInput, Problem, validate
from mpagents.specification import TrialSpec
from mpagents.study import Study
from mpagents.study_file import apply_overrides, read_study_file
from mpagents.tune_pairs import pairs_of, problems_of_pairs
from mpagents.tune_places import place_of, problems_of_values
from mpagents.tune_space import Domain, grid_size
from mpagents.tune_specification import FIRST_SEED, MAX_SAMPLES, METRICS, NUM_SAMPLES, OF_SCHEDULERS, Pair, Tuning


@dataclass(frozen=True)
class TuneStudy:
    """A study and a search, checked."""

    study: Study
    tuning: Tuning
    pairs: list[Pair]  # those that are searched
    others: list[Pair]  # those that aren't: only their default is evaluated

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> TuneStudy:
        """From a mapping as the file has it. Raises InvalidInput with every problem, before anything starts."""
        return read(values)

    @classmethod
    def from_file(cls, path: str | Path, overrides: tuple[str, ...] = ()) -> TuneStudy:
        values, _ = read_study_file(Path(path))
        return cls.from_values(apply_overrides(values, overrides))

    def num_samples(self, pair: Pair) -> int:
        if self.tuning.searcher == "grid":
            return grid_size(pair.space)
        return self.tuning.num_samples or NUM_SAMPLES

    def to_values(self) -> dict[str, Any]:
        """What the results of the search depend on, plain."""
        tuning, study = dataclasses.asdict(self.tuning), self.study.to_values()
        freely = ("num_samples", "max_concurrent", "resources", "finalists")  # may change while the search goes on
        left_out = ("seeds", "checkpoint", "resources", "step_timeout", "tune")
        kept = {key: value for key, value in study.items() if key not in left_out}
        return json.loads(json.dumps({**kept, "tune": {key: tuning[key] for key in tuning if key not in freely}}))


def read(values: dict[str, Any]) -> TuneStudy:
    """From a mapping as the file has it. Raises InvalidInput with every problem found."""
    problems: list[Problem] = []
    study, trials = _study({key: value for key, value in values.items() if key != "tune"}, problems)
    tuning = _tuning(values.get("tune"), problems)
    if tuning is None:
        raise InvalidInput(problems)
    domains = _domains(tuning, problems)
    places = {key: place for key in tuning.space if (place := place_of(key, values, problems)) is not None}
    problems += problems_of_values(values, domains, places)
    if study is not None:
        problems += _seed_problems(study, tuning)
        pairs = pairs_of(study, trials, domains, places)
        problems += problems_of_pairs(tuning, pairs, trials)
    if problems or study is None:
        raise InvalidInput(problems)
    return TuneStudy(study, tuning, [pair for pair in pairs if pair.space], [pair for pair in pairs if not pair.space])


def _study(values: dict[str, Any], problems: list[Problem]) -> tuple[Study | None, list[TrialSpec]]:
    try:
        study = Study.from_values(values)
        return study, study.trials().trials
    except InvalidInput as error:
        problems += error.problems
        return None, []


def _tuning(block: Any, problems: list[Problem]) -> Tuning | None:
    form = "e.g. {space: {agents.q_learning.alpha: {uniform: [0.05, 0.5]}}, num_samples: 20}"
    if not isinstance(block, dict):
        what = "missing" if block is None else f"got {block!r}"
        problems.append(Problem(("tune",), f"{what}; expected what is to be searched, {form}"))
        return None
    scheduler = "none" if "scheduler" in block and block["scheduler"] is None else block.get("scheduler", "none")
    short = isinstance(scheduler, str)
    block = {**block, "scheduler": {"name": scheduler} if short else scheduler}
    try:
        tuning = validate(Tuning, block, ("tune",))
    except InvalidInput as error:
        inner = ("tune", "scheduler", "name")
        problems += [Problem(inner[:2], p.message) if short and p.place == inner else p for p in error.problems]
        wrong = {problem.place[1] for problem in error.problems if len(problem.place) > 1}
        if "space" in wrong:
            return None
        tuning = validate(Tuning, {key: value for key, value in block.items() if key not in wrong}, ("tune",))
        problems += [problem for problem in _setting_problems(tuning) if problem.place[1] not in wrong | {"mode"}]
        return tuning
    problems += _setting_problems(tuning)
    return tuning


def _setting_problems(tuning: Tuning) -> list[Problem]:
    """What doesn't go together within the block."""
    found: list[Problem] = []

    def say(place: str, message: str) -> None:
        found.append(Problem(("tune", *place.split(".")), message))

    if not tuning.space:
        say("space", "empty; expected at least one key, e.g. agents.q_learning.alpha: {uniform: [0.05, 0.5]}")
    better = METRICS[tuning.metric]
    if better is None and tuning.mode is None:
        say("mode", f"missing; say whether max or min of {tuning.metric} is better")
    elif better and tuning.mode not in (None, better):
        say("mode", f"got {tuning.mode!r}; expected {better!r}, which is better of {tuning.metric}")
    if tuning.searcher == "grid" and tuning.num_samples is not None:
        say("num_samples", "a grid has its own number of configurations; leave num_samples out, or use searcher: random")
    if tuning.searcher == "optuna" and importlib.util.find_spec("optuna") is None:
        say("searcher", 'optuna is not installed: pip install "mpagents[optuna]", or use searcher: random')
    name = tuning.scheduler.name
    for key in ("grace", "reduction_factor", "min_samples", "every", "quantile", "resample"):
        if getattr(tuning.scheduler, key) is not None and key not in OF_SCHEDULERS[name]:
            owners = ", ".join(other for other, keys in OF_SCHEDULERS.items() if key in keys)
            say(f"scheduler.{key}", f"a setting of {owners}; {name} has {', '.join(OF_SCHEDULERS[name]) or 'none'}")
    if name == "pbt":
        if tuning.searcher != "random":
            say("searcher", f"got {tuning.searcher!r}; pbt draws its population at random: expected random")
        if tuning.max_concurrent is not None:
            say("max_concurrent", "a population's members take turns on all workers; leave it out, and use --workers")
        if (tuning.num_samples or NUM_SAMPLES) < 2:
            say("num_samples", f"got {tuning.num_samples}; a population has at least 2 members")
    return found


def _domains(tuning: Tuning, problems: list[Problem]) -> dict[str, Domain]:
    domains = {}
    for key, written in tuning.space.items():
        try:
            domain = Domain.parse(written)
            if tuning.searcher == "grid":
                domain.listed()
            domains[key] = domain
        except ValueError as error:
            problems.append(Problem(("tune", "space", key), str(error)))
    if tuning.searcher == "grid" and len(domains) == len(tuning.space) and grid_size(domains) > MAX_SAMPLES:
        what = f"a grid of {grid_size(domains):,} configurations; expected at most {MAX_SAMPLES:,}"
        problems.append(Problem(("tune", "space"), what))
    return domains


def _seed_problems(study: Study, tuning: Tuning) -> list[Problem]:
    own = set(range(study.seeds)) if isinstance(study.seeds, int) else set(study.seeds)
    seeds = tuning.search_seeds
    if not seeds or len(set(seeds)) < len(seeds):
        return [Problem(("tune", "seeds"), f"got {seeds}; expected a count, or a list of different seeds")]
    if own & set(seeds):
        what = f"{sorted(own & set(seeds))} are the study's seeds, which the search must not see"
        return [Problem(("tune", "seeds"), f"{what}; expected other numbers, or a count (they begin at {FIRST_SEED:,})")]
    return []
