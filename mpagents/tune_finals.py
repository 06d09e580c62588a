"""After a search: its best configurations, evaluated anew on the study's own seeds beside the default, and the best of them
written as a study file.

The finalists are chosen by the search, on the search's seeds; what is reported of them comes from trials on seeds that the
search never used, run as those of any study in `<folder>/final`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mpagents.results.files import write_atomically, write_json
from mpagents.results.results import Results
from mpagents.results.statistics import interquartile_mean, probability_of_improvement
from mpagents.specification import Expansion, Resources, TrialSpec
from mpagents.tune_ledger import Entry, Ledger
from mpagents.tune_specification import Pair
from mpagents.tune_study import TuneStudy

FINAL = "final"  # the folder of the finalists' study


@dataclass(frozen=True)
class Finalist:
    pair: Pair
    entry: Entry

    @property
    def label(self) -> str:
        return f"{self.pair.agent}.{self.entry.id}"


@dataclass(frozen=True)
class Finals:
    """The study of the finalists, as the runner takes one."""

    study: TuneStudy
    finalists: list[Finalist]
    name: str = FINAL

    @property
    def resources(self) -> Resources:
        return self.study.study.resources

    def trials(self) -> Expansion:
        study = self.study.study
        seeds = list(range(study.seeds)) if isinstance(study.seeds, int) else list(study.seeds)
        by_contender: list[list[TrialSpec]] = []
        for pair in [*self.study.pairs, *self.study.others]:
            by_contender.append(pair.trials({}, seeds))
            own = [finalist for finalist in self.finalists if finalist.pair is pair]
            by_contender += [pair.trials(finalist.entry.values, seeds, label=finalist.label) for finalist in own]
        order = {label: i for i, label in enumerate(dict.fromkeys(trials[0].env.label for trials in by_contender))}
        by_contender.sort(key=lambda trials: order[trials[0].env.label])
        trials = [trials[i] for i in range(len(seeds)) for trials in by_contender]
        return Expansion([dataclasses.replace(trial, study=self.name) for trial in trials], [])

    def to_values(self) -> dict[str, Any]:
        """The study that was searched, for the report."""
        return self.study.study.to_values() | {"name": f"{self.study.study.name}, finalists"}


def ranked(ledger: Ledger, direction: str) -> list[Entry]:
    """The configurations that a search has tried, the best first: those that finished before those that were stopped."""
    sign = -1.0 if direction == "max" else 1.0
    tried = [entry for entry in ledger.ended() if entry.state in ("finished", "stopped") and entry.value is not None]
    return sorted(tried, key=lambda e: (e.state != "finished", -e.mark if e.state == "stopped" else 0, sign * (e.value or 0.0)))


def finalists(study: TuneStudy, ledgers: dict[str, Ledger]) -> list[Finalist]:
    """Of each searched pair the best configurations, none twice; the default's own values last: it is judged anyway."""
    found = []
    for pair in study.pairs:
        distinct: list[Entry] = []
        for entry in ranked(ledgers[pair.name], study.tuning.direction):
            if all(entry.values != other.values for other in distinct):
                distinct.append(entry)
        default = _trial(pair, {})
        distinct.sort(key=lambda entry: _trial(pair, entry.values) == default)
        found += [Finalist(pair, entry) for entry in distinct[: study.tuning.finalists]]
    return found


def _trial(pair: Pair, values: dict[str, Any]) -> str:
    """Which trial these values make, whatever isn't said being as by default."""
    return pair.trials(values, [0], label="same")[0].hash


def conclude(study: TuneStudy, chosen: list[Finalist], results: Results, folder: Path) -> list[dict[str, Any]]:
    """Compare each pair's finalists with its default; write the best as a study file; also all of it in `tuned.json`."""
    told = []
    for pair in study.pairs:
        figures = {f.label: _scores(results, pair, f.label, study.tuning.metric) for f in chosen if f.pair is pair}
        default = _scores(results, pair, pair.agent, study.tuning.metric)
        known = {label: scores for label, scores in figures.items() if len(scores)}
        row: dict[str, Any] = {"pair": pair.name, "metric": study.tuning.metric, "default": _mean(default), "best": None}
        if known:
            sign = 1.0 if study.tuning.direction == "max" else -1.0
            label = max(known, key=lambda label: sign * float(interquartile_mean(known[label])))
            values = next(f.entry.values for f in chosen if f.pair is pair and f.label == label)
            path = folder / ("best.yaml" if len(study.pairs) == 1 else f"best-{pair.name}.yaml")
            row |= {"best": _mean(known[label]), "label": label, "values": values, "study_file": path.name}
            if len(default):
                row["probability_of_improvement"] = probability_of_improvement(sign * known[label], sign * default).value
            write_atomically(path, _study_file(study, pair, row))
        told.append(row)
    write_json(folder / "tuned.json", told)
    return told


def _scores(results: Results, pair: Pair, agent: str, metric: str) -> np.ndarray:
    """The final figures of a contender's finished seeds."""
    trials = results.trials()
    own = (trials["env"] == pair.env) & (trials["agent"] == agent) & (trials["encoder"] == pair.encoder)
    return trials[own & (trials["status"] == "finished")][metric].dropna().to_numpy(float)


def _mean(scores: np.ndarray) -> float | None:
    return float(interquartile_mean(scores)) if len(scores) else None


def _study_file(study: TuneStudy, pair: Pair, row: dict[str, Any]) -> str:
    """The tuned agent as a study of its own, which `mpagents run` takes."""
    values = pair.with_values(row["values"]) | {"name": f"{study.study.name}-best"}
    values = {key: value for key, value in values.items() if key != "encoders" or value != [None]}
    told = f"{row['metric']} {row['best']:.5g} over the study's seeds"
    default = f", by default {row['default']:.5g}" if row["default"] is not None else ""
    heading = f"# The best configuration that `mpagents tune` found for {pair.name}: {told}{default}.\n"
    return heading + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
