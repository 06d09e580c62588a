"""`mpagents fit`: a generative model trained on a source, one folder a seed, which the same command continues.

    runs/fit/<label>/seed=<n>/fit.json          all that the results depend on, package versions
                              metrics.jsonl     and TensorBoard events: model/<name>, pictures, time/steps_per_second
                              pictures/*.png    the last ones
                              checkpoint/       all of the training's progress
                              best.safetensors  weights of the lowest validation loss;  last.safetensors: the newest ones
                              status.json       finished or failed, and the figures

`fit_model` is one training in one process; a Ray task can be that process. `fit_steps` is the same as a generator.
"""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpagents.configuration import InvalidInput, Problem
from mpagents.fit_specification import FitSpec
from mpagents.results.checkpoint import load_latest, save_checkpoint
from mpagents.results.checkpoint import steps as steps_of_checkpoints
from mpagents.results.files import check_inside, read_json, read_status, remove_leftovers, write_json
from mpagents.results.ledger import differences, locked
from mpagents.results.logger import Logger, is_picture
from mpagents.seeding import derive
from mpagents.specification import slug, versions

if TYPE_CHECKING:
    from mpagents.progress_bar import ProgressBar

CHECKPOINT_SECONDS = 30.0  # of work that an interruption loses, about
OF_THE_CLOCK = ("steps_per_second",)

Steps = Generator[tuple[int, dict[str, float]], None, dict[str, Any]]  # yields (steps so far, last figures)


def fit_model(spec: FitSpec | Mapping[str, Any], root: str | Path) -> Path:
    """Train, or continue, in `root`/<label>/seed=<n> to the end; the path of the model's file: best, or last without one.

    Raises RuntimeError where the training failed; its status says how.
    """
    spec = spec if isinstance(spec, FitSpec) else FitSpec.from_json(spec)
    for _ in fit_steps(spec, Path(root)):
        pass
    status = read_status(Path(root), spec.path)
    if status["status"] == "failed":
        raise RuntimeError(f"{spec.path}: {status['error']['message']}")
    return Path(root) / spec.path / status["model"]


