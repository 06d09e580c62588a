"""Checkpoints: a nested state of numbers, strings, arrays and tensors, in files that hold no code and can't be half there.

    checkpoint/step=5000/state.json             the tree (`mpagents.results.state_tree`)
    checkpoint/step=5000/arrays.safetensors     NumPy arrays;  tensors.safetensors: torch tensors
    checkpoint/step=5000/block.….safetensors    a part of a large replay, one file in all checkpoints that hold it
    checkpoint/step=5000/manifest.json          written last: SHA-256 of each file

A checkpoint is made in a temporary folder, flushed and renamed, so an interrupted one never counts. Loading verifies every
hash, and the manifest to the byte; a damaged checkpoint is named and the one before it is used. Where all are damaged, that's
refused: nobody's work is silently begun anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy

from mpagents.results.files import sync_folder, write_atomically
from mpagents.results.state_tree import Block, Leaves, put_together, taken_apart

FORMAT = 1
# What reading damaged or hostile files raises; RecursionError and MemoryError where JSON is nested or sizes lie.
UNREADABLE = (
    OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError, MemoryError,
    safetensors.SafetensorError,
)  # fmt: skip


class DamagedCheckpoint(ValueError):
    """A file of a checkpoint is missing, or isn't what the manifest says."""


def save_checkpoint(
    folder: Path, step: int, state: dict, *, keep: int, best: int | None = None, within: Path | None = None,
    previous: int | None = None,
) -> Path:  # fmt: skip
    """Write `folder`/step=<step>, then delete all but the last `keep` checkpoints and that of step `best`.

    `within`: a folder that it is renamed out of, and deleted ones into (`mpagents.results.attempt`); default: `folder`.
    `previous`: the step of the checkpoint that this run saved or loaded last, whose blocks are linked to.
    """
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link; expected a folder: checkpoints are written within the study's folder")
    _finish_interrupted(folder)
    target = folder / f"step={step}"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = (within or folder) / f".step={step}.{within.name if within else os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        _write(temporary, step, state, folder / f"step={previous}")
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # a full disk isn't filled further
        raise
    if target.exists():  # taken before and found damaged, or never left; meanwhile the temporary one, whole, counts
        temporary = temporary.rename(folder / temporary.name)
        sync_folder(folder)
        _delete(target, within)
    temporary.rename(target)
    sync_folder(folder)
    kept = [found for found in steps(folder) if found <= step][-keep:]  # later ones were damaged, else we'd have gone on there
    for old in steps(folder):
        if old not in kept and old != best:
            _delete(folder / f"step={old}", within)
    for leftover in folder.glob(".step=*.tmp"):  # of processes that were killed
        _delete(leftover, within)
    return target


def _delete(path: Path, within: Path | None) -> None:
    """Raises OSError where `within` is gone, and the path stays."""
    if within:
        path = path.rename(within / f"{path.name}.deleted")
    shutil.rmtree(path, ignore_errors=True)


def _finish_interrupted(folder: Path) -> None:
    """Give whole checkpoints whose process died before renaming them their name: one may be the best."""
    for step, path in _candidates(folder):
        if path.name.startswith(".") and not (folder / f"step={step}").exists():
            with contextlib.suppress(DamagedCheckpoint):
                load_checkpoint(path)
                path.rename(folder / f"step={step}")


def _write(folder: Path, step: int, state: dict, previous: Path) -> None:
    """All files of a checkpoint, the manifest last."""
    leaves = Leaves()
    tree = taken_apart(state, leaves)
    write_atomically(folder / "state.json", json.dumps(tree, allow_nan=False))
    write_atomically(folder / "arrays.safetensors", safetensors.numpy.save(leaves.arrays))
    if leaves.tensors:
        from safetensors.torch import save

        write_atomically(folder / "tensors.safetensors", save(leaves.tensors))
    linked = _write_blocks(folder, leaves.blocks, previous) if leaves.blocks else {}
    hashes = {file.name: linked.get(file.name) or _hash(file) for file in folder.iterdir()}
    write_atomically(folder / "manifest.json", _manifest(step, hashes))


