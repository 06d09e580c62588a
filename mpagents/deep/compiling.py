"""`compile: auto | true | false`: whole update steps as one compiled graph, where that repays its seconds."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from typing import Any, Literal

Compile = Literal["auto", "true", "false"] | bool

WORTH_IT = 30_000  # updates; below, compiling (20–30 s, a few from the cache) costs more than it saves


def has_compiler() -> bool:
    """Whether torch.compile finds a C++ compiler."""
    return any(shutil.which(name) for name in ("g++", "c++", "clang++"))


def resolve(wanted: Compile, updates: int) -> bool:
    """Whether to compile a function that will be called about `updates` times."""
    if wanted in ("auto", "true", True) and not has_compiler():
        if wanted != "auto":
            print("no C++ compiler found: running eagerly (install g++ to compile)", file=sys.stderr)
        return False
    return updates >= WORTH_IT if wanted == "auto" else wanted in ("true", True)


def compiled(function: Callable[..., Any], use: bool) -> Callable[..., Any]:
    """`function`, compiled as one full graph if `use`; the same function either way."""
    if not use:
        return function
    import torch

    return torch.compile(function, fullgraph=True, dynamic=False, options={"cpp_wrapper": True})
