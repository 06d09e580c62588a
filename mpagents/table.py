"""What a finished study prints: the final table, where the report lies, how to open TensorBoard, and what failed."""

from __future__ import annotations

import math
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mpagents.results.results import Results

TITLE = "Final policy, interquartile mean over seeds [95 % interval]"


def print_table(results: Results, report_path: Path) -> None:
    """Print to standard output; paths as short as they can be from here."""
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    summary = results.summary()
    console.print(TITLE, style="italic", soft_wrap=True, highlight=False)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("agent", overflow="fold")
    for name in ("seeds", "return", "regret"):
        table.add_column(name, justify="right", overflow="fold")
    for env, rows in summary.groupby("env", sort=False):
        table.add_row(f"[bold]{escape(str(env))}[/]")
        for row in rows.to_dict("records"):
            agent = f"{row['agent']}+{row['encoder']}" if row["encoder"] else row["agent"]
            seeds = f"{row['seeds_finished']}/{row['seeds_asked']}"
            table.add_row(f"  {escape(agent)}", seeds, _interval(row, "mean_reward"), _interval(row, "regret"))
    console.print(table)
    console.print()
    for trial in results.failed().to_dict("records"):
        console.print(f"failed: {trial['path']}: {trial['error_message']}", style="red", markup=False, soft_wrap=True)
        console.print(f"  why: {_short(results.folder / str(trial['path']) / 'status.json')}", markup=False, soft_wrap=True)
    console.print(f"report       {_short(report_path)}", highlight=False, soft_wrap=True)
    console.print(f"TensorBoard  tensorboard --logdir {_short(results.folder)}", highlight=False, soft_wrap=True)


def _interval(row: dict, key: str) -> str:
    value, low, high = (row.get(name, math.nan) for name in (key, f"{key}_low", f"{key}_high"))
    if value is None or math.isnan(value):
        return "–"
    if math.isnan(low) or math.isnan(high):
        return f"{value:.3g}"
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
