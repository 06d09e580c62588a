"""Checkpoints: a nested state of numbers, strings, arrays and tensors, in files that hold no code and can't be half there.

    checkpoint/step=5000/state.json             the tree; an array is {"array": name}, a tuple {"tuple": […]}
    checkpoint/step=5000/arrays.safetensors     NumPy arrays;  tensors.safetensors: torch tensors
    checkpoint/step=5000/manifest.json          written last: SHA-256 of each file

A checkpoint is made in a temporary folder, flushed and renamed, so an interrupted one never counts. Loading verifies every
hash; a damaged checkpoint is named and the one before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from mpagents.results.files import sync_folder, write_atomically, write_json

FORMAT = 1


class DamagedCheckpoint(ValueError):
    """A file of a checkpoint is missing, or isn't what the manifest says."""


def save_checkpoint(folder: Path, step: int, state: dict, *, keep: int, best: int | None = None) -> Path:
    """Write `folder`/step=<step>, then delete all but the last `keep` checkpoints and that of step `best`."""
    target = folder / f"step={step}"
    temporary = folder / f".step={step}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    arrays: dict[str, np.ndarray] = {}
    tensors: dict[str, Any] = {}
    tree = _without_arrays(state, arrays, tensors, "")
    write_atomically(temporary / "state.json", json.dumps(tree, allow_nan=False))
    write_atomically(temporary / "arrays.safetensors", safetensors.numpy.save(arrays))
    if tensors:
        from safetensors.torch import save

        write_atomically(temporary / "tensors.safetensors", save(tensors))
    hashes = {file.name: _hash(file) for file in sorted(temporary.iterdir())}
    write_json(temporary / "manifest.json", {"format": FORMAT, "step": step, "sha256": hashes})
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    sync_folder(folder)
    kept = sorted(steps(folder))[-keep:]
    for old in steps(folder):
        if old not in kept and old != best:
            shutil.rmtree(folder / f"step={old}", ignore_errors=True)
    return target


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, ascending."""
    names = [path.name.removeprefix("step=") for path in folder.glob("step=*")] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def load_checkpoint(path: Path) -> dict:
    """The state in one checkpoint's folder. Raises DamagedCheckpoint, naming the file."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        if manifest["format"] != FORMAT:
            raise DamagedCheckpoint(f"{path} has format {manifest['format']}; expected {FORMAT}")
        for name in manifest["sha256"]:
            if Path(name).name != name or _hash(path / name) != manifest["sha256"][name]:
                raise DamagedCheckpoint(f"{path / name} is not what its manifest says")
        arrays = safetensors.numpy.load((path / "arrays.safetensors").read_bytes())
        tensors = {}
        if "tensors.safetensors" in manifest["sha256"]:
            from safetensors.torch import load

            tensors = load((path / "tensors.safetensors").read_bytes())
        return _with_arrays(json.loads((path / "state.json").read_bytes()), arrays, tensors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise error if isinstance(error, DamagedCheckpoint) else DamagedCheckpoint(f"{path}: {error!r}") from error


def load_latest(folder: Path) -> tuple[int, dict] | None:
    """(step, state) of the newest sound checkpoint, or None where there is none; names damaged ones on standard error."""
    for step in reversed(steps(folder)):
        try:
            return step, load_checkpoint(folder / f"step={step}")
        except DamagedCheckpoint as error:
            print(f"damaged checkpoint, using the one before it: {error}", file=sys.stderr)
    return None


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without_arrays(value: Any, arrays: dict, tensors: dict, name: str) -> Any:
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"state {name!r} has keys that aren't text: {list(value)[:3]}")
        return {key: _without_arrays(item, arrays, tensors, f"{name}/{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_without_arrays(item, arrays, tensors, f"{name}/{i}") for i, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, np.str_):
        return str(value)
    if isinstance(value, np.ndarray | np.generic):
        arrays[name] = np.ascontiguousarray(value).reshape(np.shape(value))
        return {"array": name, "scalar": isinstance(value, np.generic)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value).__module__.partition(".")[0] == "torch":
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    raise TypeError(f"state {name!r} is a {type(value).__name__}; expected numbers, text, arrays, tensors or nested ones")


def _with_arrays(value: Any, arrays: dict, tensors: dict) -> Any:
    if isinstance(value, list):
        return [_with_arrays(item, arrays, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"array", "scalar"}:
        array = arrays[value["array"]]
        return array[()] if value["scalar"] else array
    if value.keys() == {"tensor"}:
        return tensors[value["tensor"]]
    if value.keys() == {"tuple"}:
        return tuple(_with_arrays(item, arrays, tensors) for item in value["tuple"])
    return {key: _with_arrays(item, arrays, tensors) for key, item in value.items()}