def _write_blocks(folder: Path, blocks: dict[str, Block], previous: Path) -> dict[str, str]:
    """Each as a file of its own; the hashes of those that the previous checkpoint has too, which are linked to."""
    try:
        known: dict[str, str] = json.loads((previous / "manifest.json").read_bytes())["sha256"]
    except UNREADABLE:
        known = {}
    linked = {}
    for file, block in blocks.items():
        with contextlib.suppress(OSError):  # not there any more, or a file system without links
            if file in known:
                os.link(previous / file, folder / file)
                linked[file] = known[file]
        if file not in linked:
            arrays = {name: np.ascontiguousarray(array) for name, array in block.read().items()}
            write_atomically(folder / file, safetensors.numpy.save(arrays))
    return linked


def _manifest(step: int, hashes: dict[str, str]) -> bytes:
    """The very bytes of a manifest, so that a flipped bit in it is found too."""
    content = {"format": FORMAT, "step": step, "sha256": dict(sorted(hashes.items()))}
    return (json.dumps(content, indent=1) + "\n").encode()


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, ascending."""
    names = [path.name.removeprefix("step=") for path in folder.glob("step=*")] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def checkpoint_hash(folder: Path) -> str | None:
    """SHA-256 of the newest checkpoint's manifest, so of all that it holds; None where there is none."""
    found = [path for step in reversed(steps(folder)) if (path := folder / f"step={step}" / "manifest.json").is_file()]
    return _hash(found[0]) if found else None


def load_checkpoint(path: Path) -> dict:
    """The state in one checkpoint's folder. Raises DamagedCheckpoint, naming the file."""
    try:
        raw = (path / "manifest.json").read_bytes()
        manifest = json.loads(raw)
        if manifest["format"] != FORMAT:
            raise DamagedCheckpoint(f"{path} has format {manifest['format']!r}; expected {FORMAT}")
        for name in manifest["sha256"]:
            if Path(name).name != name or _hash(path / name) != manifest["sha256"][name]:
                raise DamagedCheckpoint(f"{path / name} is not what its manifest says")
        named = re.match(r"\.?step=(\d+)", path.name)
        step = int(named[1]) if named else manifest["step"]
        if raw != _manifest(step, manifest["sha256"]):
            raise DamagedCheckpoint(f"{path / 'manifest.json'} is damaged or was altered")
        leaves = Leaves(safetensors.numpy.load((path / "arrays.safetensors").read_bytes()))
        if "tensors.safetensors" in manifest["sha256"]:
            from safetensors.torch import load

            leaves.tensors = load((path / "tensors.safetensors").read_bytes())
        names = (re.fullmatch(r"block\.[^.]+\.(.+)\.safetensors", name) for name in manifest["sha256"])
        leaves.blocks = {name[0]: Block(name[1], path=path / name[0]) for name in names if name}
        return put_together(json.loads((path / "state.json").read_bytes()), leaves)
    except UNREADABLE as error:
        raise error if isinstance(error, DamagedCheckpoint) else DamagedCheckpoint(f"{path}: {error!r}") from error


def load_latest(folder: Path, tell: Callable[[str], None] | None = None) -> tuple[int, dict] | None:
    """(step, state) of the newest sound checkpoint, or None where none was ever taken.

    Each damaged one is named to `tell`, or else on standard error. Raises ValueError where there are only damaged ones.
    """
    damaged: list[DamagedCheckpoint] = []
    for step, path in _candidates(folder):
        try:
            return step, load_checkpoint(path)
        except DamagedCheckpoint as error:
            if path.name.startswith("."):
                continue  # it was never finished
            damaged.append(error)
            message = f"damaged checkpoint, using the one before it: {error}"
            (tell or (lambda text: print(text, file=sys.stderr)))(message)
    if damaged:
        fix = f"delete {folder} to begin from the start, or put a copy of a sound one there"
        raise ValueError(f"all checkpoints are damaged ({damaged[0]}); {fix}")
    return None


def _candidates(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of all that may be a checkpoint, the newest first; with whole ones that were about to be renamed."""
    found = [(step, folder / f"step={step}") for step in steps(folder)]
    names = [(re.match(r"\.step=(\d+)\.", path.name), path) for path in folder.glob(".step=*.tmp")]
    found += [(int(match[1]), path) for match, path in names if match]
    return sorted(found, key=lambda item: (item[0], not item[1].name.startswith(".")), reverse=True)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
