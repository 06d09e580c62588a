"""What the runner costs: 1,000 trials of Q-learning for 1,000 steps on FrozenLake-v1, against the same work without Ray.

The work itself is measured by running the same trials one after the other in one process. What a trial costs above it is

    overhead = (workers × wall time on Ray, without Ray's start and end − time of the work) / trials

and the driver's own processor time per trial stands beside it. Ray Tune is not in the table: a trial of it costs 1.5 s here.

    python benchmarks/runner.py [--trials 1000] [--workers 2]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

TARGET = 20.0  # milliseconds per trial

STUDY = {"envs": ["FrozenLake-v1"], "agents": ["q_learning"], "steps": 1_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    from mpagents.cluster import Nodes
    from mpagents.ray_session import ray_session
    from mpagents.results import ledger
    from mpagents.runner import run_on_ray
    from mpagents.specification import Resources
    from mpagents.study import Study
    from mpagents.worker import work

    study = Study.from_values({"name": "runner", "seeds": arguments.trials, **STUDY})
    trials = study.trials().trials
    with tempfile.TemporaryDirectory() as folder:
        list(work([trials[0].to_json()], f"{folder}/warm-up", []))
        start = time.perf_counter()
        list(work([spec.to_json() for spec in trials], f"{folder}/here", []))
        here = time.perf_counter() - start
        with ray_session(arguments.workers, None):
            nodes = Nodes(Resources())
            run_on_ray(trials[: 2 * nodes.slots], Path(folder, "warm"), lambda message: None, nodes)
            start, driver = time.perf_counter(), time.process_time()
            run_on_ray(trials, Path(folder, "ray"), lambda message: None, nodes)
            wall, driver = time.perf_counter() - start, time.process_time() - driver
        start = time.perf_counter()
        left = ledger.unfinished(Path(folder, "ray"), trials)
        recognised = time.perf_counter() - start
        assert not left, f"{len(left)} trials were lost"
    table = Table(title=f"{arguments.trials:,} trials, {arguments.workers} workers", title_justify="left")
    for name in ("figure", "per trial", "target"):
        table.add_column(name, justify="right" if name != "figure" else "left")
    count = arguments.trials
    table.add_row("the work itself, one process", f"{here / count * 1e3:.2f} ms", "")
    table.add_row("wall time on Ray", f"{wall / count * 1e3:.2f} ms", "")
    overhead = (arguments.workers * wall - here) / count * 1e3
    table.add_row("driver and scheduling above the work", f"{overhead:.2f} ms", f"≤ {TARGET:g} ms")
    table.add_row("driver's processor time", f"{driver / count * 1e3:.2f} ms", f"≤ {TARGET:g} ms")
    table.add_row("finished trials recognised", f"{recognised / count * 1e3:.3f} ms", "")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