def fit_steps(spec: FitSpec, root: Path) -> Steps:
    """The same as a generator of (steps so far, last figures), which returns the status.

    Whatever the model or the source raises is recorded with its traceback: the status is then `failed`. Raises InvalidInput
    where the folder has results of another specification.
    """
    folder = root / spec.path
    finished = check_folder(spec, root)
    if finished is not None:
        return finished
    check_inside(root, spec.path)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    status: dict[str, Any] = {"status": "running", "hash": spec.hash}
    write_json(folder / "fit.json", spec.to_json() | {"versions": versions()})
    write_json(folder / "status.json", status)
    try:
        status |= (yield from _train(spec, folder)) | {"status": "finished", "error": None}
    except Exception as error:  # noqa: BLE001 - recorded, and told at the end
        problem = {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
        status |= {"status": "failed", "error": problem}
    write_json(folder / "status.json", status)
    return status


def check_folder(spec: FitSpec, root: Path) -> dict[str, Any] | None:
    """The status where this very training is finished. Raises InvalidInput where another one's results lie in its folder."""
    folder = root / spec.path
    existing = read_json(folder / "fit.json")
    if existing is not None and existing.get("hash") != spec.hash:
        fix = Problem((), "choose another --label or --out, or discard the old results with --fresh")
        raise InvalidInput([Problem((spec.path,), differences(existing, spec.to_json())), fix])
    status = read_json(folder / "status.json") or {}
    return status if existing is not None and status.get("status") == "finished" else None


class _Run:
    """The objects of a running training."""

    def __init__(self, spec: FitSpec, folder: Path) -> None:
        import torch

        import generative
        from mpagents.fit_source import open_source

        self.spec, self.folder = spec, folder
        with torch.random.fork_rng():
            torch.manual_seed(derive(spec.seed, "model"))
            model = generative.build(spec.model, **spec.config)
        source = open_source(spec.source, spec.source_config, spec.seed)
        self.fit = generative.Fit(model, source, **spec.settings, seed=spec.seed)
        self.figures: dict[str, float] = {}
        self.seconds, offset = 0.0, 0
        self.warnings: list[str] = []
        loaded = load_latest(folder / "checkpoint", self.warnings.append)
        if loaded is not None:
            state = loaded[1]
            self.fit.load_state_dict(state["fit"])
            self.figures, self.seconds, offset = state["figures"], state["seconds"], state["offset"]
        self.logger = Logger(folder, offset=offset, purge_step=self.fit.step + 1 if offset else 0)
        if not offset:
            self.logger.text("fit", f"```json\n{json.dumps(spec.to_json(), indent=1)}\n```")
            self.logger.hparams({"model": spec.model, "source": spec.source, "seed": spec.seed, **spec.config})
        self.saved = time.perf_counter()
        self.start = self.saved - self.seconds

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        row = {f"{'time' if key in OF_THE_CLOCK else 'model'}/{key}": value for key, value in metrics.items()}
        self.logger.scalars(step, row)
        self.figures |= {key: float(value) for key, value in metrics.items() if not is_picture(value)}
        for key, value in metrics.items():
            if is_picture(value):
                check_inside(self.folder, f"pictures/{slug(key)}.png")
                _write_picture(self.folder / "pictures" / f"{slug(key)}.png", value)

    def save(self) -> None:
        """A checkpoint, and the models as they are to be used."""
        self.write_models()
        state = {
            "fit": self.fit.state_dict(),
            "figures": self.figures,
            "seconds": time.perf_counter() - self.start,
            "offset": self.logger.offset(),
        }
        save_checkpoint(self.folder / "checkpoint", self.fit.step, state, keep=2)
        self.saved = time.perf_counter()

    def write_models(self) -> None:
        import generative

        with self.fit.as_used("last"):
            generative.save(self.fit.model, self.folder / "last.safetensors")
        if self.fit.best is not None:
            with self.fit.as_used("best"):
                generative.save(self.fit.model, self.folder / "best.safetensors")


def _train(spec: FitSpec, folder: Path) -> Steps:
    import generative

    run = _Run(spec, folder)
    try:
        for step, metrics in run.fit:
            run.log(step, metrics)
            if run.fit.finished or time.perf_counter() - run.saved > CHECKPOINT_SECONDS:
                run.save()
            yield step, run.figures
    except FloatingPointError:
        generative.save(run.fit.model, folder / "last.safetensors")
        raise
    finally:
        run.logger.close()
    best = run.fit.best
    return {
        "steps": run.fit.step,
        "seconds": round(time.perf_counter() - run.start, 3),
        "model": "best.safetensors" if best else "last.safetensors",
        "best": {"validation/loss": best[0]} if best else None,
        "final": run.figures,
        **({"warnings": run.warnings} if run.warnings else {}),
    }


def fit_all(specs: list[FitSpec], root: Path, *, fresh: bool = False, show: str = "auto") -> list[dict[str, Any]]:
    """Train every specification (one label) in this process, one after the other; their statuses.

    Raises InvalidInput where results of another specification lie in a folder, before anything starts.
    """
    from mpagents.progress_bar import ProgressBar

    with held(specs, root, fresh) as todo:
        for spec in specs:
            begun = max(steps_of_checkpoints(root / spec.path / "checkpoint"), default=0)
            with ProgressBar(spec.steps, "steps", show, begun) as progress:
                told = "finished earlier" if spec not in todo else f"goes on from step {begun:,}" if begun else "begins"
                progress.say(f"{root / spec.path}: {told}")
                _watch(fit_steps(spec, root), progress)
        return [read_status(root, spec.path) for spec in specs]


@contextmanager
def held(specs: list[FitSpec], root: Path, fresh: bool) -> Iterator[list[FitSpec]]:
    """Hold the label's folder for this process; gives the trainings that aren't finished. Raises InvalidInput as `fit_all`."""
    folder = root / specs[0].label
    with locked(folder):
        for trained in folder.glob("seed=*") if fresh else ():
            if (trained / "fit.json").is_file():
                shutil.rmtree(trained)
        yield [spec for spec in specs if check_folder(spec, root) is None]


def _watch(steps: Steps, progress: ProgressBar) -> None:
    """Run to the end, showing the losses."""
    for step, figures in steps:
        shown = [f"{key} {value:.4g}" for key, value in figures.items() if key.endswith("loss")]
        progress.update(step, ", ".join(shown))


def _write_picture(path: Path, pixels: Any) -> None:
    from PIL import Image

    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels).save(path)
