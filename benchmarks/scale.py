"""Many small trials: 10,000 of the random agent on FrozenLake-v1, and what that says of a million on a thousand nodes.

    trials lost             of those the study asks for, not finished
    driver's memory         its peak, from the study to the report, in MiB
    driver ms a trial       its own processor time while the trials run, expansion and report aside
    recognised              seconds until the same command knows that nothing is left to do
    report                  seconds to summarise them all; it follows on both

    python benchmarks/scale.py [--trials 10000] [--workers 2]

The other figures are the inputs of the plan in docs/clusters.md: what a trial costs the driver and the file system.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

TARGETS = {
    "trials lost": 0.0,
    "driver's memory, MiB": 1024.0,
    "driver ms a trial": 20.0,
    "recognised, s": 10.0,
}
STUDY = {"name": "scale", "envs": ["FrozenLake-v1"], "agents": ["random"], "evaluation": {"episodes": 2}}


def memory() -> float:
    """The peak of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(trials: int, workers: int, folder: Path) -> dict[str, float]:
    from mpagents import Study
    from mpagents.cluster import Nodes
    from mpagents.ray_session import ray_session
    from mpagents.results import ledger
    from mpagents.results.results import Results
    from mpagents.runner import run_on_ray
    from mpagents.specification import Resources

    figures: dict[str, float] = {}
    heard: list[int] = []

    def run_all(specs: list[Any], where: Path) -> None:
        run_on_ray(specs, where, lambda message: heard.append(1), Nodes(Resources()))

    with ray_session(workers, None):
        run_all(Study.from_values(STUDY | {"seeds": 4 * workers}).trials().trials, folder / "warm-up")
        heard.clear()
        before, study = memory(), Study.from_values(STUDY | {"seeds": trials})
        expansion, figures["expanded, s"] = timed(study.trials)
        folder.mkdir(exist_ok=True)
        ledger.write_study(folder, study, expansion)
        begun = time.process_time()
        _, figures["ran, s"] = timed(lambda: run_all(expansion.trials, folder))
        figures["driver ms a trial"] = (time.process_time() - begun) / trials * 1e3
    figures["driver's memory, kB a trial"] = (memory() - before) * 1024 / trials
    figures["messages a trial"] = len(heard) / trials
    left, figures["recognised, s"] = timed(lambda: ledger.unfinished(folder, expansion.trials))
    figures["trials lost"] = len(left)
    _, figures["report, s"] = timed(Results(folder).write)
    figures["driver's memory, MiB"] = memory()
    return figures


def timed(function: Any) -> tuple[Any, float]:
    begun = time.perf_counter()
    return function(), time.perf_counter() - begun


def footprint(folder: Path) -> dict[str, float]:
    """Of one finished trial on the disk."""
    (trial,) = folder.glob("*/*/seed=1")
    entries = list(trial.rglob("*"))
    size = sum(path.stat().st_size for path in entries if path.is_file())
    return {"files of a trial": len(entries) + 1, "kB of a trial": size / 1e3}


def calls() -> dict[str, float]:
    """Calls of one trial that change the file system, and those that wait for the disk."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from benchmarks.fault_rows.writes import Fault
    from mpagents import Study
    from mpagents.trial import run_trial

    (spec,) = Study.from_values(STUDY | {"seeds": 1}).trials().trials
    with tempfile.TemporaryDirectory() as folder, Fault().armed() as counting:
        run_trial(spec, Path(folder))
    return {"writing calls of a trial": counting.count}


def again(folder: Path, trials: int) -> float:
    """Seconds of the whole command on the finished study: start, recognition, report."""
    (folder / "study.yaml").write_text(json.dumps(STUDY | {"seeds": trials}))
    command = [sys.executable, "-m", "mpagents", "run", "study.yaml", "--out", str(folder), "--json"]
    done, seconds = timed(lambda: subprocess.run(command, cwd=folder, capture_output=True, text=True))
    assert done.returncode == 0, done.stderr
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root).resolve()
        figures = measure(arguments.trials, arguments.workers, folder / "scale")
        figures |= footprint(folder / "scale") | calls()
        figures["the same command again, s"] = again(folder, arguments.trials)
    table = Table(title=f"{arguments.trials:,} trials, {arguments.workers} workers", title_justify="left")
    for name in ("figure", "measured", "target"):
        table.add_column(name, justify="right" if name != "figure" else "left")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.4g}", f"≤ {TARGETS[name]:,g}" if name in TARGETS else "")
    Console(width=100).print(table)
    raise SystemExit(any(figures[name] > target for name, target in TARGETS.items()))


if __name__ == "__main__":
    main()
