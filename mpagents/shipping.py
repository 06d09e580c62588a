"""The user's own modules on the nodes of a cluster: the folder where the command runs is sent there by Ray's `runtime_env`.

It's sent where modules of it are in use, without results, hidden files and virtual environments; what its `.gitignore` and
`.rayignore` name is left out too, by Ray. Workers stand in the copy and import from it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SENT = "MPAGENTS_SENT"  # a worker's environment variable: the driver's folder, in whose copy it stands
MOST = 100_000_000  # bytes, and
MOST_FILES = 10_000
LEFT_OUT = (".?*", "__pycache__")  # as in .gitignore; ".*" would be the folder itself, "."
OURS = ("mpagents", "envs", "generative")


def runtime_env(results: Path | None) -> dict[str, Any]:
    """What `ray.init` takes to send this folder; empty where nothing of it is needed, or Ray has sent it already.

    `results`: the folder that the command writes into. Raises ValueError where there's too much to send.
    """
    here = Path.cwd()
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or not _in_use(here):
        return {}
    outputs = [f"/{path.relative_to(here)}" for path in _outputs(here, results)]
    if not (here / ".rayignore").exists():
        _check_size(here, {here / path[1:] for path in outputs})
    return {"working_dir": str(here), "excludes": [*LEFT_OUT, *outputs], "env_vars": {SENT: str(here)}}


def use_path(path: list[str]) -> None:
    """Look for modules where the driver does (`path`); in the copy, where its folder was sent."""
    sent, here = os.environ.get(SENT), Path.cwd()

    def copied(entry: str) -> str:
        copy = here / os.path.relpath(entry, sent) if sent and Path(entry).is_relative_to(sent) else None
        return str(copy) if copy and copy.is_dir() else entry

    first = [copied(entry) for entry in path]
    sys.path[:] = [*first, *(entry for entry in sys.path if entry not in first)]


def _in_use(here: Path) -> bool:
    """Whether a module lies in this folder: neither an installed one nor ours, nor the script that runs."""
    house = Path(__file__).resolve().parent.parent
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        if name == "__main__" or not file.is_relative_to(here):
            continue
        installed = any(part == "site-packages" or part.startswith(".") for part in file.relative_to(here).parts)
        if not installed and not (name.partition(".")[0] in OURS and file.is_relative_to(house)):
            return True
    return False


def _outputs(here: Path, results: Path | None) -> Iterator[Path]:
    """Folders in this one that aren't sent: results of studies, this one's among them, and virtual environments."""
    if results is not None and results.is_relative_to(here):
        yield results.parent if results.parent != here else results
    for folder in (here, *(path for path in here.iterdir() if path.is_dir() and not path.name.startswith("."))):
        for path in folder.iterdir():
            if path.is_dir() and any((path / sign).exists() for sign in ("study.json", "tune.json", "pyvenv.cfg")):
                yield path


def _check_size(here: Path, outputs: set[Path]) -> None:
    sizes: dict[Path, int] = {}
    for folder, folders, files in os.walk(here):
        folders[:] = [name for name in folders if name[0] != "." and name not in LEFT_OUT and Path(folder, name) not in outputs]
        sizes |= {Path(folder, name): os.lstat(Path(folder, name)).st_size for name in files if name[0] != "."}
        if len(sizes) > MOST_FILES or sum(sizes.values()) > MOST:
            largest = max(sizes, key=lambda path: sizes[path])
            raise ValueError(
                f"{here}, whose modules the study needs on every node, has more than {MOST / 1e6:.0f} MB or {MOST_FILES:,} "
                f"files beside results (the largest: {largest.relative_to(here)}, {sizes[largest] / 1e6:.1f} MB); name what "
                "they don't need in a file .rayignore there, written as .gitignore is, or start from a folder of their own"
            )
