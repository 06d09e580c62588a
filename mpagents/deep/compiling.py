"""`compile: auto | true | false`: whole update steps as one compiled graph, where that repays its seconds."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Hashable
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


_GRAPHS: dict[Hashable, Callable[..., Any]] = {}  # of this process


class Graph:
    """A function of tensors, and nothing else, compiled as one graph without guards: a call costs 15 µs, not 100.

    It is traced with the arguments of its first call; shapes, types and devices must stay, and whatever the function reads
    beside its arguments is taken as it was then. Arguments may be changed in place. Functions of an equal `key` (all that
    distinguishes what they compute) share a graph within a process: the second seed of a study compiles nothing.
    """

    def __init__(self, function: Callable[..., Any], key: Hashable) -> None:
        self._function, self._key = function, key
        self._run: Callable[..., Any] | None = None

    def __call__(self, *tensors: Any) -> Any:
        if self._run is None:
            key = (self._key, tuple((t.shape, t.dtype, t.device) for t in tensors))
            if key not in _GRAPHS:
                _GRAPHS[key] = _compile(self._function, tensors)
            self._run = _GRAPHS[key]
        return self._run(*tensors)


def graph(function: Callable[..., Any], key: Hashable, use: bool) -> Callable[..., Any]:
    """`function` of tensors as a `Graph` if `use`; the same function either way."""
    return Graph(function, key) if use else function


def _compile(function: Callable[..., Any], tensors: tuple) -> Callable[..., Any]:
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.no_grad():
        examples = [t.detach().clone() for t in tensors]
        traced = make_fx(function)(*examples)
        for node in traced.graph.nodes:
            node.meta.clear()  # each tensor was traced under a mode of its own, which inductor refuses
        return torch._inductor.compile(traced, examples, options={"cpp_wrapper": True})
