"""Files that are either whole or not there: written beside, flushed to the disk, renamed into place."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # a link in a folder that was sent to somebody isn't written through


def write_atomically(path: Path, content: bytes | str, within: Path | None = None) -> None:
    """Write a file so that a reader, also after a crash, finds the old content or the new, never a part.

    `within`: the folder where it is written before it is renamed into place; default: the file's own.
    """
    temporary = (within or path.parent) / f".{path.name}.{os.getpid()}.tmp"
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("xb") as file:  # never through a link that somebody has put there
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any, within: Path | None = None) -> None:
    """`write_atomically` of readable JSON. Raises ValueError for NaN and infinities, which JSON can't hold."""
    write_atomically(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n", within)


def read_json(path: Path) -> Any | None:
    """The parsed file, or None where there is none. Raises ValueError naming the file where it isn't JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, or run the study again with --fresh") from error


def read_status(folder: Path, path: str) -> dict[str, Any]:
    """The status of a trial, a fit or an encoder; empty where it hasn't written one, or a damaged one."""
    try:
        status = read_json(folder / path / "status.json")
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}


def check_inside(folder: Path, path: str) -> None:
    """Raise ValueError where a link leads a relative path out of `folder`: results are written within it alone."""
    real = os.path.realpath(folder)
    if os.path.realpath(folder / path) != os.path.normpath(f"{real}/{path}") or ".." in Path(path).parts:
        raise ValueError(f"{folder / path} leads out of {folder}; take the link away, or choose another folder with --out")


def remove_leftovers(folder: Path) -> None:
    """Take away files that a killed process was still writing."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename within it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
