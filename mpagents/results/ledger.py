"""A study's folder: which trials are finished, who is writing in it, and what it was asked to hold.

Our own atomic files say what is finished (`status.json` of each trial), not Ray's: an interrupted study continues from them.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpagents.configuration import InvalidInput, Problem, dotted
from mpagents.results.attempt import Attempt
from mpagents.results.files import NO_LINK, check_inside, read_json, read_status, write_json
from mpagents.specification import Expansion, TrialSpec, versions
from mpagents.study import Study

MAX_DIFFERENCES = 10  # shown of a changed configuration


class FolderInUse(RuntimeError):
    """Another run is writing into the study's folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a study's folder for this process; the lock goes with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(folder / ".lock", os.O_RDWR | os.O_APPEND | os.O_CREAT | NO_LINK, 0o666), "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise FolderInUse(f"{folder} is in use by {file.read().strip() or 'another run'}; wait, or use --out DIR") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def discard(folder: Path) -> None:
    """Delete what a study's folder holds, but for the lock. Raises ValueError where it isn't a study's."""
    entries = [entry for entry in folder.iterdir() if entry.name != ".lock"] if folder.is_dir() else []
    if entries and not (folder / "study.json").is_file():
        raise ValueError(f"{folder} holds no study.json, so --fresh doesn't delete it; choose another name or --out DIR")
    for entry in sorted(entries, key=lambda entry: entry.name == "study.json"):  # that one last: it says what this is
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def unfinished(folder: Path, trials: list[TrialSpec]) -> list[TrialSpec]:
    """The trials still to be run. Raises InvalidInput where results of another configuration stand under a trial's path."""
    todo: list[TrialSpec] = []
    check_inside(folder, "encoders")
    changed: dict[str, list[str]] = {}  # by what has changed: the trials
    for spec in trials:
        check_inside(folder, spec.path)
        status = read_status(folder, spec.path)
        if status.get("hash") == spec.hash:
            if status.get("status") != "finished":
                todo.append(spec)
            continue
        existing = read_json(folder / spec.path / "trial.json")
        if existing is None or existing.get("hash") == spec.hash:
            todo.append(spec)
        else:
            changed.setdefault(differences(existing, spec.to_json()), []).append(spec.path)
    if changed:
        problems = [Problem((_together(paths),), difference) for difference, paths in changed.items()]
        fix = Problem((), "change the label or the study's name, or discard the old results with --fresh")
        raise InvalidInput([*problems[:MAX_DIFFERENCES], fix])
    return todo


def differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """'agent.config.alpha was 0.1, is now 0.5; …'"""
    before, after = _flat(old), _flat(json.loads(json.dumps(new)))
    ignored = ("hash", "versions", "study", "checkpoint", "step_timeout")
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key) and key.split(".")[0] not in ignored]
    shown = [f"{key} was {json.dumps(before.get(key))}, is now {json.dumps(after.get(key))}" for key in keys[:MAX_DIFFERENCES]]
    return "has results of another configuration: " + "; ".join(shown)


def _together(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def _flat(values: dict[str, Any], place: tuple[str, ...] = ()) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, (*place, key)) if isinstance(value, dict) and value else {dotted((*place, key)): value}
    return flat


def version_changes(folder: Path) -> list[str]:
    """Packages whose versions differ from those that the study's earlier results were made with."""
    before = (read_json(folder / "study.json") or {}).get("versions", {})
    return [f"{name} {before[name]} → {now}" for name, now in versions().items() if before.get(name, now) != now]


def write_study(folder: Path, study: Study, expansion: Expansion) -> None:
    """Record what the study asks for in `study.json`."""
    skipped = [vars(pair) for pair in expansion.skipped]
    paths = [spec.path for spec in expansion.trials]
    content = {"name": study.name, "study": study.to_values(), "versions": versions(), "trials": paths, "skipped": skipped}
    write_json(folder / "study.json", content)


def forget_failures(folder: Path, trials: list[TrialSpec]) -> None:
    """Take away what earlier runs have said of trials that are to run again."""
    for spec in trials:
        (folder / spec.path / "status.json").unlink(missing_ok=True)


def record_lost(folder: Path, spec: TrialSpec, message: str) -> dict[str, Any]:
    """Record a trial whose process died as failed, and let none write any more; returns the status."""
    error = {"type": "WorkerDied", "message": message, "traceback": ""}
    status = {"status": "failed", "hash": spec.hash, "error": error}
    attempt = Attempt.begin(folder / spec.path)
    write_json(folder / spec.path / "status.json", status, attempt.folder)
    attempt.end()
    return status
