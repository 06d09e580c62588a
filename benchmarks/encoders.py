"""Encoders compared: what agents reach on codes, on raw frames and on the true state, and what a code tells of the state.

    python benchmarks/encoders.py [--results runs] [--study catch|grid|cartpole]     the tables of what is there
    python benchmarks/encoders.py --run [--seeds 5] [--workers 2]                    runs what is missing first
    python benchmarks/encoders.py --only probes                                      CartPole's state from a VAE's code

The studies are runs/encoders-<name>.yaml. To each, `--run` adds the same study with the true state in place of frames (the
ceiling, in <results>/encoders-<name>-state), and to Catch latent diffusion over the study's VAE, and the encoders that need
labels, which are made of the true state here.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # before this folder, whose generative.py would be taken

import gymnasium
import numpy as np
import torch

import generative
import mpagents
from generative.diffusion.latent_diffusion import LatentDiffusion
from mpagents.probes import probe
from mpagents.results.statistics import bootstrap_interval, interquartile_mean
from mpagents.study import Study

ROOT = Path(__file__).resolve().parent.parent
STUDIES = "catch", "grid", "cartpole"
CEILING = "true-state"
COPIES = 64  # of a world watched at once
SHARE = 0.95  # of the true state's return
BINS = 8  # that a coordinate is cut in to make a label
GENERATIVE = "vae", "linear-vae", "beta_vae", "real_nvp", "diffusion", "latent_diffusion"  # fitted to frames alone
LABELLED: dict[str, dict[str, Any]] = {  # the models that need labels, and their training
    "classifier": {"num_classes": BINS**2, "network": "cnn", "channels": (16, 32), "hidden_sizes": (128,)},
    "clip": {"num_words": 2 * BINS + 1, "max_words": 2, "embedding": 32, "channels": (16, 32)},
}
FIT = {"steps": 1_000, "batch_size": 64}


def table(names: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """Print a Markdown table, or its head."""
    for cells in itertools.chain([names], rows):
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        if cells is names:
            print("|---" * len(names) + "|")


# The studies, run.


def run(name: str, results: Path, seeds: int | None, workers: int | None) -> None:
    """The ceiling, the study as its file has it, and once more with the encoders that need its VAE or labels."""
    given = (f"seeds={seeds}",) if seeds else ()
    study = Study.from_file(ROOT / "runs" / f"encoders-{name}.yaml", given)
    mpagents.run(ceiling(study, results), out=results, workers=workers)
    mpagents.run(study, out=results, workers=workers)
    if name == "catch":
        more = dataclasses.replace(study, encoders=(*study.encoders, *more_encoders(results / study.name)))
        mpagents.run(more, out=results, workers=workers)


def ceiling(study: Study, results: Path) -> Study:
    """The study with the true state in place of frames, uncorrelated and of unit scale: its principal components.

    CartPole's is given as it is: random play stays in the middle, and what is of unit scale there is out of all scale later.
    """
    env, name = study.envs[0], f"{study.name}-state"
    env = env | {"kwargs": {**env.get("kwargs", {}), "observes": "state"}}
    if study.name == "encoders-cartpole":
        return dataclasses.replace(study, name=name, envs=(env,), encoders=(None,))
    path = results / name / "checkpoints" / "state.safetensors"
    if not path.is_file():
        copies: Any = gymnasium.make_vec(env["id"], COPIES, vectorization_mode="vector_entry_point", **env["kwargs"])
        copies.action_space.seed(0)
        states = [copies.reset(seed=0)[0], *(copies.step(copies.action_space.sample())[0] for _ in range(100))]
        x = torch.from_numpy(np.concatenate(states))
        model: Any = generative.build("linear_autoencoder", shape=(x.shape[1],), latent=x.shape[1])
        model.fit_closed_form(x)
        path.parent.mkdir(parents=True, exist_ok=True)
        generative.save(model, path)
    entry = {"checkpoint": str(path), "label": CEILING, "data": {"steps": 1_000}}
    return dataclasses.replace(study, name=name, envs=(env,), encoders=(entry,))


def more_encoders(folder: Path) -> list[dict[str, Any]]:
    """Entries of `encoders` for latent diffusion over the study's VAE, and for the models that need labels; each is fitted to
    the frames that the VAE was fitted to."""
    jobs = {path.parent: json.loads(path.read_text())["encoder"] for path in (folder / "encoders").glob("vae-*/encoder.json")}
    job = next(path for path, entry in jobs.items() if entry["label"] == "vae")
    data, entries = labels(job / "recording"), []
    for name in ("latent_diffusion", *LABELLED):
        path = folder / "checkpoints" / f"{name}.safetensors"
        if not path.is_file():
            torch.manual_seed(0)
            model = unfitted(name, job, tuple(data["x"].shape[1:]))
            for _ in generative.fit(model, data if name in LABELLED else {"x": data["x"]}, **FIT):
                pass
            path.parent.mkdir(parents=True, exist_ok=True)
            generative.save(model, path)
        entries.append({"checkpoint": str(path), "label": name, "data": {"steps": jobs[job]["data"]["steps"]}})
    return entries


def unfitted(name: str, job: Path, shape: tuple[int, ...]) -> Any:
    if name in LABELLED:
        return generative.build(name, shape=shape, **LABELLED[name])
    vae: Any = generative.load(job / "encoder.safetensors")
    return LatentDiffusion.over(vae)


def labels(recording: Path) -> dict[str, np.ndarray]:
    """Catch's frames with the bins of the ball's and the paddle's column: as a class, and as a text of two words."""
    columns = generative.source("recording", folder=str(recording)).windows.columns
    bins = np.clip((np.asarray(columns["state"])[:, [0, 2]] * BINS).astype(np.int64), 0, BINS - 1)  # [N, 2]
    text = bins + np.array([1, 1 + BINS])  # word 0 is padding
    return {"x": np.asarray(columns["x"]), "label": bins[:, 0] * BINS + bins[:, 1], "text": text}


