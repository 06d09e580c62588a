"""What every problem asks of its parameters: refused with the name, the value and what was expected."""

from __future__ import annotations

import math
from numbers import Integral, Real


def check_count(name: str, value: int, least: int) -> None:
    """Raise ValueError unless `value` is a whole number ≥ `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {value!r}; expected a whole number of at least {least}")


def check_probability(name: str, value: float) -> None:
    """Raise ValueError unless 0 ≤ `value` ≤ 1."""
    if not isinstance(value, Real) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} is {value!r}; expected a probability between 0 and 1")


def check_number(name: str, value: float, least: float = -math.inf) -> None:
    """Raise ValueError unless `value` is finite and ≥ `least`."""
    if not isinstance(value, Real) or not math.isfinite(value) or value < least:
        expected = "a finite number" if least == -math.inf else f"a finite number of at least {least:g}"
        raise ValueError(f"{name} is {value!r}; expected {expected}")
