"""`jit` and `kernel`: numba with an on-disk cache that can't go stale.

Numba's own cache looks only at the file of the function itself, so a kernel keeps running old code of a function that it
calls from another file. Here the cache's folder is named by a hash over all sources that hold kernels: change any of
them, or upgrade the package, and every kernel is compiled anew (once per machine, 1–3 s each).
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

import numba
from numba.core import config as numba_config


@functools.cache
def cache_folder() -> str:
    """$XDG_CACHE_HOME/mpagents/kernels-<hash of the sources>; numba falls back to its default if it can't be written."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for folder in ("tabular", "agents", "deep"):
        for source in sorted((package / folder).glob("*.py")):
            digest.update(source.read_bytes())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return str(base / "mpagents" / f"kernels-{digest.hexdigest()[:16]}")


def _compile(function, **options):
    previous = numba_config.CACHE_DIR
    numba_config.CACHE_DIR = cache_folder()
    try:
        return numba.njit(cache=True, error_model="numpy", **options)(function)
    finally:
        numba_config.CACHE_DIR = previous


def jit(function):
    """Compile, to run without Python's lock; arithmetic keeps its order in the source, so results are the same everywhere."""
    return _compile(function, nogil=True)


def kernel(function):
    """`jit` for functions that allocate nothing: without reference counting of arrays, which takes half of a simulated step.

    A function that does allocate is refused by the compiler.
    """
    return _compile(function, _nrt=False)
