"""Schedules: a quantity (exploration rate, learning rate) as a function of the environment steps taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from mpagents.configuration import STRICT, NonNegative, UnitInterval
from mpagents.tabular.compiled import kernel

_KINDS = {"constant": 0, "linear": 1, "exponential": 2}


@dataclass(frozen=True)
class Schedule:
    """From `start` to `end` over the first `fraction` of training, then `end`."""

    __pydantic_config__: ClassVar = STRICT

    start: NonNegative
    end: NonNegative
    fraction: UnitInterval = 1.0  # of the environment steps of training
    kind: Literal["linear", "exponential"] = "linear"  # exponential: a straight line in the logarithm, end > 0

    def __post_init__(self) -> None:
        if self.kind == "exponential" and not (self.start > 0 and self.end > 0):
            raise ValueError(f"an exponential schedule from {self.start} to {self.end} needs both above 0")


class ScheduleNumbers(NamedTuple):
    """A schedule as compiled code takes it."""

    kind: int
    start: float
    end: float
    horizon: float  # environment steps


def numbers(schedule: float | Schedule, num_steps: int) -> ScheduleNumbers:
    """Resolve a constant or a schedule against a budget of `num_steps` environment steps."""
    if not isinstance(schedule, Schedule):
        return ScheduleNumbers(_KINDS["constant"], float(schedule), float(schedule), 1.0)
    horizon = max(1.0, schedule.fraction * num_steps)
    return ScheduleNumbers(_KINDS[schedule.kind], float(schedule.start), float(schedule.end), horizon)


@kernel
def scheduled(schedule, step):
    """The value after `step` environment steps."""
    if schedule.kind == 0:
        return schedule.start
    progress = min(1.0, step / schedule.horizon)
    if schedule.kind == 1:
        return schedule.start + progress * (schedule.end - schedule.start)
    return schedule.start * (schedule.end / schedule.start) ** progress
