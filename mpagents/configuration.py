"""Numbers with ranges, for the fields of configurations, and the one function that validates them.

A configuration is a frozen standard-library dataclass. `validate` builds one from plain data (YAML, JSON, keywords) by
pydantic: unknown keys and wrong types are refused, all at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from annotated_types import Ge, Gt, Le

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
UnitInterval = Annotated[float, Ge(0), Le(1)]
PositiveInt = Annotated[int, Gt(0), Le(10**15)]  # beyond that counts overflow, and mean nothing
NonNegativeInt = Annotated[int, Ge(0)]

STRICT: dict[str, Any] = {"extra": "forbid", "allow_inf_nan": False}  # a dataclass's __pydantic_config__

C = TypeVar("C")


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the user's input: where, and what was got and expected."""

    place: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        return f"{dotted(self.place)}: {self.message}" if self.place else self.message


class InvalidInput(ValueError):
    """The user's input is wrong; holds every problem found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def dotted(place: Iterable[str | int]) -> str:
    """('agents', 1, 'alpha') → 'agents.1.alpha', as `--set` takes it."""
    return ".".join(str(part) for part in place)


def nearest(name: str, known: Iterable[str]) -> str:
    """'; did you mean 'dqn'?' with the nearest known name, or the list of the known ones."""
    known = sorted(known)
    match = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    listed = f" (known: {', '.join(known)})" if len(known) <= 25 else ""
    return (f"; did you mean {match[0]!r}?" if match else "") + listed


def validate(config_class: type[C], values: Mapping[str, Any], place: tuple[str | int, ...] = ()) -> C:
    """Build `config_class` from plain data. Raises InvalidInput with every problem and its place."""
    import pydantic

    try:
        text = json.dumps(values)  # JSON mode: lists become tuples, while '0.1' stays text and true stays a truth value
    except (TypeError, ValueError) as error:
        raise InvalidInput([Problem(place, f"not plain data: {error}")]) from error
    try:
        build: Any = _adapter
        return build(config_class).validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        problems = [_explain(item, config_class, values, place) for item in error.errors(include_url=False)]
        raise InvalidInput(_tidy(problems)) from None


@functools.cache
def _adapter(config_class: Any) -> Any:
    import pydantic

    if "__pydantic_config__" in config_class.__dict__:
        return pydantic.TypeAdapter(config_class)
    return pydantic.TypeAdapter(pydantic.with_config(pydantic.ConfigDict(extra="forbid", allow_inf_nan=False))(config_class))


def _explain(item: Mapping[str, Any], config_class: type, values: Any, place: tuple[str | int, ...]) -> Problem:
    kind, got = item["type"], item["input"]
    where = _keys_only(item["loc"], values, kind)
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return Problem(place + where, f"unknown key{nearest(str(where[-1]), _fields_at(config_class, where[:-1]))}")
    if kind in ("missing", "missing_argument"):
        return Problem(place + where, "missing; a value is required")
    if kind == "value_error":
        return Problem(place + where, str(item["ctx"]["error"]))
    expected = item["msg"].removeprefix("Input should be ").removeprefix("Input ")
    return Problem(place + where, f"got {_short(got)}; expected {expected}")


def _keys_only(location: tuple, values: Any, kind: str) -> tuple[str | int, ...]:
    """The location without the names of types that pydantic puts in where it tried the members of a union."""
    where: list[str | int] = []
    for i, part in enumerate(location):
        is_key = isinstance(values, Mapping) and part in values
        is_index = isinstance(values, list | tuple) and isinstance(part, int) and part < len(values)
        if is_key or is_index:
            values = values[part]
        elif not (kind.startswith("missing") and i == len(location) - 1):
            continue
        where.append(part)
    return tuple(where)


def _fields_at(config_class: type, where: tuple[str | int, ...]) -> list[str]:
    """The keys that the configuration takes at a place within it."""
    classes: list[Any] = [config_class]
    for part in where:
        hints: list[Any] = []
        for candidate in classes:
            hints += [get_type_hints(candidate).get(part)] if isinstance(part, str) else [candidate]
        classes = [found for hint in hints for found in _dataclasses_in(hint)]
    return [field.name for candidate in classes for field in dataclasses.fields(candidate)]


def _dataclasses_in(hint: Any) -> list[Any]:
    if dataclasses.is_dataclass(hint):
        return [hint]
    return [found for argument in get_args(hint) for found in _dataclasses_in(argument)]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _tidy(problems: list[Problem]) -> list[Problem]:
    """Join the problems of one place (a union gives one a member), and drop those that a deeper place explains."""
    by_place: dict[tuple, list[str]] = {}
    for problem in problems:
        messages = by_place.setdefault(problem.place, [])
        if problem.message not in messages:
            messages.append(problem.message)
    deeper = {place[:i] for place in by_place for i in range(len(place))}
    return [Problem(place, _joined(messages)) for place, messages in by_place.items() if place not in deeper]


def _joined(messages: list[str]) -> str:
    first, *rest = messages
    return first + "".join(" or " + message.split("; expected ", 1)[-1] for message in rest)
