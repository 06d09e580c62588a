"""What `mpagents record` has written, as a source: compressed on the disk, memory-mapped when read.

    recordings/cartpole/manifest.json     columns, streams, environment, versions, SHA-256 of each shard
    recordings/cartpole/00000.npz         some thousand rows of every column, compressed

The first reading checks every shard's hash and unpacks the columns into one uncompressed array each, in the user's cache
(`~/.cache/mpagents/recordings`, or within $XDG_CACHE_HOME) under a name made from the hashes; from there they are mapped, so
that only the rows drawn are read and processes share them. The cache may be deleted at any time. Nothing is unpickled.

`windows.py` says what a row is, and how rows become single observations, stacks and sequences.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import shutil
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from generative.model import Batch
from generative.windows import Reading, Windows, windows

FORMAT = 1


@dataclass(frozen=True)
class Recording:
    """Rows of an environment, recorded. x is frames uint8 [B, H, W, C] or vectors float32 [B, D]; sequences are [B, T, …].

    Beside x a batch has `action` (discrete ones one-hot), `reward`, `terminated`, `truncated`, `first`, and where they were
    recorded `state`, `text` (token numbers, see `caption`) and `label` [B, H, W], a class for each pixel. Sequences stay
    within an episode unless `crossing`; shorter episodes are padded by zeros where `mask` is false.

    Reward and ends came with x_t. The action beside x_t is, as everywhere in `generative`, the one taken upon it, which led to
    x_{t+1} (zeros at an episode's last observation); with actions="led" it is the one that led to x_t (zeros at its first).
    """

    folder: str
    length: int | None = None  # T of sequences; None: single observations
    stack: int = 1  # observations in the channels, the oldest first
    stride: int = 1  # rows between stacked ones
    crossing: bool = False  # sequences run on into the next episode
    actions: Literal["taken", "led"] = "taken"  # upon x_t, or to it
    target: str | None = None  # the column that is also the batch's `target`, e.g. state

    def __post_init__(self) -> None:
        _ = self.reading  # checks the settings

    @property
    def reading(self) -> Reading:
        return Reading(self.length, self.stack, self.stride, self.crossing, self.actions, self.target)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return read_manifest(Path(self.folder))

    @cached_property
    def windows(self) -> Windows:
        manifest = self.manifest
        if not manifest["complete"]:
            warnings.warn(f"{self.folder} was interrupted: {rows(manifest):,} of {manifest['steps']:,} rows", stacklevel=2)
        return windows(columns(Path(self.folder), manifest), streams(manifest), self.reading, manifest["num_actions"])

    def __len__(self) -> int:
        return len(self.windows)

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        return self.windows.sample(n, generator)

    def split(self, share: float, seed: int) -> tuple[Windows, Windows]:
        """(the rest, about a `share` held out), whole episodes each."""
        return self.windows.split(share, seed)

    def caption(self, text: Any) -> str:
        """The words of one row's tokens [L]."""
        words = self.manifest.get("vocabulary")
        if not words:
            raise ValueError(f"{self.folder} has no captions; MiniGrid's recordings have")
        return " ".join(words[int(token)] for token in text if int(token))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The recording's description, checked. Raises ValueError where the folder holds none, a damaged or a newer one."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        if manifest["format"] > FORMAT:
            raise ValueError(f"{folder} has format {manifest['format']}, of a newer version; this one reads up to {FORMAT}")
        for shard in manifest["shards"]:
            if Path(shard["file"]).name != shard["file"] or min(shard["counts"]) < 0:
                raise ValueError(f"{folder}/manifest.json is damaged: it names the shard {shard['file']!r}")
        if not all(isinstance(name, str) and re.fullmatch(r"\w{1,64}", name) for name in manifest["columns"]):
            raise ValueError(f"{folder}/manifest.json is damaged: it has columns whose names can't be those of files")
        if any(np.dtype(column["dtype"]).kind not in "biuf" for column in manifest["columns"].values()):
            raise ValueError(f"{folder}/manifest.json is damaged: it has columns of other things than numbers")
        missing = {"complete", "steps", "num_actions"} - manifest.keys() or {"x", "first"} - manifest["columns"].keys()
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is no recording: it has no manifest.json (`mpagents record` writes one)") from error
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder}/manifest.json is damaged or no recording's: {error!r}") from error
    if missing or not rows(manifest):
        raise ValueError(f"{folder} has {rows(manifest)} rows and lacks {', '.join(missing) or 'nothing'}; record it anew")
    return manifest


