"""Trained agents from the folders of their trials."""

from __future__ import annotations

import importlib.metadata
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpagents.agents.agent import Spaces
from mpagents.results.checkpoint import load_latest
from mpagents.results.files import read_json
from mpagents.specification import TrialSpec
from mpagents.trial import build_agent, prepare


def load_trained(folder: Path, env_id: str | None = None, trust: bool = False) -> tuple[TrialSpec, Any, Spaces]:
    """(specification, trained agent, spaces) of a trial's folder; `env_id` takes the place of the environment it names.

    What a results folder names is imported only from installed packages and from `envs`, unless you `trust` it. Raises
    ValueError for anything else, and where the folder holds no trial or no checkpoint.
    """
    if not (folder / "trial.json").is_file():
        raise ValueError(f"{folder} has no trial.json; expected a trial's folder, runs/<study>/<env>/<agent>/seed=<n>")
    spec = TrialSpec.from_json(read_json(folder / "trial.json") or {})
    if env_id is not None:
        spec = replace(spec, env=replace(spec.env, id=env_id))
    for path in (spec.agent.name, *spec.env.wrappers, *(() if env_id else (spec.env.id,))):
        if not trust:
            _check_installed(path)
    spaces = prepare(spec)[1]
    loaded = load_latest(folder / "checkpoint")
    if loaded is None:
        raise ValueError(f"{folder} has no sound checkpoint; run its study first")
    agent = build_agent(spec, spaces, device="cpu")  # acting needs no more, and it may have been trained on another machine
    agent.load_state_dict(loaded[1]["agent"])
    return spec, agent, spaces


def _check_installed(path: str) -> None:
    """Refuse to import a module that only a results folder names: it might have been sent to you."""
    module, colon, _ = path.partition(":")
    top = module.partition(".")[0]
    if colon and top != "envs" and top not in importlib.metadata.packages_distributions() and module not in sys.modules:
        raise ValueError(
            f"{path!r} is named by a results folder and belongs to no installed package, so it isn't imported: if you trust it "
            f"use --trust (command line) or import {module!r} first (Python)"
        )
