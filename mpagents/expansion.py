"""Expansion of a study into trials: every environment is made once, every agent's configuration built, every pair checked.

An encoder is resolved for each environment (the data tell its model's shape); a pair is then an agent in an environment as it
is seen through the encoder, or with the encoder in its network.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

from mpagents.agents import agent_class, check_mode
from mpagents.agents.agent import Spaces, encoded_spaces
from mpagents.configuration import InvalidInput, PositiveInt, Problem, validate
from mpagents.encoder_specification import EncoderSpec
from mpagents.environments import EnvironmentSpec, examine
from mpagents.specification import AGENT_KEYS, MAX_TRIALS, AgentSpec, Expansion, Skipped, TrialSpec, check_slug, repeated, slug


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


@dataclasses.dataclass(frozen=True)
class _View:
    """How agents see an environment: through an encoder, or as it is."""

    encoder: EncoderSpec | None
    spaces: Spaces  # what an agent is built from

    @property
    def suffix(self) -> str:
        return f"+{self.encoder.label}" if self.encoder else ""


def expand(study: Any) -> Expansion:
    """All trials of a `Study`, seed by seed. Raises InvalidInput with every problem found."""
    problems: list[Problem] = [*check_slug(study.name, ("name",))]
    envs = _collect(study.envs, "envs", problems, _environment)
    agents = _collect(study.agents, "agents", problems, lambda entry, place: read_agent(entry, place, study.steps))
    encoders = _collect(study.encoders, "encoders", problems, _encoder)
    problems += _labels([env.label for env, _ in envs], "envs") + _labels([agent.spec.label for agent in agents], "agents")
    problems += _labels([entry.label if entry else "" for entry in encoders], "encoders")
    for key, entries in (("envs", study.envs), ("agents", study.agents), ("encoders", study.encoders)):
        if not entries:
            problems.append(Problem((key,), "got an empty list; expected at least one"))
    seeds = list(range(study.seeds)) if isinstance(study.seeds, int) else list(study.seeds)
    if len(set(seeds)) < len(seeds) or not seeds:
        problems.append(Problem(("seeds",), f"got {seeds}; expected a count, or a list of different seeds"))
    pairs, skipped = _pairs(study, envs, agents, encoders, problems)
    if len(pairs) * len(seeds) > MAX_TRIALS:
        problems.append(Problem(("seeds",), f"{len(seeds):,} × {len(pairs)} pairs; expected at most {MAX_TRIALS:,} trials"))
    if problems:
        raise InvalidInput(problems)
    trials = [
        TrialSpec(
            study.name, env, agent.spec, encoder, seed, agent.steps, study.evaluation, study.checkpoint,
            bool(getattr(agent.cls, "planner", False)), study.step_timeout,
        )
        for seed in seeds for env, agent, encoder in pairs
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


def read_agent(entry: str | dict[str, Any], place: tuple[str | int, ...], default_steps: int) -> _AgentEntry:
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


def _encoder(entry: Any, place: tuple[str | int, ...]) -> Any:
    if entry is None:
        return None
    from mpagents.encoder_entry import read_encoder

    return read_encoder(entry, place)


def _pairs(
    study: Any, envs: list[tuple[EnvironmentSpec, Spaces]], agents: list[_AgentEntry], encoders: list[Any],
    problems: list[Problem],
) -> tuple[list[tuple[EnvironmentSpec, _AgentEntry, EncoderSpec | None]], list[Skipped]]:  # fmt: skip
    pairs, skipped = [], []
    reasons: dict[tuple[tuple[str | int, ...], str], list[str]] = {}  # by place and reason: the environments
    for env, spaces in envs:
        views: list[_View] = []
        for entry in encoders:
            try:
                views.append(_view(entry, env, spaces))
            except ValueError as error:
                skipped += [Skipped(str(env.label), f"{agent.spec.label}+{entry.label}", str(error)) for agent in agents]
                reasons.setdefault((entry.place, str(error)), []).append(str(env.label))
        for agent, view in itertools.product(agents, views):
            try:
                _check(agent, view)
                pairs.append((env, agent, view.encoder))
            except ValueError as error:
                skipped.append(Skipped(str(env.label), agent.spec.label + view.suffix, str(error)))
                reasons.setdefault((agent.place, str(error)), []).append(str(env.label) + view.suffix)
    if skipped and (not study.skip_incompatible or not pairs):
        fix = "take one of them out, or leave impossible pairs out by skip_incompatible: true"
        problems += [
            Problem(place, f"on {', '.join(labels)}: {reason}" + (f" ({fix})" if pairs else ""))
            for (place, reason), labels in reasons.items()
        ]
    return pairs, skipped


def _view(entry: Any, env: EnvironmentSpec, spaces: Spaces) -> _View:
    if entry is None:
        return _View(None, spaces)
    from mpagents.encoder_entry import resolve_encoder

    spec, encoder = resolve_encoder(entry, env, spaces)
    return _View(spec, encoded_spaces(spaces, encoder))


def _check(agent: _AgentEntry, view: _View) -> None:
    """Raises ValueError where the agent can't learn in these spaces, or can't learn this encoder."""
    agent.cls.check(agent.config, view.spaces)  # type: ignore[attr-defined]
    mode = view.encoder.settings["mode"] if view.encoder else "frozen"
    check_mode(agent.cls, agent.spec.name, mode)
