"""The command line. Exit codes: 0 all is well, 1 trials failed, 2 what you gave is wrong, 130 interrupted."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mpagents.cli_models import fit, record
from mpagents.cli_shared import INTERRUPTED, RUNS, Address, Fresh, Json, Out, Sets, Workers, number, told
from mpagents.cli_tune import tune

app = typer.Typer(
    help="A reinforcement-learning bench: agents × environments × seeds, in parallel, into TensorBoard and a report.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="A study file, e.g. runs/quickstart.yaml")]


class Kind(StrEnum):
    agents = "agents"
    models = "models"
    envs = "envs"


@app.command()
def run(
    study: StudyFile, sets: Sets = None, out: Out = RUNS, workers: Workers = None, address: Address = None,
    fresh: Fresh = False, dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the trials and stop")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Run a study, or continue it where it was interrupted."""
    from mpagents.study import Study
    from mpagents.study_file import apply_overrides, read_study_file

    with told(as_json, study):
        values, lines = read_study_file(study)
        with told(as_json, study, lines):
            spec = Study.from_values(apply_overrides(values, sets or ()))
            _run(spec, out, workers, address, fresh, dry_run, as_json)


@app.command()
def train(
    agent: Annotated[str, typer.Argument(help="An agent's name (see `mpagents list agents`), or module:Class")],
    env: Annotated[str, typer.Argument(help="A Gymnasium id, module:Id-v0 or module:Class")],
    steps: Annotated[int, number("Environment steps")] = 100_000,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds")] = 1,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Of the agent, e.g. alpha=0.5")] = None,
    out: Out = RUNS, workers: Workers = None, address: Address = None, fresh: Fresh = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Train one agent in one environment: a study of one line."""
    from mpagents.specification import slug
    from mpagents.study import Study
    from mpagents.study_file import apply_overrides

    with told(as_json):
        entry = apply_overrides({"name": agent}, sets or ())
        values = {"name": f"{slug(agent)}-{slug(env)}", "envs": [env], "agents": [entry], "steps": steps, "seeds": seeds}
        values["evaluation"] = {"every": max(1, steps // 20)}
        _run(Study.from_values(values), out, workers, address, fresh, False, as_json)


@app.command()
def evaluate(
    trial: Annotated[Path, typer.Argument(metavar="TRIAL", help="A trial's folder: runs/<study>/<env>/<agent>/seed=<n>")],
    episodes: Annotated[int | None, typer.Option(min=1, help="[default: 100, and 1 in the video]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the evaluation's environments")] = 0,
    env: Annotated[str | None, typer.Option(help="Another environment's id, or module:Id of a module of your own")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Import modules that only the results folder names")] = False,
    video: Annotated[Path | None, typer.Option(metavar="FILE", help="Record episodes into FILE.mp4 or FILE.gif")] = None,
    as_json: Json = False,
) -> None:
    """Evaluate a trained agent on fresh episodes, and record it."""
    with told(as_json):
        from mpagents.evaluation import evaluate as evaluation
        from mpagents.seeding import derive
        from mpagents.trained import load_trained

        spec, agent, spaces = load_trained(trial, env, trust)
        recorded: dict[str, Any] | None = None
        if video is not None:
            from mpagents.video import record

            recorded = record(agent, spec.env, video, episodes=episodes or 1, seed=seed)
        episodes = episodes or 100
        figures = evaluation(agent, spec.env, spaces, episodes=episodes, seed=derive(seed, "evaluate"))
        if as_json:
            more = {"video": recorded} if recorded else {}
            print(json.dumps({"trial": str(trial), "episodes": episodes, **figures, **more}))
            return
        listed = ", ".join(f"{key.replace('_', ' ')} {value:.5g}" for key, value in figures.items())
        print(f"{spec.agent.label} on {spec.env.label}, seed {spec.seed}, {episodes} episodes: {listed}")
        if recorded:
            returns = ", ".join(f"{value:.5g}" for value in recorded["returns"])
            print(f"{recorded['path']}: {recorded['frames']} frames, return {returns}")


app.command()(tune)
app.command()(record)
app.command()(fit)


@app.command()
def report(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="A study's folder, or its name within --out")],
    out: Out = RUNS, as_json: Json = False,
) -> None:  # fmt: skip
    """Write the summary and the report of a study's folder anew."""
    with told(as_json):
        from mpagents.results.results import Results

        folder = study if (study / "study.json").is_file() else out / study
        results = Results(folder)
        path = results.write()
        _tell(results, path, as_json)


@app.command("list")
def list_(kind: Annotated[Kind, typer.Argument()] = Kind.agents, as_json: Json = False) -> None:
    """List the agents or the generative models with their settings, or the environments."""
    from mpagents import listing

    rows = {Kind.agents: listing.agents, Kind.models: listing.models, Kind.envs: listing.environments}[kind]()
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['name']:<28} {row['about']}")
        for setting in row.get("settings", ()):
            print(f"    {setting}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check that everything mpagents needs is there and works."""
    from mpagents.doctor import examine

    findings = examine()
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            print(f"{'ok ' if finding.ok else 'BAD'}  {finding.what:<22} {finding.found}")
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


def _run(study: Any, out: Path, workers: int | None, address: str | None, fresh: bool, dry: bool, as_json: bool) -> None:
    if dry:
        expansion = study.trials()
        rows = [{"path": t.path, "steps": t.steps, "config": t.agent.config} for t in expansion.trials]
        if as_json:
            skipped = [vars(pair) for pair in expansion.skipped]
            print(json.dumps({"name": study.name, "trials": rows, "skipped": skipped}))
            return
        for pair in expansion.skipped:
            print(f"left out: {pair.agent} on {pair.env}: {pair.reason}")
        for row in rows:
            print(f"{row['path']}  {row['steps']:,} steps  {json.dumps(row['config'])}")
        print(f"{len(rows)} trial{'s' * (len(rows) != 1)}")
        return
    from mpagents.runner import run as run_study

    results = run_study(study, out=out, workers=workers, address=address, fresh=fresh, show="quiet" if as_json else "auto")
    _tell(results, results.folder / "report.html", as_json)


def _tell(results: Any, report_path: Path, as_json: bool) -> None:
    """The table, where to look, and what failed."""
    failed = results.failed()
    if as_json:
        rows = json.loads(results.summary().to_json(orient="records"))
        print(json.dumps({"folder": str(results.folder), "report": str(report_path), "failed": len(failed), "summary": rows}))
    else:
        from mpagents.table import print_table

        print_table(results, report_path)
    if len(failed):
        raise typer.Exit(1)


def main() -> None:
    """The entry point: what lies in the folder where the command runs comes first on the path."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        app()
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)  # all is put away; Ray, interrupted as it starts, would crash as the interpreter ends
        raise


if __name__ == "__main__":
    main()
