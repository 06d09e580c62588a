"""What `mpagents doctor` checks: versions, the folders that are written to, the compiler, and Ray."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mpagents.specification import versions


@dataclass(frozen=True)
class Finding:
    what: str
    found: str
    ok: bool


def examine() -> list[Finding]:
    """Every check; one that raises is a finding with the reason."""
    checks: list[tuple[str, Callable[[], tuple[str, bool]]]] = [
        *((name, lambda version=version: (version, version != "not installed")) for name, version in versions().items()),
        ("cores, memory", _machine),
        ("this folder", lambda: _writable(Path.cwd())),
        ("kernel cache", _kernel_cache),
        ("compiled kernels", _kernels),
        ("Ray", _ray),
    ]
    return [_checked(what, check) for what, check in checks]


def _checked(what: str, check: Callable[[], tuple[str, bool]]) -> Finding:
    try:
        return Finding(what, *check())
    except Exception as error:  # noqa: BLE001 - a diagnosis tells whatever is wrong
        return Finding(what, f"{type(error).__name__}: {error}", False)


def _machine() -> tuple[str, bool]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{os.cpu_count()} cores, {pages / 2**30:.1f} GiB", True


def _writable(folder: Path) -> tuple[str, bool]:
    with tempfile.NamedTemporaryFile(dir=folder):
        free = shutil.disk_usage(folder).free / 2**30
    return f"{folder} is writable, {free:.1f} GiB free", free > 1


def _kernel_cache() -> tuple[str, bool]:
    from mpagents.tabular.compiled import cache_folder

    folder = Path(cache_folder())
    folder.mkdir(parents=True, exist_ok=True)
    return _writable(folder)


def _kernels() -> tuple[str, bool]:
    from mpagents.tabular.mdp import FiniteMDP

    mdp = FiniteMDP.from_arrays([[[0.0, 1.0]], [[0.0, 1.0]]], [[1.0], [2.0]], discount=0.5, initial=[1.0, 0.0])
    return "run", bool(mdp.reachable().all())


def _ray() -> tuple[str, bool]:
    from mpagents.runner import ray_session

    with ray_session(1, None) as slots:
        return f"started and stopped with {slots} worker", slots == 1
