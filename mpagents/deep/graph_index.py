"""Which compiled library belongs to a graph, known without tracing it: a note beside the libraries.

A note's name is a hash of the graph's key and arguments, of torch, the processor, and of every source file that could change
what is traced. Tracing takes about a second, reading a note a millisecond. A graph of a user's own function, or one whose key
is an object without a telling `repr`, has no note: nobody knows all the files that it is made of.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).resolve().parent.parent  # the package mpagents
TRACED = ("deep", "agents", "torch_env.py")  # what of it is traced


def note_of(folder: Path, function: Callable, key: Hashable, circumstances: Iterable[str]) -> Path | None:
    """Where the name of the library for `function` stands or may be put; None where it can't be known."""
    modules = _modules(function)
    if " at 0x" in repr(key) or any(module.partition(".")[0] not in ("mpagents", "envs", "generative") for module in modules):
        return None
    files = frozenset(Path(sys.modules[module].__file__ or "") for module in modules)
    digest = hashlib.sha256()
    for part in (repr(key), *circumstances, _sources(files)):
        digest.update(part.encode() + b"\0")
    return folder / f"{digest.hexdigest()[:32]}.note"


def _modules(function: Any) -> set[str]:
    """The modules of a function and of what is bound to it."""
    if isinstance(function, partial):
        return _modules(function.func) | {type(argument).__module__ for argument in function.args}
    owner = getattr(function, "__self__", None)
    return {function.__module__} | ({type(owner).__module__} if owner is not None else set())


@lru_cache
def _sources(more: frozenset[Path]) -> str:
    """A hash of the files that graphs are traced from."""
    digest = hashlib.sha256()
    for path in sorted({file for name in TRACED for file in _python_files(HOUSE / name)} | more):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _python_files(path: Path) -> Iterable[Path]:
    return path.glob("*.py") if path.is_dir() else [path]
