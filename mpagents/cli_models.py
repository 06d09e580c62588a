"""The commands about generative models: `record` what they learn from, and `fit` them."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mpagents.cli_shared import RUNS, Address, Fresh, Json, Out, Workers, number, told


def record(
    env: Annotated[str, typer.Argument(help="A Gymnasium id, module:Id-v0 or module:Class")],
    steps: Annotated[int, number("Observations to record, over all copies")] = 10_000,
    num_envs: Annotated[int, typer.Option("--num-envs", min=1, help="Copies stepped together")] = 4,
    policy: Annotated[
        str, typer.Option(help="random, a trial's folder, or module:function (observation, rng) -> action")
    ] = "random",
    epsilon: Annotated[float, typer.Option(min=0, max=1, help="Share of random actions among the policy's")] = 0.0,
    size: Annotated[str | None, typer.Option(metavar="HxW", help="Record frames of this size, e.g. 32x32")] = None,
    grey: Annotated[bool, typer.Option("--grey", help="Record grey frames")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Of the environment, e.g. kwargs.map_name=8x8")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="[default: recordings/<ENV>]")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Import modules that only the trial's folder names")] = False,
    fresh: Fresh = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Record an environment under a policy: a source for `fit`."""
    with told(as_json):
        from mpagents.recording import RecordingSpec, parse_size
        from mpagents.recording import record as record_environment
        from mpagents.specification import slug

        view = parse_size(size, grey)
        spec = RecordingSpec(env, steps, num_envs, policy, epsilon, view, seed, tuple(sets or ()))
        folder = out or Path("recordings") / slug(env)
        manifest = record_environment(spec, folder, fresh=fresh, trust=trust, show="quiet" if as_json else "auto")
        if as_json:
            shown = ("rows", "episodes", "columns", "num_actions")
            print(json.dumps({"folder": str(folder), **{key: manifest[key] for key in shown}}))
            return
        columns = ", ".join(f"{name} {column['shape']}" for name, column in manifest["columns"].items())
        print(f"{folder}: {manifest['rows']:,} rows, {manifest['episodes']:,} ended episodes; {columns}")


def fit(
    model: Annotated[str, typer.Argument(help="A model's name (see `mpagents list models`), or module:Class")],
    source: Annotated[str, typer.Argument(help="A recording's folder, env:ID, a source's name (digits), or module:Class")],
    steps: Annotated[int | None, number("Training steps  [default: 5,000]")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Of the model, e.g. latent=8")] = None,
    source_sets: Annotated[
        list[str] | None, typer.Option("--source", metavar="KEY=VALUE", help="Of the source, e.g. length=16")
    ] = None,
    fit_sets: Annotated[
        list[str] | None, typer.Option("--fit", metavar="KEY=VALUE", help="Of the training, e.g. learning_rate=3e-4")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds")] = 1,
    label: Annotated[str | None, typer.Option(help="The folder's name  [default: <model>-<source>]")] = None,
    out: Out = RUNS, workers: Workers = None, address: Address = None, fresh: Fresh = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Train a generative model, or continue its training where it was interrupted."""
    from mpagents.study_file import apply_overrides
    from mpagents.worker import limit_threads

    limit_threads()
    with told(as_json):
        config = apply_overrides({}, sets or ())
        source_config = apply_overrides({}, source_sets or (), "--source")
        settings = apply_overrides({}, fit_sets or (), "--fit")
        from mpagents.fit_specification import specify
        from mpagents.fitting import fit_all

        settings |= {"steps": steps} if steps else {}
        spec = specify(model, source, config=config, source_config=source_config, settings=settings, label=label)
        specs = [dataclasses.replace(spec, seed=seed) for seed in range(seeds)]
        root, show = out / "fit", "quiet" if as_json else "auto"
        if workers == 0 or (seeds == 1 and workers is None and address is None):
            statuses = fit_all(specs, root, fresh=fresh, show=show)
        else:
            from mpagents.runner import run_fits

            statuses = run_fits(specs, root.resolve(), fresh=fresh, workers=workers, address=address, show=show)
        _tell_fits(specs, root, statuses, as_json)


def _tell_fits(specs: list[Any], root: Path, statuses: list[dict[str, Any]], as_json: bool) -> None:
    """Where each model is and its loss, and what failed."""
    rows = [{"folder": str(root / spec.path), **status} for spec, status in zip(specs, statuses)]
    if as_json:
        print(json.dumps({"trainings": rows}))
    for row in [] if as_json else rows:
        if row["status"] == "failed":
            print(f"failed: {row['folder']}: {row['error']['message']}", file=sys.stderr)
            continue
        losses = {key: value for key, value in row["final"].items() if key.endswith("loss")} | (row["best"] or {})
        listed = ", ".join(f"{key} {value:.5g}" for key, value in losses.items())
        print(f"{row['folder']}/{row['model']}: {row['steps']:,} steps in {row['seconds']:.1f} s, {listed}")
    if any(status["status"] == "failed" for status in statuses):
        raise typer.Exit(1)
