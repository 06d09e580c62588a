"""The command `tune`: search hyperparameters, and report the best ones on seeds that the search never used."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mpagents.cli_shared import RUNS, Address, Fresh, Json, Out, Sets, Workers, told


def tune(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="A study file with a tune: block")],
    sets: Sets = None, out: Out = RUNS, workers: Workers = None, address: Address = None, fresh: Fresh = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be searched and stop")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Search hyperparameters, or continue a search; the best are evaluated on seeds of their own."""
    from mpagents.study_file import apply_overrides, read_study_file

    with told(as_json, study):
        values, lines = read_study_file(study)
        with told(as_json, study, lines):
            from mpagents.tune_study import TuneStudy

            spec = TuneStudy.from_values(apply_overrides(values, sets or ()))
            if dry_run:
                _show(spec, as_json)
                return
            from mpagents.tune import tune as search

            show = "quiet" if as_json else "auto"
            _tell(search(spec, out=out, workers=workers, address=address, fresh=fresh, show=show), as_json)


def _show(spec: Any, as_json: bool) -> None:
    """The pairs, their spaces, and how many trials there are."""
    rows = [
        {
            "pair": pair.name,
            "configurations": spec.num_samples(pair),
            "seeds": spec.tuning.search_seeds,
            "evaluations": pair.marks,
            "space": {key: {domain.kind: list(domain.values)} for key, domain in pair.space.items()},
        }
        for pair in spec.pairs
    ]
    if as_json:
        print(json.dumps({"name": spec.study.name, "pairs": rows, "others": [pair.name for pair in spec.others]}))
        return
    for row in rows:
        told = f"{row['configurations']} configurations × {len(row['seeds'])} seeds, {row['evaluations']} evaluations each"
        print(f"{row['pair']}  {told}")
        for key, domain in row["space"].items():
            print(f"    {key}: {json.dumps(domain)}")
    for pair in spec.others:
        print(f"{pair.name}  as it is")


def _tell(tuned: Any, as_json: bool) -> None:
    """The finalists' table, and of each pair the best configuration beside the default."""
    tried = {name: [entry.state for entry in entries] for name, entries in tuned.tried.items()}
    counts = {
        name: {state: states.count(state) for state in ("finished", "stopped", "failed")} for name, states in tried.items()
    }
    report = tuned.results.folder / "report.html"
    if as_json:
        rows = json.loads(tuned.results.summary().to_json(orient="records"))
        found = {"folder": str(tuned.folder), "report": str(report), "pairs": tuned.pairs, "tried": counts, "summary": rows}
        print(json.dumps(found))
    else:
        from mpagents.table import print_table

        print_table(tuned.results, report)
    from mpagents.table import _short

    for row in [] if as_json else tuned.pairs:
        tally = ", ".join(f"{count} {state}" for state, count in counts[row["pair"]].items() if count)
        if row["best"] is None:
            print(f"{row['pair']}: {tally}; none could be evaluated", file=sys.stderr)
            continue
        values = ", ".join(f"{key.split('.', 2)[-1]} {_number(value)}" for key, value in row["values"].items())
        default = f", by default {row['default']:.4g}" if row["default"] is not None else ""
        print(f"{row['pair']}: {tally}; best {row['label']} ({values}): {row['metric']} {row['best']:.4g}{default}")
        print(f"  as a study: {_short(tuned.folder / row['study_file'])}")
    if len(tuned.results.failed()) or any(row["best"] is None for row in tuned.pairs):
        raise typer.Exit(1)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
