"""A study file with a `tune:` block, read: its form, every key of the space at both ends, what goes together, the pairs."""

from __future__ import annotations

import contextlib
import importlib.util
from typing import Any

from mpagents.agents import agent_class
from mpagents.configuration import InvalidInput, Problem, nearest, validate
from mpagents.expansion import _agent
from mpagents.specification import AGENT_KEYS, TrialSpec, slug
from mpagents.study import Study
from mpagents.tune_space import Domain, grid_size
from mpagents.tune_specification import (
    FIRST_SEED,
    MAX_SAMPLES,
    METRICS,
    NUM_SAMPLES,
    OF_SCHEDULERS,
    Pair,
    Place,
    TuneStudy,
    Tuning,
    put,
)

# Settings that an agent reads at each update, so that they may change while it learns. Others shape what it has learnt
# (networks, replay, tables). A user's agent names its own in a class attribute `perturbable`.
PERTURBABLE = {
    "q_learning": ("alpha", "alpha_decay", "epsilon"),
    "sarsa": ("alpha", "alpha_decay", "epsilon"),
    "td": ("alpha", "alpha_decay"),
    "monte_carlo": ("alpha", "alpha_decay", "epsilon"),
    "model_based": ("alpha", "alpha_decay", "epsilon"),
    "dqn": ("learning_rate", "epsilon", "beta", "max_grad_norm"),
    "reinforce": ("learning_rate", "value_learning_rate", "entropy_coefficient", "max_grad_norm"),
    "actor_critic": (
        "learning_rate", "gae_lambda", "clip_ratio", "value_coefficient", "entropy_coefficient", "max_grad_norm",
    ),
}  # fmt: skip


def read(values: dict[str, Any]) -> TuneStudy:
    """From a mapping as the file has it. Raises InvalidInput with every problem found."""
    problems: list[Problem] = []
    study, trials = _study({key: value for key, value in values.items() if key != "tune"}, problems)
    tuning = _tuning(values.get("tune"), problems)
    if tuning is None:
        raise InvalidInput(problems)
    domains = _domains(tuning, problems)
    places = {key: place for key in tuning.space if (place := _place(key, values, problems)) is not None}
    problems += _problems_of_values(values, domains, places)
    if study is not None:
        problems += _seed_problems(study, tuning)
        pairs = _pairs(study, trials, domains, places)
        problems += _problems_of_pairs(tuning, pairs, trials)
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


def _place(key: str, values: dict[str, Any], problems: list[Problem]) -> Place | None:
    """The place in the study that 'agents.dqn.learning_rate' means; entries by label or number."""
    section, _, rest = key.partition(".")
    where: Place = ("tune", "space", key)
    if section not in ("agents", "encoders"):
        what = f"begins with {section!r}; expected agents.<label>.<setting> or encoders.<label>.<setting>"
        problems.append(Problem(where, f"{what}{nearest(section, ('agents', 'encoders'))}"))
        return None
    entries = values.get(section)
    labels = [_label(section, entry) for entry in entries] if isinstance(entries, list | tuple) else []
    known = {str(i): i for i in range(len(labels))} | {label: i for i, label in enumerate(labels) if label is not None}
    name = max((name for name in known if rest.startswith(f"{name}.")), key=len, default=None)
    if name is None:
        label = rest.partition(".")[0]
        if label in known:
            problems.append(Problem(where, f"names no setting of {label!r}; expected e.g. {section}.{label}.learning_rate"))
        else:
            problems.append(Problem(where, f"no {label!r} in {section}{nearest(label, [str(x) for x in labels if x])}"))
        return None
    setting = rest[len(name) + 1 :].split(".")
    if setting[0] in AGENT_KEYS if section == "agents" else setting[0] == "label":
        problems.append(
            Problem(where, f"{setting[0]!r} is the same for all configurations; expected a setting that is searched")
        )
        return None
    return (section, known[name], *(int(part) if part.isdecimal() else part for part in setting))


def _label(section: str, entry: Any) -> str | None:
    if section == "encoders":
        from mpagents.encoder_entry import read_encoder

        try:
            read = read_encoder(entry, ())
        except (ValueError, TypeError):
            return None
        return read.label if read else None
    if isinstance(entry, str):
        return slug(entry)
    label = entry.get("label") or slug(str(entry.get("name"))) if isinstance(entry, dict) else None
    return label if isinstance(label, str) else None


def _problems_of_values(values: dict[str, Any], domains: dict[str, Domain], places: dict[str, Place]) -> list[Problem]:
    """What agents and encoders say to the ends of each domain, and to each choice, other keys being at their first value."""
    found = []
    keys = [key for key in domains if key in places]
    for key in keys:
        section, index, *inner = places[key]
        others = _with_firsts(values, [other for other in keys if other != key], domains, places)
        before = _messages(section, others[str(section)][index], tuple(inner))
        for value in domains[key].values:
            try:
                entry = put(others, places[key], value)[str(section)][index]
            except (ValueError, TypeError) as error:
                found.append(Problem(("tune", "space", key), str(error)))
                break
            wrong = [message for message in _messages(section, entry, tuple(inner)) if message not in before]
            if wrong:
                found.append(Problem(("tune", "space", key), "; ".join(wrong)))
                break
    return found


