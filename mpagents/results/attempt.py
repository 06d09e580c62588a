"""One attempt at a trial. Of several, only the last one may write.

A machine that is cut off goes on with what it was given, while the driver begins the same trial elsewhere. So each attempt has
a folder in the trial's, `attempt-<number>-<token>`, and beginning another one deletes those before it. What an attempt
publishes (status, metrics, event files, checkpoints) is written in there and renamed out of it; what it takes away is renamed
into it. Each is one call of the file system that fails once the folder is gone: nothing lies between looking and writing.

What an older attempt still can do: compute until it looks or writes again, and append to files it holds open, which are the
trial's no longer: the next attempt makes `metrics.jsonl` anew, up to its checkpoint, and its event file purges what the older
one holds from there on. Numbers rise while a trial is unfinished; tokens are never used twice.

It rests on the file system: once `rmdir` has returned, no rename out of that folder may succeed, on any machine. POSIX asks
this, and NFS's server, which decides both, does it; a file system that only comes to agree later (object stores mounted as
folders) does not.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import time
from pathlib import Path

PREFIX = "attempt-"
TRIES = 100  # to delete a folder into which an older attempt is just writing, 0.05 s apart


class Superseded(RuntimeError):
    """Another attempt at the trial has begun; this one writes nothing more."""


class Attempt:
    """The right to write into a trial's folder."""

    def __init__(self, trial: Path, name: str) -> None:
        self.trial, self.folder = trial, trial / name

    @classmethod
    def begin(cls, trial: Path) -> Attempt:
        """Take the right from all earlier attempts. Raises OSError where the trial's folder can't be written to."""
        trial.mkdir(parents=True, exist_ok=True)
        number = 1 + max(map(_number, _names(trial)), default=0)
        attempt = cls(trial, f"{PREFIX}{number}-{secrets.token_hex(4)}")
        attempt.folder.mkdir()
        for name in _names(trial):  # looked up anew: of two that begin at once, at most one remains
            if name != attempt.folder.name:
                _delete(trial / name)
        return attempt

    def check(self) -> None:
        """Raise Superseded where the right has gone to another attempt."""
        try:
            os.close(os.open(self.folder, os.O_RDONLY))  # asks a file server, where `stat` may answer from a cache
        except OSError as error:
            why = "another attempt has begun, or this machine doesn't share the folder"
            raise Superseded(
                f"attempt {_number(self.folder.name)} at {self.trial} on {socket.gethostname()} stops: {why}"
            ) from error

    def end(self) -> None:
        """Give the right back."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _names(trial: Path) -> list[str]:
    return [name for name in os.listdir(trial) if name.startswith(PREFIX)]  # noqa: PTH208 - a quarter of iterdir's time


def _number(name: str) -> int:
    digits = name.removeprefix(PREFIX).partition("-")[0]
    return int(digits) if digits.isdecimal() else 0


def _delete(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
        return
    for _ in range(TRIES):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.05)
    shutil.rmtree(path)  # says why
