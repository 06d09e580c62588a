"""Processes: who descends from whom, and who is to go when this one dies."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARK = "MPAGENTS_PROCESSES"
# Waits: for a line where this process ends as it should, for the end of the pipe where it is killed. Then kills all whose
# environment bears the mark ($0), again and again, since one may just be starting another. Without /proc it finds none.
REAPER = """
read -r line && exit
for round in 1 2 3 4 5 6 7 8 9 10; do
    kill -9 $(grep -lzsxF "$0" /proc/[0-9]*/environ | cut -d / -f 3) 2>/dev/null
    sleep 0.2
done
"""


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
def dying_with_this() -> Iterator[dict[str, str]]:
    """Gives environment variables; within it, SIGKILL of this process takes with it all processes begun with them.

    Agents of Ray would stay for another minute.
    """
    token = secrets.token_hex(16)
    # In a session of its own, Ctrl-C doesn't reach it.
    command = ["/bin/sh", "-c", REAPER, f"{MARK}={token}"]
    reaper = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
    assert reaper.stdin is not None
    try:
        yield {MARK: token}
    finally:
        with contextlib.suppress(BrokenPipeError):
            reaper.stdin.write("done\n")
            reaper.stdin.close()
        reaper.wait()