def _with_firsts(
    values: dict[str, Any], keys: list[str], domains: dict[str, Domain], places: dict[str, Place]
) -> dict[str, Any]:
    for key in keys:
        with contextlib.suppress(ValueError, TypeError):  # told of the key itself
            values = put(values, places[key], domains[key].values[0])
    return values


def _messages(section: Any, entry: Any, place: Place) -> list[str]:
    """Everything wrong with an agent's or an encoder's entry; with the place in it where that is another one."""
    try:
        if section == "agents":
            _agent(entry, (), 1)
        else:
            from mpagents.encoder_entry import read_encoder

            read_encoder(entry, ())
    except InvalidInput as error:
        return [problem.message if problem.place == place else str(problem) for problem in error.problems]
    except (ValueError, TypeError) as error:
        return [str(error)]
    return []


def _seed_problems(study: Study, tuning: Tuning) -> list[Problem]:
    own = set(range(study.seeds)) if isinstance(study.seeds, int) else set(study.seeds)
    seeds = tuning.search_seeds
    if not seeds or len(set(seeds)) < len(seeds):
        return [Problem(("tune", "seeds"), f"got {seeds}; expected a count, or a list of different seeds")]
    if own & set(seeds):
        what = f"{sorted(own & set(seeds))} are the study's seeds, which the search must not see"
        return [Problem(("tune", "seeds"), f"{what}; expected other numbers, or a count (they begin at {FIRST_SEED:,})")]
    return []


def _pairs(study: Study, trials: list[TrialSpec], domains: dict[str, Domain], places: dict[str, Place]) -> list[Pair]:
    """Every pair of the study, in its order."""
    values = study.to_values()
    labels = {section: [_label(section, entry) for entry in values[section]] for section in ("agents", "encoders")}
    envs = list(dict.fromkeys(trial.env.label for trial in trials))
    given = [entry.get("label") or slug(entry["id"]) if isinstance(entry, dict) else slug(entry) for entry in values["envs"]]
    pairs: dict[tuple[str, str, str], Pair] = {}
    for trial in trials:
        key = (trial.env.label, trial.agent.label, trial.encoder.label if trial.encoder else "")
        if key in pairs:
            continue
        at = {"agents": labels["agents"].index(key[1]), "encoders": labels["encoders"].index(key[2] or None)}
        alone = {section: [values[section][i]] for section, i in at.items()} | {"envs": [values["envs"][given.index(key[0])]]}
        own = {name: place for name, place in places.items() if name in domains and at[str(place[0])] == place[1]}
        kept = {name: value for name, value in values.items() if name not in ("tune", "skip_incompatible")}
        pairs[key] = Pair(
            kept | alone, *key, {name: domains[name] for name in own},
            {name: (place[0], 0, *place[2:]) for name, place in own.items()},
            1 if trial.planner else -(-trial.steps // trial.evaluation.every),
        )  # fmt: skip
    return sorted(pairs.values(), key=lambda pair: envs.index(pair.env))


def _problems_of_pairs(tuning: Tuning, pairs: list[Pair], trials: list[TrialSpec]) -> list[Problem]:
    """What a searched pair can't have: a metric that isn't known of it, a scheduler that has nothing to go by."""
    from mpagents.building import prepare

    found: dict[str, Problem] = {}

    def say(place: str, message: str) -> None:
        found.setdefault(place, Problem(("tune", *place.split(".", 1)), message))

    scheduler = tuning.scheduler
    for pair in (pair for pair in pairs if pair.space):
        spec = next(trial for trial in trials if (trial.env.label, trial.agent.label) == (pair.env, pair.agent))
        if tuning.metric == "regret" and (prepare(spec)[1].mdp is None or pair.encoder):
            say("metric", f"regret is known of finite MDPs alone, not of {pair.env}; expected mean_reward")
        if scheduler.name != "none" and pair.marks < 2:
            what = f"{pair.agent} on {pair.env} is evaluated once (evaluation.every: {spec.evaluation.every:,})"
            say("scheduler", f"{what}; {scheduler.name} needs several evaluations in {spec.steps:,} steps")
        waits = {key: getattr(scheduler, key) for key in ("grace", "every") if getattr(scheduler, key)}
        for key, wait in waits.items():
            if wait >= spec.steps:
                say(f"scheduler.{key}", f"got {wait:,}; expected less than the {spec.steps:,} steps of a trial")
        if scheduler.name == "pbt":
            able = getattr(agent_class(spec.agent.name), "perturbable", PERTURBABLE.get(spec.agent.name, ()))
            for key, place in pair.places.items():
                if place[0] != "agents" or place[2] not in able:
                    what = f"{place[2]!r} can't change while {pair.agent} learns"
                    fix = f"pbt takes what an agent reads at each update: {', '.join(able)}" if able else "pbt can't tune it"
                    say(f"space.{key}", f"{what}; {fix}")
    return list(found.values())
