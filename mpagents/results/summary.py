"""What a study's folder holds, read back as two tables, and its summary: one row per environment and agent.

A file that cannot be read (half of it, a torn last line) is named in `StudyResults.unreadable` and left out: a study in
progress, or one whose machine died, is still summarised. Whatever depends on the seeds is the same at every reading; the
wall-clock figure, `seconds`, is the last column.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from mpagents.results.files import write_atomically, write_json
from mpagents.results.statistics import bootstrap_interval, interquartile_mean

CONFIDENCE = 0.95
RESAMPLES = 2000
FINAL_KEYS = ("mean_reward", "std_reward", "mean_ep_length", "regret", "episodes", "truncated")
GROUP = ["env", "agent", "encoder"]
EVALUATION_COLUMNS = [*GROUP, "seed", "step", "eval/mean_reward"]


@dataclass(frozen=True)
class StudyResults:
    folder: Path
    name: str
    study: dict[str, Any]  # the study as given
    versions: dict[str, str]
    skipped: list[dict[str, str]]  # incompatible pairs that were left out: env, agent, reason
    trials: pd.DataFrame  # one row per trial that the study asks for; see `_trial_row`
    evaluations: pd.DataFrame  # one row per evaluation: env, agent, encoder ("" for none), seed, step, eval/*
    unreadable: tuple[str, ...]  # "file: what is wrong with it"


def read_study(folder: Path | str) -> StudyResults:
    """Read `study.json` and every trial that it asks for.

    Raises: ValueError if the folder holds no readable `study.json`.
    """
    folder = Path(folder)
    unreadable: list[str] = []
    study = _read_object(folder / "study.json", unreadable)
    if study is None:
        reason = unreadable[0] if unreadable else f"{folder / 'study.json'} does not exist"
        raise ValueError(f"{folder} is not the folder of a study: {reason}; give the folder that `mpagents run` wrote")
    rows, evaluations = [], []
    for path in study.get("trials") or []:
        identity = _identity(path)
        if identity is None:
            unreadable.append(f"study.json: trial {path!r} is not <env>/<agent>[+<encoder>]/seed=<n>")
            continue
        rows.append(_trial_row(folder / path, {"path": path, **identity}, unreadable))
        evaluations += [{**identity, **line} for line in _evaluation_lines(folder / path / "metrics.jsonl", unreadable)]
    return StudyResults(
        folder=folder,
        name=str(study.get("name", folder.name)),
        study=_object(study.get("study")),
        versions=_object(study.get("versions")),
        skipped=study.get("skipped") or [],
        trials=pd.DataFrame(rows, columns=None if rows else ["path", *GROUP, "seed", "status"]),
        evaluations=_evaluation_table(evaluations),
        unreadable=tuple(path.removeprefix(f"{folder}{os.sep}") for path in unreadable),
    )


def summarise(results: StudyResults, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES) -> pd.DataFrame:
    """One row per (env, agent, encoder), in the study's order; figures are over finished seeds.

    `mean_reward` (the final policy), `best_mean_reward` (the best checkpoint on fresh seeds) and `regret` are interquartile
    means with `_low` and `_high`, the ends of their bootstrap interval; NaN where a finished seed doesn't know them. `steps` is
    0 for a planner.
    """
    if results.trials.empty:
        return pd.DataFrame(columns=[*GROUP, "seeds_finished", "seeds_asked", "failed"])
    rows = []
    for (env, agent, encoder), trials in results.trials.groupby(GROUP, sort=False):
        finished = trials[trials["status"] == "finished"]
        row = {
            "env": env,
            "agent": agent,
            "encoder": encoder,
            "planner": bool(trials["planner"].any()),
            "seeds_finished": len(finished),
            "seeds_asked": len(trials),
            "failed": int((trials["status"] == "failed").sum()),
            "steps": 0 if trials["planner"].any() else trials["steps"].max(),
        }
        for key in ("mean_reward", "best_mean_reward", "regret"):
            row |= _interval_columns(key, finished[key].to_numpy(float), confidence, resamples)
        row["mean_ep_length"] = float(interquartile_mean(finished["mean_ep_length"])) if len(finished) else math.nan
        row["truncated"] = float(finished["truncated"].mean())
        row["seconds"] = float(finished["seconds"].mean())
        rows.append(row)
    return pd.DataFrame(rows).astype({"steps": "Int64"})


def write_summary(folder: Path | str, results: StudyResults | None = None) -> tuple[Path, Path]:
    """Write `summary.csv` and `summary.json` into the study's folder, each whole or not at all; returns their paths."""
    folder = Path(folder)
    results = results or read_study(folder)
    table = summarise(results)
    status = results.trials["status"]
    summary = {
        "name": results.name,
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "trials": {
            "asked": len(status),
            "finished": int((status == "finished").sum()),
            "failed": int((status == "failed").sum()),
        },
        "unreadable": list(results.unreadable),
        "rows": [{key: _json_value(value) for key, value in row.items()} for row in table.to_dict("records")],
    }
    write_atomically(folder / "summary.csv", table.to_csv(index=False, lineterminator="\n"))
    write_json(folder / "summary.json", summary)
    return folder / "summary.csv", folder / "summary.json"


