"""Faults on purpose: what survives what, counted. One row a fault; the table says what was reached.

    python benchmarks/faults.py                                # every row in full: about an hour on two cores
    python benchmarks/faults.py --only damage --times 20       # one row, short; of `chaos` the times are seconds

Whatever was interrupted is compared with a run that nothing disturbed: every trial's status, the rows of `metrics.jsonl` and
all TensorBoard curves must be equal (but for clock times). Exit code 1 where a row falls short.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

# Rows are found by `benchmarks.fault_rows`, and `generative` isn't this folder's generative.py.
if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.fault_rows.damage import damage
from benchmarks.fault_rows.environments import environments
from benchmarks.fault_rows.malformed import studies
from benchmarks.fault_rows.outcome import Outcome
from benchmarks.fault_rows.processes import chaos, drivers, nodes, workers
from benchmarks.fault_rows.resumes import resumes
from benchmarks.fault_rows.writes import writes

ROWS: dict[str, tuple[Callable[[int, Path, random.Random], Outcome], int]] = {  # in full: times
    "workers": (workers, 200),
    "drivers": (drivers, 100),
    "nodes": (nodes, 20),
    "writes": (writes, 10**9),
    "damage": (damage, 500),
    "environments": (environments, 9),
    "studies": (studies, 300),
    "resumes": (resumes, 100),
    "chaos": (chaos, 600),
}


def measure(name: str, times: int | None = None, seed: int = 0) -> Outcome:
    """One row, in a temporary folder."""
    function, full = ROWS[name]
    with tempfile.TemporaryDirectory() as folder:
        return function(full if times is None else times, Path(folder).resolve(), random.Random(seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(ROWS), help="of these rows")
    parser.add_argument("--times", type=int, help="how often, instead of in full; of chaos: seconds")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    table = Table(title="Faults", title_justify="left", show_lines=True)
    for name in ("fault", "times", "counted", "seconds", ""):
        table.add_column(name, overflow="fold")
    sound = True
    for name in arguments.only or ROWS:
        begun = time.monotonic()
        outcome = measure(name, arguments.times, arguments.seed)
        sound &= outcome.sound
        about = (ROWS[name][0].__doc__ or "").strip()
        seconds = f"{time.monotonic() - begun:.0f}"
        table.add_row(f"{name}: {about}", f"{outcome.times:,}", outcome.said(), seconds, "ok" if outcome.sound else "SHORT")
        print(f"{name}: {outcome.times} times: {outcome.said()} ({seconds} s)", file=sys.stderr)
    Console(width=120).print(table)
    raise SystemExit(0 if sound else 1)


if __name__ == "__main__":
    main()
