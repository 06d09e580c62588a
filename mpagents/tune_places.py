"""The keys of a search space: which setting of the study each means, and whether that setting takes all of its domain."""

from __future__ import annotations

import contextlib
from typing import Any

from mpagents.configuration import InvalidInput, Problem, nearest
from mpagents.expansion import read_agent
from mpagents.specification import AGENT_KEYS, slug
from mpagents.tune_space import Domain
from mpagents.tune_specification import Place, put


def place_of(key: str, values: dict[str, Any], problems: list[Problem]) -> Place | None:
    """The place in the study that 'agents.dqn.learning_rate' means; entries by label or number."""
    section, _, rest = key.partition(".")
    where: Place = ("tune", "space", key)
    if section not in ("agents", "encoders"):
        what = f"begins with {section!r}; expected agents.<label>.<setting> or encoders.<label>.<setting>"
        problems.append(Problem(where, f"{what}{nearest(section, ('agents', 'encoders'))}"))
        return None
    entries = values.get(section)
    labels = [label_of(section, entry) for entry in entries] if isinstance(entries, list | tuple) else []
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


def label_of(section: str, entry: Any) -> str | None:
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


def problems_of_values(values: dict[str, Any], domains: dict[str, Domain], places: dict[str, Place]) -> list[Problem]:
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
            read_agent(entry, (), 1)
        else:
            from mpagents.encoder_entry import read_encoder

            read_encoder(entry, ())
    except InvalidInput as error:
        return [problem.message if problem.place == place else str(problem) for problem in error.problems]
    except (ValueError, TypeError) as error:
        return [str(error)]
    return []