# The tables, read.


def trials(folder: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """By agent and encoder ("" for none): of each finished trial its return, evaluations, frames for fitting, seconds."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*/*/seed=*/status.json")):
        status, trial = (json.loads((path.parent / name).read_text()) for name in ("status.json", "trial.json"))
        if status["status"] != "finished":
            continue
        lines = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
        seen = [(line["step"], line["eval/mean_reward"]) for line in lines if "eval/mean_reward" in line]
        agent, _, encoder = path.parent.parent.name.partition("+")
        frames = trial["encoder"]["data"]["steps"] if trial["encoder"] else 0
        row = {"score": status["final"]["mean_reward"], "seen": seen, "frames": frames, "seconds": status["seconds"]}
        found.setdefault((agent, encoder), []).append(row | {"steps": status["steps"]})
    return found


def steps_to(seen: list[tuple[int, float]], threshold: float) -> float:
    """Environment steps at the first evaluation that is at the threshold; infinite where none is.

    >>> steps_to([(1_000, -0.5), (2_000, 0.96), (3_000, 0.9)], 0.95)
    2000
    """
    return min((step for step, score in seen if score >= threshold), default=math.inf)


def compare(name: str, results: Path) -> None:
    """Print an agent's table for each agent of a study."""
    known, found = trials(results / f"encoders-{name}-state"), trials(results / f"encoders-{name}")
    for agent in dict.fromkeys(agent for agent, _ in found):
        true = known.get((agent, CEILING)) or known.get((agent, ""), [])
        threshold = SHARE * interquartile_mean([row["score"] for row in true]) if true else math.nan
        probes, rows = r_squared(results / f"encoders-{name}"), {}
        for encoder, these in {"true state": true, **{e: these for (a, e), these in found.items() if a == agent}}.items():
            if these:
                rows[encoder] = summary(these, threshold)
        print(f"\n{name}, {agent}; {SHARE:.0%} of the true state's return is {threshold:.3f}\n")
        names = (
            "Sees",
            "Return [95 %]",
            "Worst seed",
            "Steps to 95 %",
            "Seeds there",
            "Frames for fitting",
            "Together",
        )
        names = (*names, "R² linear", "R² MLP", "Seconds")
        table(names, [line(encoder, row, probes.get(encoder, ("", ""))) for encoder, row in rows.items()])
        if "" in rows:
            print("\n" + verdict(rows))


def summary(these: list[dict[str, Any]], threshold: float) -> dict[str, Any]:
    """Of the seeds of one agent with one encoder; `to` is the median over seeds, infinite where half didn't get there."""
    scores, to = np.array([row["score"] for row in these]), [steps_to(row["seen"], threshold) for row in these]
    middle = sorted(to)[len(to) // 2]
    frames, seconds = these[0]["frames"], float(np.median([row["seconds"] for row in these]))
    return {"scores": scores, "to": middle, "there": sum(map(math.isfinite, to)), "frames": frames, "seconds": seconds}


def line(encoder: str, row: dict[str, Any], told: tuple[str, str]) -> tuple[str, ...]:
    scores = row["scores"]
    low, high = bootstrap_interval(scores)
    to, both = (f"{value:,.0f}" if math.isfinite(value) else "never" for value in (row["to"], row["to"] + row["frames"]))
    mean = f"{interquartile_mean(scores):.2f} [{low:.2f}, {high:.2f}]"
    there, seconds = f"{row['there']}/{len(scores)}", f"{row['seconds']:.0f}"
    return encoder or "frames (CNN)", mean, f"{scores.min():.2f}", to, there, f"{row['frames']:,}", both, *told, seconds


def r_squared(folder: Path) -> dict[str, tuple[str, str]]:
    """By an encoder's label: the lowest R² over the state's numbers, of the linear probe and of the network."""
    found = {}
    for path in sorted(folder.glob("encoders/*/status.json")):
        final = json.loads(path.read_text()).get("final") or {}
        label = json.loads((path.parent / "encoder.json").read_text())["encoder"]["label"]
        lowest = [min((v for k, v in final.items() if k.startswith(f"probe/{kind}/")), default=math.nan) for kind in KINDS]
        found[label] = tuple(f"{value:.2f}" for value in lowest)
    return found  # type: ignore[return-value]


KINDS = "linear", "mlp"


def verdict(rows: dict[str, dict[str, Any]]) -> str:
    """Which of the models that were fitted to frames alone got there in fewer steps than the CNN."""
    cnn = rows[""]["to"]
    fewer = [label for label in GENERATIVE if label in rows and rows[label]["to"] < cnn]
    counted = [label for label in fewer if rows[label]["to"] + rows[label]["frames"] < cnn]
    rest = [label for label in GENERATIVE if label in rows and label not in fewer]
    said = [("fewer steps than the CNN", fewer), ("of these, its fitting counted", counted), ("not", rest)]
    return "; ".join(f"{what}: {', '.join(labels) or 'none'}" for what, labels in said) + "."


# CartPole's state from the code of a VAE.

ROWS, TEST_ROWS = 25_600, 6_400
VAE: dict[str, Any] = {"latent": 16, "hidden": (256,)}
VAE_FIT: dict[str, Any] = {"steps": 2_000, "batch_size": 64}
QUANTITIES = "position", "velocity", "angle", "angular velocity"
FLOORS = 0.95, 0.8, 0.95, 0.8  # R² of the network that is asked for
HELD = 4.0  # steps that an action is held on average
SIGHTS: tuple[tuple[str, str, float, dict[str, Any]], ...] = (  # what is seen, of whom, and the steps that actions are held
    ("3 frames, 3 steps apart", "held actions", HELD, {}),
    ("a frame and differences", "held actions", HELD, {"difference": True}),
    ("3 frames in turn", "held actions", HELD, {"stride": 1}),
    ("3 frames, 3 steps apart", "random actions", 1.0, {}),
)


def watch_cartpole(rows: int, seed: int, held: float, **kwargs: Any) -> dict[str, torch.Tensor]:
    """Frames `x` [N, 32, 32, 3], true states [N, 4] and the poses that the frames show [N, 6], under random actions.

    An action is held for `held` steps on average: what pushes one way for a while reaches higher speeds.
    """
    rng = np.random.default_rng(seed)
    env: Any = gymnasium.make_vec("envs:PixelCartPole-v0", COPIES, vectorization_mode="vector_entry_point", **kwargs)
    (x, infos), action, found = env.reset(seed=seed), rng.integers(0, 2, COPIES), []
    for _ in range(rows // COPIES):
        shown = env.walk.state[1][:, :: env.torch_env.stride].flatten(1)
        found.append((torch.from_numpy(x), torch.from_numpy(infos["state"]), shown))
        action = np.where(rng.random(COPIES) < 1 / held, rng.integers(0, 2, COPIES), action)
        x, *_, infos = env.step(action)
    return {name: torch.cat(parts) for name, parts in zip(("x", "state", "shown"), zip(*found))}


def probes() -> None:
    """R² on episodes that neither the VAE nor the probes were fitted to, beside that of the poses that the frames show."""
    torch.set_num_threads(1)
    names = "Sees", "Data", "Read from", "Probe", *QUANTITIES, "Seconds of fitting"
    floors = "", "", "asked for", "mlp", *(f"≥ {floor}" for floor in FLOORS), "≤ 150"
    table(names, itertools.chain(*(told_of(*sight) for sight in SIGHTS), [floors]))


def told_of(sees: str, data: str, held: float, kwargs: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Rows of the table of probes."""
    seen, test = watch_cartpole(ROWS, 0, held, **kwargs), watch_cartpole(TEST_ROWS, 1, held, **kwargs)
    model, seconds = fitted(seen["x"])
    codes, test_codes = (codes_of(model, part["x"]) for part in (seen, test))
    for what, given, held_out, spent in (
        ("its code", codes, test_codes, f"{seconds:.0f}"),
        ("the poses shown", seen["shown"], test["shown"], ""),
    ):
        told = probe(given, seen["state"], held_out, test["state"])
        for kind in KINDS:
            yield sees, data, what, kind, *(f"{r2:.3f}" for r2 in told[kind]), spent


def fitted(x: torch.Tensor) -> tuple[Any, float]:
    """(a VAE of frames, seconds of processor time that its fit took)."""
    torch.manual_seed(0)
    model, begun = generative.build("vae", shape=tuple(x.shape[1:]), **VAE), time.process_time()
    for _ in generative.fit(model, {"x": x}, **VAE_FIT):
        pass
    return model.eval(), time.process_time() - begun


@torch.no_grad()
def codes_of(model: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([model.encode(part) for part in x.split(500)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--results", type=Path, default=Path("runs"), help="where the studies' folders are")
    parser.add_argument("--study", choices=STUDIES, action="append", help="default: all")
    parser.add_argument("--only", choices=("probes",), help="CartPole's state from a VAE's code, nothing else")
    parser.add_argument("--run", action="store_true", help="run the studies first")
    parser.add_argument("--seeds", type=int, help="of each study, with --run; default: as its file says")
    parser.add_argument("--workers", type=int, help="processes, with --run; default: all cores")
    options = parser.parse_args()
    if options.only:
        probes()
        return
    for name in options.study or STUDIES:
        if options.run:
            run(name, options.results, options.seeds, options.workers)
        if (options.results / f"encoders-{name}").is_dir():
            compare(name, options.results)


if __name__ == "__main__":
    main()
