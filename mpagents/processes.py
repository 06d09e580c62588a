"""Processes: who descends from whom, and who is to go when this one dies.

Run as a program, this file is the one that waits for a death: `python processes.py NAME=value`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARK = "MPAGENTS_PROCESSES"
ROUNDS, PAUSE = 10, 0.2  # of killing, seconds between: what is killed may just have started another


def family(*processes: int) -> set[int]:
    """These processes and all that descend from them; themselves alone where there is no /proc."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
    found, before = set(processes), 0
    while len(found) > before:
        before = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found


def marked(mark: str) -> set[int]:
    """Processes that began with this NAME=value in their environment, as far as it can still be read."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in file.read_bytes().split(b"\0"):
                found.add(int(file.parent.name))
    return found


@contextmanager
def dying_with_this() -> Iterator[dict[str, str]]:
    """Gives environment variables: what begins with them within it is gone after it, also where SIGKILL ends this process.

    Agents of Ray would else stay for another minute, and where a signal comes as Ray starts, in spite of its shutdown too.
    """
    token = secrets.token_hex(16)
    # In a session of its own, Ctrl-C doesn't reach it.
    command = [sys.executable, "-I", "-S", __file__, f"{MARK}={token}"]
    reaper = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
    assert reaper.stdin is not None
    try:
        yield {MARK: token, "SPT_NOENV": "1"}  # Ray's setproctitle would write names over the environment
    finally:
        with contextlib.suppress(BrokenPipeError):
            reaper.stdin.write("done\n")
            reaper.stdin.close()
        reaper.wait()


def main() -> None:
    """Wait: for a line where the other process ends as it should, for the end of the pipe where it is killed. Then kill."""
    ended = bool(sys.stdin.readline())
    for _ in range(ROUNDS):
        found = family(*marked(sys.argv[1]))
        if ended and not found:
            return
        for process in found:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
