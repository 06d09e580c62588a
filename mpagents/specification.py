"""What a study consists of: the specification of a trial, and what labels and versions are.

A trial is one agent in one environment, maybe through an encoder, with one seed. Its results depend on its specification alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Any, ClassVar

from annotated_types import Gt, Le

from mpagents.configuration import STRICT, InvalidInput, NonNegative, Positive, PositiveInt, Problem, validate
from mpagents.encoder_specification import EncoderSpec

SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
RESERVED = {"study.json", "summary.csv", "summary.json", "report.html", "encoders"}
MAX_TRIALS = 1_000_000  # of a study
STEP_TIMEOUT = 600.0  # seconds
AGENT_KEYS = ("name", "label", "steps")  # of an agent's entry; the others are its configuration
PACKAGES = ("mpagents", "gymnasium", "numpy", "numba", "scipy", "torch", "stable-baselines3", "ray", "tensorboard")


@dataclass(frozen=True)
class Evaluation:
    __pydantic_config__: ClassVar = STRICT

    every: PositiveInt = 5_000  # environment steps
    episodes: Annotated[int, Gt(0), Le(1_000_000)] = 20


@dataclass(frozen=True)
class Checkpointing:
    __pydantic_config__: ClassVar = STRICT

    every: PositiveInt = 10_000  # environment steps
    keep: PositiveInt = 2  # the last ones; the best one is kept beside them


@dataclass(frozen=True)
class Resources:
    """Of one trial, or of one configuration of a search, as Ray counts them."""

    __pydantic_config__: ClassVar = STRICT

    cpus: Positive = 1.0
    gpus: NonNegative = 0.0


@dataclass(frozen=True)
class AgentSpec:
    """An agent of a study: its name in the registry (or "module:Class"), its label and its whole configuration."""

    name: str
    label: str
    config: dict[str, Any]


@dataclass(frozen=True)
class TrialSpec:
    """All that a trial's results depend on."""

    study: str
    env: Any  # EnvironmentSpec, its label resolved
    agent: AgentSpec
    encoder: EncoderSpec | None  # None: raw observations
    seed: int
    steps: int  # environment steps
    evaluation: Evaluation
    checkpoint: Checkpointing
    planner: bool  # plans on the MDP instead of stepping the environment
    step_timeout: float | None = STEP_TIMEOUT  # seconds after which a step of the environment has hung

    @property
    def path(self) -> str:
        """The trial's folder within the study's."""
        encoder = f"+{self.encoder.label}" if self.encoder else ""
        return f"{self.env.label}/{self.agent.label}{encoder}/seed={self.seed}"

    def to_json(self) -> dict[str, Any]:
        """The content of `trial.json`, without the versions."""
        return {"path": self.path, **dataclasses.asdict(self), "hash": self.hash}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrialSpec:
        """From the content of a `trial.json`. Raises InvalidInput where it isn't one."""
        from mpagents.environments import EnvironmentSpec

        try:
            return cls(
                study=str(values["study"]),
                env=validate(EnvironmentSpec, values["env"], ("env",)),
                agent=validate(AgentSpec, values["agent"], ("agent",)),
                encoder=EncoderSpec.from_json(values["encoder"]) if values.get("encoder") else None,
                seed=int(values["seed"]),
                steps=int(values["steps"]),
                evaluation=validate(Evaluation, values["evaluation"], ("evaluation",)),
                checkpoint=validate(Checkpointing, values["checkpoint"], ("checkpoint",)),
                planner=bool(values["planner"]),
                step_timeout=values.get("step_timeout", STEP_TIMEOUT),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise InvalidInput([Problem((), f"not a trial: {error!r}")]) from error

    @cached_property
    def hash(self) -> str:
        """SHA-256 over what results depend on: not the study's name, nor how often checkpoints are taken."""
        ignored = ("study", "checkpoint", "step_timeout")
        values = {key: value for key, value in dataclasses.asdict(self).items() if key not in ignored}
        if values["encoder"]:
            del values["encoder"]["checkpoint"]  # where the file lies; its content is told
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Skipped:
    """A pair that `skip_incompatible` left out."""

    env: str
    agent: str
    reason: str


@dataclass(frozen=True)
class Expansion:
    """A study's trials in the order in which they start, and the pairs left out."""

    trials: list[TrialSpec]
    skipped: list[Skipped]


def slug(text: str) -> str:
    """A label from an id: 'envs:RiverSwim-v0' → 'RiverSwim-v0'."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text.rpartition(":")[2]).strip("-.") or "unnamed"


def check_slug(text: str, place: tuple[str | int, ...]) -> list[Problem]:
    """A problem unless the text can name a folder."""
    if text.lower() in RESERVED:
        return [Problem(place, f"{text!r} is the name of a file of results; expected another label")]
    if SLUG.fullmatch(text):
        return []
    return [Problem(place, f"got {text!r}; expected letters, digits, '.', '_' and '-' (at most 100), e.g. {slug(text)!r}")]


def repeated(labels: list[str]) -> set[str]:
    """Labels given more than once, whatever their case (some file systems don't tell it)."""
    counts = Counter(label.lower() for label in labels)
    return {label for label in labels if counts[label.lower()] > 1}


@cache
def versions() -> dict[str, str]:
    """Python's and the main packages' versions."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
