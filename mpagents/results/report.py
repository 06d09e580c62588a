"""`report.html`: one page that tells what a study found, opens offline, and asks nothing of the network.

plotly.js is inlined once, a content security policy forbids every request and every script but the page's own, and jinja2
escapes all that comes from files: labels, configurations, error messages.
"""

from __future__ import annotations

import json
import math
import secrets
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mpagents.results.curves import Curve, contender_of, contenders, learning_curves
from mpagents.results.figures import colour_of, dash_of, regret_figure, reward_figure
from mpagents.results.files import write_atomically
from mpagents.results.statistics import Estimate, probability_of_improvement
from mpagents.results.summary import RESAMPLES, StudyResults, read_study, summarise

MANY_SEEDS = 10  # from which on a percentile interval is about as wide as it says (Agarwal et al. 2021, §4.2)
SHOWN_TRIALS = 10  # of the trials that failed for one reason
LARGE_MATRIX = 6  # contenders above which intervals move from the matrix's cells into their tooltips
BETTER, WORSE = (94, 160, 208), (236, 160, 88)  # of the matrix at 1 and 0; blue and orange, white at ½


def write_report(folder: Path | str, results: StudyResults | None = None) -> Path:
    """Write `report.html` into the study's folder, whole or not at all; returns its path."""
    folder = Path(folder)
    results = results or read_study(folder)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("mpagents.results") / "report.html").read_text(encoding="utf-8"))
    write_atomically(folder / "report.html", template.render(_page(results)))
    return folder / "report.html"


def format_number(value: float) -> str:
    """Three significant digits, thousands separated, and a dash for what is unknown."""
    if not math.isfinite(value):
        return "–"
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", "−")
    if abs(value) < 1e-4:
        return f"{value:.2g}".replace("-", "−")
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}".replace("-", "−")


def format_estimate(value: float, low: float, high: float) -> dict[str, str]:
    """The value and its interval with the decimals that the interval's width deserves: two digits of it, four of the value."""
    if not (math.isfinite(low) and math.isfinite(high)) or low == high:
        return {
            "value": format_number(value),
            "interval": f"[{format_number(low)}, {format_number(high)}]" if low == high else "",
        }
    size = max(abs(low), abs(high))
    decimals = max(0, min(1 - math.floor(math.log10(high - low)), 3 - math.floor(math.log10(size))))
    value_, low_, high_ = (f"{number:,.{decimals}f}".replace("-", "−") for number in (value, low, high))
    return {"value": value_, "interval": f"[{low_}, {high_}]"}


def format_duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "–"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _page(results: StudyResults) -> dict[str, Any]:
    """Everything that the template shows."""
    table, order = summarise(results), contenders(results)
    finished = table["seeds_finished"] if len(table) else pd.Series(dtype=int)
    figures: dict[str, dict[str, Any]] = {}
    sections = [_section(results, table, order, env, place, figures) for place, env in enumerate(table["env"].unique())]
    return {
        "name": results.name,
        "outcome": _outcome(results, table),
        "one_seed": bool(finished.max() == 1),
        "few_seeds": bool(((finished > 0) & (finished < MANY_SEEDS)).any()),
        "many_seeds": MANY_SEEDS,
        "resamples": RESAMPLES,
        "sections": sections,
        "failures": _failures(results.trials),
        "shown_trials": SHOWN_TRIALS,
        "skipped": results.skipped,
        "unreadable": results.unreadable,
        "config": yaml.safe_dump(results.study, sort_keys=False, allow_unicode=True),
        "versions": results.versions,
        "tensorboard": f"tensorboard --logdir {shlex.quote(str(results.folder))}",
        "plotly": Markup(get_plotlyjs()) if figures else "",
        "figures": Markup(json.dumps(_finite(figures), allow_nan=False).replace("<", "\\u003c")),  # no "</script>" in it
        "nonce": secrets.token_urlsafe(16),
    }


