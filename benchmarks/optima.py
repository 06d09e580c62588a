"""Every generative model against the best that is possible: one table of optimum, reached, gap and seconds.

    python benchmarks/optima.py                 # all rows, and docs/optima.md anew
    python benchmarks/optima.py --only made     # rows that have this in their names, printed

The rows are in `benchmarks/known_optima/`, a file for each family; each is a training from scratch on one core.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # rows are found by `benchmarks.known_optima`, wherever this is run from
PAGE = HERE.parent / "docs" / "optima.md"
FAMILIES = ("networks", "autoencoders", "autoregressive", "pixels", "sequences", "recurrent")


def measured(rows: list) -> list[str]:
    """The table's lines, each printed as soon as it is there."""
    lines = ["| model | task | optimum | target | reached | gap | | seconds |", "|---|---|---|---|---|---|---|---|"]
    print("\n".join(lines))
    for row in rows:
        begun = time.perf_counter()
        reached, gap, met = row.measure()
        seconds = time.perf_counter() - begun
        mark = {True: "✓", False: "missed", None: "not measured"}[met]
        lines.append(
            f"| {row.model} | {row.task} | {row.optimum} | {row.target} | {reached} | {gap} | {mark} | {seconds:.0f} |"
        )
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="rows whose model or task has this text; the page stays as it is")
    only = parser.parse_args().only
    import torch

    torch.set_num_threads(1)
    rows = [row for family in FAMILIES for row in importlib.import_module(f"benchmarks.known_optima.{family}").ROWS]
    lines = measured([row for row in rows if only is None or only in f"{row.model} {row.task}"])
    if only is None:
        opening = PAGE.read_text().split("| model |")[0]
        PAGE.write_text(opening + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
