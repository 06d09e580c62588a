"""What a trial is made of, from its specification: an environment's spaces, an agent, and the encoder that it sees through."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpagents.agents import agent_class, resolved_device
from mpagents.agents.agent import Spaces, encoded_spaces
from mpagents.configuration import validate
from mpagents.environments import EnvironmentSpec, examine
from mpagents.specification import TrialSpec


@functools.lru_cache(maxsize=64)
def _prepare(env_json: str) -> tuple[EnvironmentSpec, Spaces, tuple[int, int] | None]:
    """The spaces (with the MDP) of an environment, made once for all trials of a process."""
    spec = validate(EnvironmentSpec, json.loads(env_json))
    return spec, *examine(spec)


def prepare(spec: TrialSpec) -> tuple[EnvironmentSpec, Spaces, tuple[int, int] | None]:
    """The trial's environment specification, its spaces, and (rows, columns) where its states form a grid."""
    return _prepare(json.dumps(spec.to_json()["env"]))


def build_agent(spec: TrialSpec, spaces: Spaces, root: Path, device: str | None = None) -> tuple[Any, Any]:
    """(the trial's agent, untrained, on `device`; its encoder or None); default: the device of its configuration.

    `root` is the study's folder, which holds the encoders.
    """
    cls: Any = agent_class(spec.agent.name)
    config = validate(cls.Config, spec.agent.config)
    if getattr(config, "log_every", 0) > spec.evaluation.every:  # evaluations are made where the agent reports
        config = replace(config, log_every=spec.evaluation.every)
    device = device or resolved_device(getattr(config, "device", "cpu"))
    encoder, learned = None, {}
    if spec.encoder is not None:
        from mpagents.made_encoders import load_encoder

        encoder = load_encoder(spec, root, device)
        assert encoder is not None
        learned = {} if encoder.mode == "frozen" else {"encoder": encoder}
    return cls(config, encoded_spaces(spaces, encoder), seed=spec.seed, device=device, **learned), encoder