def _outcome(results: StudyResults, table: pd.DataFrame) -> str:
    """One sentence: what ran, how it ended, and when."""
    counts = results.trials["status"].value_counts()
    seeds = sorted(set(table["seeds_asked"])) if len(table) else [0]
    ended = [f"{counts.get('finished', 0)} of {_count(len(results.trials), 'trial')} finished"]
    for status, said in {
        "failed": "failed",
        "running": "unfinished",
        "pending": "not started",
        "unreadable": "unreadable",
    }.items():
        if counts.get(status, 0):
            ended.append(f"{counts[status]} {said}")
    written = results.trials["written"].max() if "written" in results.trials else math.nan
    when = f"; last result on {datetime.fromtimestamp(written):%Y-%m-%d at %H:%M}" if math.isfinite(written) else ""
    ran = f"{_count(len(contenders(results)), 'agent')} on {_count(results.trials['env'].nunique(), 'environment')}"
    each = _count(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    steps = set(table.loc[table["steps"] > 0, "steps"]) if len(table) else set()
    each += f" of {steps.pop():,} steps" if len(steps) == 1 else ""
    return f"{ran}, {each} each: {', '.join(ended)}{when}."


def _section(
    results: StudyResults, table: pd.DataFrame, order: Sequence[str], env: str, place: int, figures: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """One environment: its table, its matrix and the names of its figures, which are added to `figures`."""
    rows = table[table["env"] == env].sort_values("mean_reward", ascending=False, na_position="last", kind="stable")
    panels: list[dict[str, str]] = []
    drawn: list[Curve] = []
    for metric, title, figure in (
        ("mean_reward", "Reward while learning", reward_figure),
        ("regret", "Regret while learning (log scale)", regret_figure),
    ):
        curves = learning_curves(results, env, metric)
        if any(not curve.planner for curve in curves):
            figures[f"figure-{place}-{metric}"] = figure(curves, order)
            panels.append({"id": f"figure-{place}-{metric}", "title": title})
            drawn += curves
    return {
        "id": f"env-{place}",
        "env": env,
        "rows": [_row(row, order) for row in rows.to_dict("records")],
        "shown": {column: bool(rows[column].fillna(0).ne(0).any()) for column in ("best_mean_reward", "truncated")}
        | {"regret": bool(rows["regret"].notna().any())},
        "panels": panels,
        "drawn": {order.index(curve.contender) for curve in drawn},
        "planners": any(curve.planner for curve in drawn),
        "zero": any("shapes" in figures[panel["id"]]["layout"] for panel in panels),
        "matrix": _matrix(
            results.trials, env, [contender_of(row["agent"], row["encoder"]) for row in rows.to_dict("records")], order
        ),
    }


def _row(row: Mapping[Any, Any], order: Sequence[str]) -> dict[str, Any]:
    seeds = f"{row['seeds_finished']}" + ("" if row["seeds_finished"] == row["seeds_asked"] else f" of {row['seeds_asked']}")
    return {
        **_contender(contender_of(row["agent"], row["encoder"]), order),
        "planner": row["planner"],
        "seeds": seeds,
        "incomplete": row["seeds_finished"] < row["seeds_asked"],
        **{
            key: format_estimate(row[key], row[f"{key}_low"], row[f"{key}_high"])
            for key in ("mean_reward", "best_mean_reward", "regret")
        },
        "mean_ep_length": format_number(row["mean_ep_length"]),
        "truncated": f"{row['truncated']:.0%}" if row["truncated"] > 0 else "–",
        "seconds": format_duration(row["seconds"]),
    }


def _contender(label: str, order: Sequence[str]) -> dict[str, Any]:
    index = order.index(label)
    return {"label": label, "index": index, "colour": colour_of(index), "dash": dash_of(index)}


def _matrix(trials: pd.DataFrame, env: str, labels: Sequence[str], order: Sequence[str]) -> dict[str, Any] | None:
    """P(row better than column) in final reward; None where no two contenders have two finished seeds each."""
    finished = trials[(trials["env"] == env) & (trials["status"] == "finished")].dropna(subset=["mean_reward"])
    names = [contender_of(agent, encoder) for agent, encoder in zip(finished["agent"], finished["encoder"])]
    scores = {str(label): group.to_numpy(float) for label, group in finished["mean_reward"].groupby(names)}
    compared = [label for label in labels if label in scores and len(scores[label]) >= 2]
    if len(compared) < 2:
        return None
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for x, y in combinations(compared, 2):
        estimate = probability_of_improvement(scores[x], scores[y])
        cells[x, y] = _cell(estimate)
        cells[y, x] = _cell(Estimate(1 - estimate.value, 1 - estimate.high, 1 - estimate.low))
    return {
        "columns": [_contender(label, order) for label in compared],
        "rows": [{**_contender(x, order), "cells": [cells.get((x, y)) for y in compared]} for x in compared],
        "large": len(compared) > LARGE_MATRIX,
    }


def _cell(estimate: Estimate) -> dict[str, str]:
    end, share = (BETTER, 2 * estimate.value - 1) if estimate.value > 0.5 else (WORSE, 1 - 2 * estimate.value)
    red, green, blue = (round(255 + share * (channel - 255)) for channel in end)
    interval = f"[{estimate.low:.2f}, {estimate.high:.2f}]"
    return {"value": f"{estimate.value:.2f}", "interval": interval, "colour": f"rgb({red},{green},{blue})"}


def _failures(trials: pd.DataFrame) -> list[dict[str, Any]]:
    """Failed trials by reason, the most frequent first: one message and one traceback for all that share it."""
    if trials.empty:
        return []
    failed = trials[trials["status"] == "failed"]
    groups = [
        {"type": kind, "message": message, "paths": group["path"].tolist(), "traceback": group["error_traceback"].iloc[0]}
        for (kind, message), group in failed.groupby(["error_type", "error_message"], sort=False)
    ]
    return sorted(groups, key=lambda group: -len(group["paths"]))


def _finite(value: Any) -> Any:
    """`value` with null for every NaN and infinity, which JSON has not."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
