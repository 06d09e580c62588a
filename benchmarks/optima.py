"""Every generative model against the best that is possible: one table of optimum, reached, gap and seconds.

    python benchmarks/optima.py                 # all rows, into docs/optima.md
    python benchmarks/optima.py --only made     # rows that have this in their names

The rows are in `benchmarks/known_optima/`, a file for each family; each is a training from scratch on one core.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.known_optima import Row

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # rows are found by `benchmarks.known_optima`, wherever this is run from
HEADER = "| model | task | optimum | target | reached | gap | | seconds |\n|---|---|---|---|---|---|---|---|\n"
PAGE = HERE.parent / "docs" / "optima.md"
FAMILIES = (
    "networks", "autoencoders", "autoregressive", "pixels", "sequences", "recurrent", "flows", "adversarial", "diffusion",
    "contrastive",
)  # fmt: skip


def measured(row: Row) -> str:
    """The row's line in the table."""
    begun = time.perf_counter()
    reached, gap, met = row.measure()
    seconds = time.perf_counter() - begun
    mark = {True: "✓", False: "missed", None: "–"}[met]
    return f"| {row.model} | {row.task} | {row.optimum} | {row.target} | {reached} | {gap} | {mark} | {seconds:.0f} |"


def place_of(line: str) -> tuple[str, ...]:
    """(model, task) of a line."""
    return tuple(line.split(" | ")[:2])


def write(lines: list[str], order: list[tuple[str, ...]]) -> None:
    """Put lines into the page, in place of earlier ones of the same rows; lines of rows that are no more are dropped."""
    opening, *earlier = PAGE.read_text().split(HEADER)
    kept = {place_of(line): line for line in "".join(earlier).splitlines() if line.startswith("| ")}
    kept |= {place_of(line): line for line in lines}
    PAGE.write_text(opening + HEADER + "".join(f"{kept[place]}\n" for place in order if place in kept))


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="rows whose family, model or task has this text; others stay as they are on the page")
    only = parser.parse_args().only or ""
    import torch

    torch.set_num_threads(1)
    rows = [(f, row) for f in FAMILIES for row in importlib.import_module(f"benchmarks.known_optima.{f}").ROWS]
    order = [place_of(f"| {row.model} | {row.task} | ") for _, row in rows]
    print(HEADER, end="")
    for family, row in rows:
        if only in f"{family} {row.model} {row.task}":
            line = measured(row)
            print(line, flush=True)
            write([line], order)


if __name__ == "__main__":
    main()
