"""Processes: who descends from whom, and who is to go when this one dies."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Reads the processes, then waits: for a line where this process ends as it should, for the end of the pipe where it is killed.
REAPER = "read -r processes; read -r line || kill -9 $processes 2>/dev/null"


def family(process: int) -> set[int]:
    """A process and all that descend from it; itself alone where there is no /proc."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
    found, before = {process}, 0
    while len(found) > before:
        before = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found


@contextmanager
def dying_with_this(processes: Iterable[int]) -> Iterator[None]:
    """Within it, SIGKILL of this process takes these with it: agents of Ray would stay for another minute."""
    numbers = " ".join(map(str, processes))
    # In a session of its own, Ctrl-C doesn't reach it.
    reaper = subprocess.Popen(["/bin/sh", "-c", REAPER], stdin=subprocess.PIPE, text=True, start_new_session=True)
    assert reaper.stdin is not None
    try:
        reaper.stdin.write(f"{numbers}\n")
        reaper.stdin.flush()
        yield
    finally:
        with contextlib.suppress(BrokenPipeError):
            reaper.stdin.write("done\n")
            reaper.stdin.close()
        reaper.wait()
