"""Trained agents from the folders of their trials."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium

from mpagents.agents.agent import Spaces
from mpagents.building import build_agent, prepare
from mpagents.encoding import player
from mpagents.results.checkpoint import load_latest
from mpagents.results.files import read_json
from mpagents.specification import TrialSpec


def load_trained(folder: Path, env_id: str | None = None, trust: bool = False) -> tuple[TrialSpec, Any, Spaces]:
    """(specification, trained agent, spaces) of a trial's folder; `env_id` takes the place of the environment it names.

    What a results folder names is imported only from installed packages and from `envs`, unless you `trust` it. Raises
    ValueError for anything else, and where the folder holds no trial or no checkpoint.
    """
    if not (folder / "trial.json").is_file():
        raise ValueError(f"{folder} has no trial.json; expected a trial's folder, runs/<study>/<env>/<agent>/seed=<n>")
    spec = TrialSpec.from_json(read_json(folder / "trial.json") or {})
    trained = spec  # its encoder is that of the environment it was trained in
    if env_id is not None:
        spec = replace(spec, env=replace(spec.env, id=env_id))
    if not trust:
        _check_named(trained, folder, env_id is None)
    spaces = prepare(spec)[1]
    loaded = load_latest(folder / "checkpoint")
    if loaded is None:
        raise ValueError(f"{folder} has no sound checkpoint; run its study first")
    # Acting needs no more than the CPU, and it may have been trained on another machine.
    name = spec.agent.name
    elsewhere = f"{folder}: its {name} was trained in {trained.env.id} and doesn't fit {spec.env.id}; expected the same spaces"
    try:
        agent, encoder = build_agent(trained, spaces, _study(folder), device="cpu")
    except ValueError as error:
        raise error if spec.env.id == trained.env.id else ValueError(f"{elsewhere}: {error}") from error
    try:
        agent.load_state_dict(loaded[1]["agent"])
    except Exception as error:
        own = f"{folder}: its checkpoint doesn't hold a {name}"
        raise ValueError(f"{own if spec.env.id == trained.env.id else elsewhere}: {error!r}") from error
    return spec, player(agent, encoder), spaces


def _check_named(spec: TrialSpec, folder: Path, env_too: bool) -> None:
    """Refuse what a results folder names, and what it would call with arguments of its own: it might have been sent to you."""
    _check_installed(spec.agent.name)
    for path in spec.env.wrappers:
        _check_installed(path)  # called with the environment alone
    if env_too:
        _check_installed(spec.env.id, gymnasium.Env, gymnasium.vector.VectorEnv)
    if spec.encoder is not None:
        from generative.storage import model_name
        from mpagents.encoder_specification import EncoderJob
        from mpagents.made_encoders import encoder_file

        for name in (spec.encoder.model, model_name(encoder_file(EncoderJob(spec.env, spec.encoder), _study(folder)))):
            _check_installed(str(name or ""))


def _study(folder: Path) -> Path:
    return folder.resolve().parents[2]


def _check_installed(path: str, *bases: type) -> None:
    """Raise ValueError unless "module:Class" is of an installed package, or of a module that the user has imported.

    Of a package it must be a subclass of one of the `bases`, where any are given: os.system too is in an installed module.
    """
    module, colon, name = path.partition(":")
    if not colon:
        return
    top = module.partition(".")[0]
    own = top == "envs" or top in importlib.metadata.packages_distributions()
    if top in sys.stdlib_module_names or module.endswith("__main__") or not (own or module in sys.modules):
        raise ValueError(
            f"{path!r} is named by a results folder and belongs to no installed package, so it isn't imported: if you trust it "
            f"use --trust (command line) or import {module!r} first (Python)"
        )
    if own and bases:
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ImportError:
            return  # what is missing is told where it is made
        if found is not None and not (isinstance(found, type) and issubclass(found, bases)):
            raise ValueError(f"{path!r} is named by a results folder and is no class of environments, so it isn't called")
