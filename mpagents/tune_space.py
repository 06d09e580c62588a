"""Domains of a search space: what a setting may be, how values are drawn, laid out as a grid, and perturbed.

    learning_rate: {loguniform: [1.0e-4, 1.0e-2]}      batch_size: {int: [16, 256]}
    gae_lambda: {uniform: [0.9, 1.0]}                  hidden_sizes: {choice: [[64, 64], [256, 256]]}

The ends of `int` belong to it. Configuration i of a random search depends on the search's seed and on i alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpagents.configuration import nearest
from mpagents.seeding import generator

KINDS = ("uniform", "loguniform", "int", "choice")
FACTORS = (0.8, 1.25)  # a perturbed number is one of these times the old one

Values = dict[str, Any]  # by the space's keys


@dataclass(frozen=True)
class Domain:
    kind: str  # one of KINDS
    values: tuple[Any, ...]  # (low, high), or the choices

    @classmethod
    def parse(cls, written: Any) -> Domain:
        """From `{kind: [...]}`. Raises ValueError saying what was got and expected."""
        form = "e.g. {loguniform: [1.0e-4, 1.0e-2]} or {choice: [32, 64]}"
        if not isinstance(written, Mapping) or len(written) != 1:
            raise ValueError(f"got {written!r}; expected one domain, {form}")
        kind, values = next(iter(written.items()))
        if kind not in KINDS:
            raise ValueError(f"unknown domain {kind!r}{nearest(str(kind), KINDS)}")
        if not isinstance(values, list | tuple) or not values:
            raise ValueError(f"{kind} of {values!r}; expected a list, {form}")
        if kind != "choice":
            _check_ends(kind, values)
            values = values if kind == "int" else [float(value) for value in values]
        elif any(values.index(value) != i for i, value in enumerate(values)):
            raise ValueError(f"choice of {values!r}; expected different values")
        return cls(kind, tuple(values))

    def holds(self, value: Any) -> bool:
        """Whether a value is one of the domain's."""
        if self.kind == "choice":
            return value in self.values
        kinds = int if self.kind == "int" else int | float
        return isinstance(value, kinds) and not isinstance(value, bool) and self.values[0] <= value <= self.values[1]

    def draw(self, rng: np.random.Generator) -> Any:
        if self.kind == "choice":
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "int":
            return int(rng.integers(low, high + 1))
        if self.kind == "uniform":
            return float(rng.uniform(low, high))
        return self.clipped(math.exp(rng.uniform(math.log(low), math.log(high))))

    def clipped(self, value: float) -> Any:
        """A number, back within the ends."""
        low, high = self.values
        return min(max(round(value) if self.kind == "int" else float(value), low), high)

    def perturbed(self, value: Any, rng: np.random.Generator, resample: float) -> Any:
        """Drawn anew with probability `resample`; else the neighbouring choice, or the number times one of FACTORS."""
        if rng.random() < resample:
            return self.draw(rng)
        side = int(rng.integers(2))
        if self.kind == "choice":
            i = self.values.index(value) + (-1, 1)[side]
            return self.values[min(max(i, 0), len(self.values) - 1)]
        return self.clipped(value * FACTORS[side])

    def listed(self) -> list[Any]:
        """Every value, for a grid. Raises ValueError where there are infinitely many."""
        if self.kind == "choice":
            return list(self.values)
        if self.kind == "int":
            return list(range(self.values[0], self.values[1] + 1))
        raise ValueError(f"a grid can't list a {self.kind} domain; expected {{choice: [...]}} or {{int: [low, high]}}")


def _check_ends(kind: str, values: Any) -> None:
    kinds = int if kind == "int" else int | float
    if len(values) != 2 or not all(isinstance(v, kinds) and not isinstance(v, bool) and math.isfinite(v) for v in values):
        numbers = "whole numbers" if kind == "int" else "numbers"
        raise ValueError(f"{kind} of {values!r}; expected two {numbers}: [low, high]")
    if not values[0] < values[1]:
        raise ValueError(f"{kind} of {values!r}; expected low < high")
    if kind == "loguniform" and values[0] <= 0:
        raise ValueError(f"loguniform of {values!r}; expected low > 0")


def random_values(space: Mapping[str, Domain], seed: int, index: int) -> Values:
    """Configuration `index` of a random search."""
    rng = generator(seed, "configuration", index)
    return {key: domain.draw(rng) for key, domain in space.items()}


def grid_values(space: Mapping[str, Domain]) -> list[Values]:
    """Every combination, the last key changing fastest."""
    lists = [domain.listed() for domain in space.values()]
    return [dict(zip(space, combination)) for combination in itertools.product(*lists)]


def grid_size(space: Mapping[str, Domain]) -> int:
    return math.prod(len(domain.listed()) for domain in space.values())


def perturbed_values(space: Mapping[str, Domain], values: Values, rng: np.random.Generator, resample: float) -> Values:
    return {key: domain.perturbed(values[key], rng, resample) for key, domain in space.items()}
