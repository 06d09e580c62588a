"""Nested states of numbers, text, arrays and tensors, taken apart for files: a JSON tree, and what it names.

An array is {"array": name} in the tree, a tensor {"tensor": name}, a block {"block": name}, a tuple {"tuple": […]}; a dict
whose own keys are such ones is {"dict": …}. Names are JSON pointers (RFC 6901).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

MARKS = ({"array", "scalar"}, {"tensor"}, {"block"}, {"tuple"}, {"dict"})  # the keys of what isn't a dict in the state


@dataclass(frozen=True)
class Block:
    """Arrays that are large and seldom change: a file of their own, to which a later checkpoint links instead of writing it.

    Of one run, two blocks of the same name at the same place of the state hold the same. A loaded one is read when asked for.
    """

    name: str  # [A-Za-z0-9.-]
    arrays: Mapping[str, np.ndarray] | None = None
    path: Path | None = None  # its file, in place of arrays

    def read(self) -> Mapping[str, np.ndarray]:
        return safetensors.numpy.load_file(str(self.path)) if self.arrays is None else self.arrays


@dataclass
class Leaves:
    """What a tree names."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    tensors: dict[str, Any] = field(default_factory=dict)
    blocks: dict[str, Block] = field(default_factory=dict)  # by file


def taken_apart(value: Any, leaves: Leaves, name: str = "") -> Any:
    """The tree of a state; what can't be JSON goes to `leaves`. Raises TypeError for what is neither."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"state {name!r} has keys that aren't text: {list(value)[:3]}")
        tree = {key: taken_apart(item, leaves, f"{name}/{_escaped(key)}") for key, item in value.items()}
        return {"dict": tree} if tree.keys() in MARKS else tree
    if isinstance(value, list | tuple):
        items = [taken_apart(item, leaves, f"{name}/{i}") for i, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, np.str_):
        return str(value)
    if isinstance(value, np.ndarray | np.generic):
        leaves.arrays[name] = np.ascontiguousarray(value).reshape(np.shape(value))
        return {"array": name, "scalar": isinstance(value, np.generic)}
    if isinstance(value, Block):
        file = f"block.{hashlib.sha256(name.encode()).hexdigest()[:8]}.{value.name}.safetensors"
        leaves.blocks[file] = value
        return {"block": file}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value).__module__.partition(".")[0] == "torch":
        leaves.tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    raise TypeError(f"state {name!r} is a {type(value).__name__}; expected numbers, text, arrays, tensors or nested ones")


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def put_together(tree: Any, leaves: Leaves) -> Any:
    """The state that `taken_apart` was given. Raises KeyError where a leaf is missing."""
    if isinstance(tree, list):
        return [put_together(item, leaves) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.keys() == {"array", "scalar"}:
        array = leaves.arrays[tree["array"]]
        return array[()] if tree["scalar"] else array
    if tree.keys() == {"tensor"}:
        return leaves.tensors[tree["tensor"]]
    if tree.keys() == {"block"}:
        return leaves.blocks[tree["block"]]
    if tree.keys() == {"tuple"}:
        return tuple(put_together(item, leaves) for item in tree["tuple"])
    items = tree["dict"] if tree.keys() == {"dict"} else tree
    return {key: put_together(item, leaves) for key, item in items.items()}
