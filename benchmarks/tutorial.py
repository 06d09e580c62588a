"""The tutorial's commands and code, run as they stand on the page with other seeds: its figures, and its pictures.

    python benchmarks/tutorial.py [--seeds 30 31 32] [--work DIR] [--pictures]

Every seed of the page becomes the given one: of the recording, of both trainings, of both agents. Beside it stands the last
step with a world model that has made one update (the control). Seconds are this process's, processor time, one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # before this folder, whose generative.py would be taken

import torch
import typer
from PIL import Image

from generative.pictures import grid
from mpagents.cli import app
from mpagents.fit_specification import specify
from mpagents.fitting import fit_model
from mpagents.study_file import apply_overrides

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/tutorial.md"
IMAGES = ROOT / "docs/images"
UNTRAINED = "untrained"
LARGER = 4  # a frame's pixels in pictures


class Block(NamedTuple):
    """A block of code of the page."""

    step: str  # the heading that it stands under
    language: str  # console or python
    code: str


def blocks(page: str) -> list[Block]:
    """The page's blocks in turn."""
    found, step = [], ""
    for heading, language, code in re.findall(r"^## (.*?)$|^```(console|python)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        step = heading or step
        if code:
            found.append(Block(step, language, code))
    return found


def words(code: str) -> list[str]:
    """Of the one command that a console block holds, without `mpagents`."""
    return shlex.split(code.replace("\\\n", " "))[1:]


def run_command(given: list[str], seed: int) -> None:
    """`record` or `fit` in this folder, by this seed."""
    if given[0] == "record":
        app([*given, "--seed", str(seed)], standalone_mode=False)
        return
    context = typer.main.get_command(app).commands["fit"].make_context("fit", given[1:])  # type: ignore[attr-defined]
    told = context.params  # `mpagents fit` counts seeds from 0, so the options are read here
    config, source, settings = (apply_overrides({}, told[key]) for key in ("sets", "source_sets", "fit_sets"))
    settings["steps"] = told["steps"]
    spec = specify(told["model"], told["source"], config=config, source_config=source, settings=settings, label=told["label"])
    fit_model(dataclasses.replace(spec, seed=seed), Path("runs/fit"))


def follow(page: list[Block], seed: int) -> tuple[dict[str, Any], dict[str, float]]:
    """(what the Python session holds at the end, seconds of each step) of the page in this folder, by this seed."""
    session: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for block in page:
        begun = time.process_time()
        with contextlib.redirect_stdout(sys.stderr):
            if block.language == "console":
                run_command(words(block.code), seed)
            else:
                exec(block.code.replace("seed=0", f"seed={seed}"), session)
        seconds[block.step] = seconds.get(block.step, 0.0) + time.process_time() - begun
    return session, seconds


def control(page: list[Block], session: dict[str, Any], seed: int) -> float:
    """The return that the last step ends with where the world model has made one update."""
    *_, command = [block for block in page if block.language == "console"]
    given = words(command.code)
    given[given.index("--steps") + 1], given[given.index("--label") + 1] = "1", UNTRAINED
    run_command(given, seed)
    code = page[-1].code.replace("seed=0", f"seed={seed}").replace("fit/world/", f"fit/{UNTRAINED}/")
    apart = dict(session)
    exec(code, apart)
    return float(apart["learned"])


def figures(session: dict[str, Any]) -> dict[str, Any]:
    """What the page tells of one run."""
    return {
        **{f"R² {kind}": " ".join(f"{r2:.2f}" for r2 in session["told"][kind]) for kind in ("linear", "mlp")},
        "real": f"{session['real']:.2f}",
        "in the dream": f"{session['dream_curve'][-1][1]:.2f}",
        "awake": f"{session['learned']:.2f}",
    }


def draw(sessions: list[dict[str, Any]]) -> None:
    """docs/images/tutorial-*.png: frames, reconstructions and a dream of the first run, the curves of all."""
    session = sessions[0]
    real = session["episode"]["x"][0]  # [17, 16, 16, 1]
    watched = session["held_out"]["x"][:: len(session["held_out"]["x"]) // 17][:17]
    model = session["encoder"].model
    with torch.no_grad():
        rebuilt = model.decode(model.encode(watched))
    lines = {
        "frames": [real],
        "eyes": [watched, rebuilt],
        "dream": [real, torch.cat(session["dreamt"])],
    }
    for name, rows in lines.items():
        picture = grid(torch.cat([row.to(real) for row in rows]), len(real))
        Image.fromarray(picture.squeeze(-1).repeat(LARGER, 0).repeat(LARGER, 1)).save(IMAGES / f"tutorial-{name}.png")
    draw_curves(sessions)


def draw_curves(sessions: list[dict[str, Any]]) -> None:
    """Returns while learning: awake on the left, in the dream on the right, where a dot shows what it is worth awake."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
    for session in sessions:
        left.plot(*zip(*session["curve"]), color="#0072B2")
        right.plot(*zip(*session["dream_curve"]), color="#D55E00")
        right.scatter(session["dream_curve"][-1][0], session["learned"], color="#0072B2", zorder=3, clip_on=False)
    left.set(title="in the real world", xlabel="real steps", ylabel="mean return", ylim=(-1, 1))
    right.set(title="in the dream (points: the policy awake)", xlabel="imagined steps")
    right.locator_params(axis="x", nbins=5)
    figure.savefig(IMAGES / "tutorial-curves.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[30, 31, 32])
    parser.add_argument("--work", type=Path, default=Path("tutorial"), help="a folder for recordings and models, one a seed")
    parser.add_argument("--pictures", action="store_true", help="draw docs/images/tutorial-*.png")
    options = parser.parse_args()
    page, sessions = blocks(PAGE.read_text()), []
    for seed in options.seeds:
        folder = options.work / f"seed={seed}"
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.chdir(folder):
            session, seconds = follow(page, seed)
            told = {"seed": seed, **figures(session), UNTRAINED: f"{control(page, session, seed):.2f}"}
        sessions.append(session)
        told |= {f"seconds of step {step[:1]}": f"{spent:.0f}" for step, spent in seconds.items() if step}
        if seed == options.seeds[0]:
            print("| " + " | ".join(told) + " |\n|" + "---|" * len(told))
        print("| " + " | ".join(map(str, told.values())) + " |", flush=True)
    if options.pictures:
        draw(sessions)


if __name__ == "__main__":
    main()
