"""Expansion of a study into trials: every environment is made once, every agent's configuration built, every pair checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from mpagents.agents import agent_class
from mpagents.agents.agent import Spaces
from mpagents.configuration import InvalidInput, PositiveInt, Problem, validate
from mpagents.environments import EnvironmentSpec, examine
from mpagents.specification import AGENT_KEYS, AgentSpec, Expansion, Skipped, TrialSpec, check_slug, repeated, slug


@dataclasses.dataclass(frozen=True)
class _Steps:
    steps: PositiveInt


@dataclasses.dataclass(frozen=True)
class _AgentEntry:
    """An agent's entry, understood."""

    spec: AgentSpec
    config: Any
    steps: int
    cls: type
    place: tuple[str | int, ...]


def expand(study: Any) -> Expansion:
    """All trials of a `Study`, seed by seed. Raises InvalidInput with every problem found."""
    problems: list[Problem] = [*check_slug(study.name, ("name",))]
    envs = _collect(study.envs, "envs", problems, _environment)
    agents = _collect(study.agents, "agents", problems, lambda entry, place: _agent(entry, place, study.steps))
    problems += _labels([env.label for env, _ in envs], "envs") + _labels([agent.spec.label for agent in agents], "agents")
    for key, entries in (("envs", study.envs), ("agents", study.agents), ("encoders", study.encoders)):
        if not entries:
            problems.append(Problem((key,), "got an empty list; expected at least one"))
    seeds = list(range(study.seeds)) if isinstance(study.seeds, int) else list(study.seeds)
    if len(set(seeds)) < len(seeds) or not seeds:
        problems.append(Problem(("seeds",), f"got {seeds}; expected a count, or a list of different seeds"))
    pairs, skipped = _pairs(study, envs, agents, problems)
    if problems:
        raise InvalidInput(problems)
    trials = [
        TrialSpec(
            study.name, env, agent.spec, None, seed, agent.steps, study.evaluation, study.checkpoint,
            bool(getattr(agent.cls, "planner", False)),
        )
        for seed in seeds for env, agent in pairs
    ]  # fmt: skip
    return Expansion(trials, skipped)


def _collect(entries: tuple, key: str, problems: list[Problem], read: Callable[[Any, tuple], Any]) -> list[Any]:
    found = []
    for i, entry in enumerate(entries):
        try:
            found.append(read(entry, (key, i)))
        except InvalidInput as error:
            problems += error.problems
        except ValueError as error:
            problems.append(Problem((key, i), str(error)))
    return found


def _environment(entry: Any, place: tuple[str | int, ...]) -> tuple[EnvironmentSpec, Spaces]:
    if not isinstance(entry, str | dict):
        raise InvalidInput([Problem(place, f"got {entry!r}; expected an id or a mapping with an id")])
    spec = validate(EnvironmentSpec, {"id": entry} if isinstance(entry, str) else entry, place)
    spec = dataclasses.replace(spec, label=slug(spec.id) if spec.label is None else spec.label)
    problems = check_slug(spec.label or "", (*place, "label"))
    if problems:
        raise InvalidInput(problems)
    return spec, examine(spec)[0]


def _agent(entry: str | dict[str, Any], place: tuple[str | int, ...], default_steps: int) -> _AgentEntry:
    entry = {"name": entry} if isinstance(entry, str) else entry
    name = entry.get("name")
    if not isinstance(name, str):
        raise InvalidInput([Problem(place, f"got {entry!r}; expected a name, e.g. {{name: q_learning}}")])
    try:
        cls = agent_class(name)
    except ValueError as error:
        raise InvalidInput([Problem((*place, "name"), str(error))]) from error
    label = slug(name) if entry.get("label") is None else entry["label"]
    problems = check_slug(label, (*place, "label")) if isinstance(label, str) else [Problem((*place, "label"), "expected text")]
    steps = default_steps
    if "steps" in entry:
        try:
            steps = validate(_Steps, {"steps": entry["steps"]}, place).steps
        except InvalidInput as error:
            problems += error.problems
    try:
        config = validate(cls.Config, {k: v for k, v in entry.items() if k not in AGENT_KEYS}, place)  # type: ignore[attr-defined]
    except InvalidInput as error:
        problems += error.problems
    if problems:
        raise InvalidInput(problems)
    return _AgentEntry(AgentSpec(name, label, dataclasses.asdict(config)), config, steps, cls, place)


def _labels(labels: list[str], key: str) -> list[Problem]:
    return [
        Problem((key, i), f"the label {label!r} is given to two; expected different ones: set `label`")
        for i, label in enumerate(labels)
        if label in repeated(labels)
    ]


def _pairs(
    study: Any, envs: list[tuple[EnvironmentSpec, Spaces]], agents: list[_AgentEntry], problems: list[Problem]
) -> tuple[list[tuple[EnvironmentSpec, _AgentEntry]], list[Skipped]]:
    pairs, skipped = [], []
    reasons: dict[tuple[tuple[str | int, ...], str], list[str]] = {}  # by place and reason: the environments
    for env, spaces in envs:
        for agent in agents:
            try:
                agent.cls.check(agent.config, spaces)  # type: ignore[attr-defined]
                pairs.append((env, agent))
            except ValueError as error:
                skipped.append(Skipped(str(env.label), agent.spec.label, str(error)))
                reasons.setdefault((agent.place, str(error)), []).append(str(env.label))
    if skipped and (not study.skip_incompatible or not pairs):
        fix = "take one of them out, or leave impossible pairs out by skip_incompatible: true"
        problems += [
            Problem(place, f"on {', '.join(labels)}: {reason}" + (f" ({fix})" if pairs else ""))
            for (place, reason), labels in reasons.items()
        ]
    return pairs, skipped
