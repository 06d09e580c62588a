"""Study files: YAML read safely, with the line of every key, and `--set` overrides.

Deviations from YAML 1.1, to what people mean: `1e5` and `1e-3` are numbers; a key given twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from mpagents.configuration import InvalidInput, Problem, dotted, nearest

MAX_BYTES = 1_000_000
MAX_NODES = 100_000  # values after anchors are expanded

SHORT_FOR = {"envs": "id", "agents": "name", "encoders": "model"}  # `- q_learning` is short for `- {name: q_learning}`

Place = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e5 as a number."""


def _exponent(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float | int:
    value = float(node.value.replace("_", ""))
    return int(value) if value.is_integer() and "." not in node.value else value


_Loader.yaml_implicit_resolvers = {key: list(pairs) for key, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver("!exponent", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_constructor("!exponent", _exponent)


def read_study_file(path: Path) -> tuple[dict[str, Any], dict[Place, int]]:
    """(the mapping in the file, the line of each place in it). Raises InvalidInput for what can't be read."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInput([Problem((), f"can't read {str(path)!r}: {error.strerror}{_beside(path)}")]) from error
    if len(content) > MAX_BYTES:
        raise InvalidInput([Problem((), f"{path} has more than {MAX_BYTES:,} bytes; expected a study")])
    return parse_study(content)


def parse_study(content: bytes | str) -> tuple[dict[str, Any], dict[Place, int]]:
    """The same for the content of a study file."""
    try:
        loader = _Loader(content)
        node = loader.get_single_node()
        lines: dict[Place, int] = {}
        problems: list[Problem] = []
        if node is not None:
            _walk(node, (), lines, problems, [MAX_NODES])
        if problems:
            raise InvalidInput(problems)
        values = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InvalidInput([Problem((), f"{line}not YAML: {error.problem}")]) from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput([Problem((), f"not YAML: {error}")]) from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InvalidInput(
            [Problem((), f"got {type(values).__name__}; expected keys such as name, envs, agents, seeds, steps")]
        )
    return values, lines


def _walk(node: yaml.Node, place: Place, lines: dict[Place, int], problems: list[Problem], budget: list[int]) -> None:
    budget[0] -= 1
    if budget[0] == 0:
        problems.append(Problem((), f"more than {MAX_NODES:,} values; expected a study"))
    if budget[0] <= 0:
        return
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problems.append(Problem(place, f"line {key.start_mark.line + 1}: a key that isn't text; expected a name"))
                continue
            inner = (*place, str(key.value))
            if inner in lines:
                problems.append(Problem(inner, f"given twice (line {lines[inner]} and {key.start_mark.line + 1})"))
            _walk(value, inner, lines, problems, budget)
            lines[inner] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _walk(value, (*place, i), lines, problems, budget)


def line_of(place: Place, lines: dict[Place, int]) -> int | None:
    """The line of a place, or of the nearest place around it."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place) if place else None


def apply_overrides(values: dict[str, Any], overrides: Iterable[str], option: str = "--set") -> dict[str, Any]:
    """`values` with each "agents.1.alpha=0.5" put in; the value is read as YAML. Raises InvalidInput for a wrong path.

    `option` is what the user gave them by.
    """
    problems: list[Problem] = []
    for override in overrides:
        path, equals, text = override.partition("=")
        place = tuple(int(part) if part.isdecimal() else part for part in path.strip().split("."))
        try:
            if not equals:
                raise ValueError(f"expected key=value, e.g. {path.strip() or 'seeds'}=1")
            values = with_value(values, place, yaml.load(text, _Loader), SHORT_FOR.get(str(place[0]), ""))  # a SafeLoader
        except (ValueError, TypeError, OverflowError, RecursionError, yaml.YAMLError) as error:
            problems.append(Problem((f"{option} {override}",), str(error)))
    if problems:
        raise InvalidInput(problems)
    return values


def with_value(values: Any, place: Place, new: Any, short_for: str) -> Any:
    if not place:
        return new
    head, rest = place[0], place[1:]
    if isinstance(values, str) and short_for and isinstance(head, str):
        values = {short_for: values}
    if isinstance(values, list):
        if not isinstance(head, int) or head >= len(values):
            raise ValueError(f"{head!r} is not in a list of {len(values)}; expected an index 0 … {len(values) - 1}")
        return [with_value(item, rest, new, short_for) if i == head else item for i, item in enumerate(values)]
    if isinstance(values, dict) or values is None:
        values = values or {}
        return {**values, str(head): with_value(values.get(str(head)), rest, new, short_for)}
    raise ValueError(f"{dotted(place)} leads into {values!r}, which has no keys")


def _beside(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    files = [str(p) for p in [*path.parent.glob("*.yaml"), *path.parent.glob("runs/*.yaml")]]
    return nearest(str(path), [file for file in files if file != str(path)]) if files and not path.is_dir() else ""