def _identity(path: object) -> dict[str, Any] | None:
    """Env, agent, encoder and seed as a trial's relative folder spells them; None where it doesn't, or leaves the study."""
    parts = PurePosixPath(str(path)).parts
    leaves = ".." in parts or parts[:1] == ("/",) or not str(path).isprintable()  # that would reach a terminal as commands
    if len(parts) != 3 or leaves or not parts[2].removeprefix("seed=").isdecimal():
        return None
    agent, _, encoder = parts[1].partition("+")
    return {"env": parts[0], "agent": agent, "encoder": encoder, "seed": int(parts[2].removeprefix("seed="))}


def _trial_row(folder: Path, identity: dict[str, Any], unreadable: list[str]) -> dict[str, Any]:
    """`status` is finished, failed, running, pending (no status yet) or unreadable; figures are NaN where unknown."""
    known = len(unreadable)
    trial = _read_object(folder / "trial.json", unreadable) or {}
    status = _read_object(folder / "status.json", unreadable)
    state = "pending" if len(unreadable) == known else "unreadable"
    written = math.nan
    if status is not None:
        state = str(status.get("status", "unreadable"))
        written = (folder / "status.json").stat().st_mtime
    final, best, error = (_object((status or {}).get(key)) for key in ("final", "best", "error"))
    return {
        **identity,
        "status": state,
        "planner": bool(trial.get("planner", False)),
        "steps": _number(trial.get("steps")),
        **{key: _number(final.get(key)) for key in FINAL_KEYS},
        "best_step": _number(best.get("step")),
        **{f"best_{key}": _number(best.get(key)) for key in FINAL_KEYS},
        **{f"error_{key}": str(error.get(key) or "") for key in ("type", "message", "traceback")},
        "seconds": _number((status or {}).get("seconds")),
        "written": written,  # when status.json was, in seconds since 1970
    }


def _evaluation_lines(path: Path, unreadable: list[str]) -> Iterator[dict[str, float]]:
    """`step` and the `eval/` figures of each line that has any."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        unreadable.append(f"{path}: {error.strerror}")
        return
    for number, line in enumerate(lines, start=1):
        if b'"eval/' not in line and line[-1:] in (b"}", b""):
            continue  # most lines: not parsed, for speed
        try:
            metrics = json.loads(line)
            row: dict[str, float] = {"step": int(metrics["step"])}
            row |= {key: _number(value) for key, value in metrics.items() if key.startswith("eval/")}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            unreadable.append(f"{path}: line {number} is not a whole JSON object with a step")
            continue
        if len(row) > 1:
            yield row


def _evaluation_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One row per trial and step: where a step was evaluated twice (after a resume), the later line counts."""
    if not rows:
        return pd.DataFrame(columns=EVALUATION_COLUMNS)
    table = pd.DataFrame(rows)
    others = sorted(key for key in table.columns if key not in EVALUATION_COLUMNS)
    table = table.reindex(columns=[*EVALUATION_COLUMNS, *others])
    return table.drop_duplicates([*GROUP, "seed", "step"], keep="last", ignore_index=True)


def _interval_columns(key: str, scores: np.ndarray, confidence: float, resamples: int) -> dict[str, float]:
    if not len(scores) or np.isnan(scores).any():
        return {key: math.nan, f"{key}_low": math.nan, f"{key}_high": math.nan}
    low, high = bootstrap_interval(scores, confidence=confidence, resamples=resamples)
    return {key: float(interquartile_mean(scores)), f"{key}_low": float(low), f"{key}_high": float(high)}


def _read_object(path: Path, unreadable: list[str]) -> dict[str, Any] | None:
    """The JSON object in `path`; None where there is no file, or none that can be read, which is then named."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        unreadable.append(f"{path}: {error}")
        return None
    if not isinstance(content, dict):
        unreadable.append(f"{path}: got {type(content).__name__}, expected a JSON object")
        return None
    return content


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _json_value(value: Any) -> Any:
    return None if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)) else value