def rows(manifest: dict[str, Any]) -> int:
    return sum(sum(shard["counts"]) for shard in manifest["shards"])


def streams(manifest: dict[str, Any]) -> np.ndarray:
    """Begin and end [S, 2] of each copy of the environment in the unpacked columns."""
    ends = np.cumsum(np.sum([shard["counts"] for shard in manifest["shards"]], 0))
    return np.stack([np.append(0, ends[:-1]), ends], 1)


def fingerprint(manifest: dict[str, Any]) -> str:
    """A hash over what was recorded: equal recordings have equal ones."""
    content = [[(shard["sha256"], shard["counts"]) for shard in manifest["shards"]], sorted(manifest["columns"].items())]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mpagents" / "recordings"


def columns(folder: Path, manifest: dict[str, Any]) -> dict[str, np.ndarray]:
    """Each column [N, …], memory-mapped, unpacked first where the cache doesn't have it."""
    unpacked = cache_folder() / fingerprint(manifest)[:32]
    if not unpacked.is_dir():
        _unpack(folder, manifest, unpacked)
    found = {}
    for name, column in manifest["columns"].items():
        try:
            array = np.load(unpacked / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"the cached {unpacked / name}.npy is damaged ({error}); delete {unpacked}") from error
        if array.shape != (rows(manifest), *column["shape"]) or array.dtype != column["dtype"]:
            raise ValueError(f"the cached {unpacked / name}.npy is {array.dtype} {array.shape}; delete {unpacked}")
        found[name] = array
    return found


def _unpack(folder: Path, manifest: dict[str, Any], target: Path) -> None:
    """Write every column's rows, a stream after the other, into a folder that is there as a whole or not at all."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        shapes = {name: (rows(manifest), *column["shape"]) for name, column in manifest["columns"].items()}
        size = sum(math.prod(shape) * np.dtype(manifest["columns"][name]["dtype"]).itemsize for name, shape in shapes.items())
        free = shutil.disk_usage(temporary).free
        if size > free:
            raise ValueError(
                f"{folder} unpacks to {size:.3g} bytes, and {target.parent} has {free:.3g} free; set XDG_CACHE_HOME"
            )
        mapped = {
            name: np.lib.format.open_memmap(temporary / f"{name}.npy", "w+", np.dtype(column["dtype"]), shapes[name])
            for name, column in manifest["columns"].items()
        }
        place = streams(manifest)[:, 0].copy()  # of each stream: its next row
        for shard in manifest["shards"]:
            arrays = _read_shard(folder, shard, manifest["columns"])
            ends = np.cumsum(shard["counts"])
            for stream, (end, count) in enumerate(zip(ends, shard["counts"])):
                for name, array in arrays.items():
                    mapped[name][place[stream] : place[stream] + count] = array[end - count : end]
                place[stream] += count
        for array in mapped.values():
            array.flush()
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():  # another process was quicker: its arrays are the same
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_shard(folder: Path, shard: dict[str, Any], expected: dict[str, Any]) -> dict[str, np.ndarray]:
    """The columns of one shard. Raises ValueError where it is missing, damaged or altered."""
    path = folder / shard["file"]
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; record it anew") from error
    if hashlib.sha256(raw).hexdigest() != shard["sha256"]:
        raise ValueError(f"{path} is damaged or was altered: it doesn't have the hash that manifest.json gives; record it anew")
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as content:
            arrays = {name: np.asanyarray(content[name]) for name in expected}  # a member may be no array, but bytes
    except (ValueError, KeyError, OSError, EOFError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is no shard of a recording: {error}") from error
    for name, column in expected.items():
        if arrays[name].shape != (sum(shard["counts"]), *column["shape"]) or arrays[name].dtype != column["dtype"]:
            raise ValueError(f"{path}: column {name!r} is {arrays[name].dtype} {arrays[name].shape}, not as manifest.json says")
    return arrays
