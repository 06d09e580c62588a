"""What an encoder of a study is, resolved for one environment; and the work of making it, once for all trials that use it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mpagents.results.files import read_status

FILE = "encoder.safetensors"  # in a job's folder
OF_THE_INPUT = ("key", "size", "grey", "coarsest")  # settings that what is fitted and measured depends on; not how it is used


@dataclass(frozen=True)
class EncoderSpec:
    """How an encoder is made for an environment, and how agents use it."""

    label: str
    name: str  # of the model or the checkpoint, as folders have it
    model: str | None  # a registered name, or "module:Class"; None: from a checkpoint
    checkpoint: str | None  # a model's file, absolute
    content: str | None  # hashes of what that file and the trial of `data.policy` hold
    settings: dict[str, Any]  # `mpagents.encoders.EncoderSettings`
    config: dict[str, Any]  # the model's, whole; of a checkpoint's, what is changed
    fit: dict[str, Any]  # `generative.fit`'s; no steps: it stays as it was initialised
    data: dict[str, Any]  # `mpagents.encoder_entry.DataSettings`

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EncoderSpec:
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})


@dataclass(frozen=True)
class EncoderJob:
    """Making an encoder: recording the environment, fitting the model, measuring its codes. Equal ones are done once."""

    env: Any  # EnvironmentSpec, its label resolved
    encoder: EncoderSpec

    @property
    def path(self) -> str:
        """Its folder within the study's."""
        return f"encoders/{self.encoder.name}-{self.env.label}-{self.hash[:12]}"

    @property
    def settings(self) -> dict[str, Any]:
        """Of the encoder, as far as they aren't those of its use."""
        return {key: self.encoder.settings[key] for key in OF_THE_INPUT}

    @property
    def steps(self) -> int:
        """Of the fit."""
        return self.encoder.fit.get("steps", 0) or 1

    @cached_property
    def hash(self) -> str:
        """SHA-256 over what the result depends on: not labels, modes, or where a checkpoint lies."""
        encoder, env = dataclasses.asdict(self.encoder), dataclasses.asdict(self.env)
        content = {key: encoder[key] for key in ("model", "content", "config", "fit", "data")}
        content["settings"] = self.settings
        content["env"] = {key: value for key, value in env.items() if key not in ("label", "discount")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        env, encoder = dataclasses.asdict(self.env), dataclasses.asdict(self.encoder)
        return {"job": "encoder", "path": self.path, "env": env, "encoder": encoder, "hash": self.hash}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EncoderJob:
        from mpagents.configuration import validate
        from mpagents.environments import EnvironmentSpec

        return cls(validate(EnvironmentSpec, values["env"], ("env",)), EncoderSpec.from_json(values["encoder"]))


def encoder_jobs(folder: Path, trials: list[Any]) -> list[EncoderJob]:
    """The jobs that these trials wait for, each once, in the order in which they are needed; those that are done left out."""
    jobs = {job.path: job for trial in trials if (job := job_of(trial)) is not None}
    return [job for job in jobs.values() if not is_finished(job, folder)]


def is_finished(job: EncoderJob, folder: Path) -> bool:
    return read_status(folder, job.path).get("status") == "finished"


def job_of(trial: Any) -> EncoderJob | None:
    """The job that a trial waits for."""
    encoder = getattr(trial, "encoder", None)
    return None if encoder is None else EncoderJob(trial.env, encoder)


def held_back(todo: list[Any]) -> tuple[deque[Any], dict[str, list[Any]]]:
    """(what of jobs and trials can run at once, by the path of a job: the trials that wait for it)."""
    jobs = {spec.path for spec in todo if isinstance(spec, EncoderJob)}
    ready: deque[Any] = deque()
    held: dict[str, list[Any]] = {}
    for spec in todo:
        job = None if isinstance(spec, EncoderJob) else job_of(spec)
        if job is not None and job.path in jobs:
            held.setdefault(job.path, []).append(spec)
        else:
            ready.append(spec)
    return ready, held
