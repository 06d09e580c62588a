"""The stage of a study that makes its encoders: each distinct one once in each environment, before the trials that use it.

    runs/<study>/encoders/<model>-<env>-<hash>/encoder.json        what was asked for
                                               recording/          the environment under a policy, as the encoder sees it
                                               fit/seed=0/         the fit, as `mpagents fit` leaves it (TensorBoard and all)
                                               encoder.safetensors model, settings, mean and deviation of its codes
                                               probes and embeddings in metrics.jsonl and TensorBoard's projector
                                               status.json         finished or failed

A job is one process's work, continued where it was interrupted; a finished one is used again.
"""

from __future__ import annotations

import json
import math
import shutil
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mpagents.encoder_specification import FILE, EncoderJob
from mpagents.encoders import Encoder
from mpagents.made_encoders import encoder_file
from mpagents.results.files import check_inside, read_json, read_status, write_json
from mpagents.specification import versions

MEASURED, HELD_OUT = 8_000, 2_000  # data that codes are measured and probed on, at most
SHOWN = 500  # codes in the projector

Steps = Generator[tuple[int, dict[str, float]], None, dict[str, Any]]  # yields (steps so far, last figures)


def make_encoder(job: EncoderJob, root: Path) -> Path:
    """Do the job in `root`/<path>, or find it done; the encoder's file. Raises RuntimeError where it failed."""
    for _ in encoder_steps(job, root):
        pass
    return encoder_file(job, root)


def encoder_steps(job: EncoderJob, root: Path) -> Steps:
    """The job as a generator of (steps of the fit so far, figures), which returns the status; failures are recorded."""
    check_inside(root, job.path)
    folder = root / job.path
    status = read_json(folder / "status.json") or {}
    if status.get("status") == "finished":
        return status
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # jobs run side by side, one thread each
    status = {"status": "running", "hash": job.hash}
    write_json(folder / "encoder.json", job.to_json() | {"versions": versions()})
    write_json(folder / "status.json", status)
    try:
        recording = _record(job, folder / "recording")
        model, seconds = yield from _fit(job, folder, recording)
        figures = _finish(job, folder, recording, model)
        status |= {"status": "finished", "error": None, "seconds": seconds, "final": figures}
    except Exception as error:  # noqa: BLE001 - recorded, and told at the end of the study
        problem = {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
        status |= {"status": "failed", "error": problem}
    write_json(folder / "status.json", status)
    return status


def _record(job: EncoderJob, folder: Path) -> Path:
    """The environment under the policy, as the encoder sees it; what was recorded before is used again."""
    from mpagents.collecting import Collector, View
    from mpagents.recording import RecordingSpec, environment_and_policy, write

    if (read_json(folder / "manifest.json") or {}).get("complete"):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    data = job.encoder.data
    spec = RecordingSpec(job.env.id, data["steps"], data["num_envs"], data["policy"], data["epsilon"])
    _, policy = environment_and_policy(spec, trust=True)
    see = _sight(job)
    write(spec, Collector(job.env, View(), policy, spec.num_envs, spec.seed, see), folder, show="quiet")
    return folder


def _sight(job: EncoderJob) -> Any:
    """One observation → x as the model takes it."""
    from mpagents.encoder_entry import Entry, seen

    spec, settings = job.encoder, job.settings
    key = settings["key"]
    size = tuple(settings["size"]) if settings["size"] else None
    if spec.model is None:
        encoder = Encoder.load(str(spec.checkpoint), trust=True, **settings)
        return lambda obs: encoder.recorded(torch.from_numpy(_part(obs, key)[None]))[0].numpy()
    import generative

    written, config = Entry(size=size, grey=settings["grey"]), generative.model_class(spec.model).Config
    return lambda obs: seen(written, config, _part(obs, key)[None])[0]


def _part(obs: Any, key: str | None) -> np.ndarray:
    return np.array(obs if key is None else obs[key])


def _fit(job: EncoderJob, folder: Path, recording: Path) -> Generator[Any, None, tuple[Any, float]]:
    """(the model, seconds of its fit)."""
    import generative
    from mpagents.fit_specification import specify
    from mpagents.fitting import fit_steps
    from mpagents.seeding import derive

    spec = job.encoder
    if spec.model is None:
        return generative.load(str(spec.checkpoint), trust=True), 0.0
    if not spec.fit["steps"]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(0, "model"))
            return generative.build(spec.model, **spec.config), 0.0
    reading = {key: spec.data[key] for key in ("length", "target") if spec.data[key] is not None}
    fit = specify(spec.model, str(recording), config=spec.config, source_config=reading, settings=spec.fit, label="fit")
    yield from fit_steps(fit, folder)
    status = read_status(folder, fit.path)
    if status["status"] == "failed":
        raise RuntimeError(f"the fit failed: {status['error']['message']}")
    return generative.load(folder / fit.path / status["model"], trust=True), status["seconds"]


def _finish(job: EncoderJob, folder: Path, recording: Path, model: Any) -> dict[str, float]:
    """Measure the codes, save the encoder, and log what they tell; R² of the probes."""
    import generative

    settings = job.settings
    if job.encoder.model is None:
        encoder = Encoder.load(str(job.encoder.checkpoint), trust=True, **settings, **job.encoder.config)
    else:
        encoder = Encoder(model, **settings)
    length = (job.encoder.data["length"] or 16) if encoder.recurrent else None
    source = generative.source("recording", folder=str(recording), length=length)
    share = job.encoder.fit.get("validation") or 0.2  # the fit's own split, so that the model hasn't seen what is held out
    kept, held_out = source.split(share, 0) if len(source) > 1 else (source.windows, source.windows)
    train, test = _codes(encoder, kept, MEASURED), _codes(encoder, held_out, HELD_OUT)
    if job.encoder.model is not None or not bool((encoder.std != 1).any()):  # a checkpoint's own moments stay
        encoder.standardise(train["codes"])
    encoder.save(folder / FILE)
    return _log(encoder, folder, train, test)


@torch.no_grad()
def _codes(encoder: Encoder, rows: Any, most: int) -> dict[str, Any]:
    """Raw codes [N, F] of data drawn without replacement, their x [N, …], and the true state [N, K] where it is recorded."""
    generator = torch.Generator().manual_seed(0)
    per_row = rows.reading.length or 1
    batch = rows.at(torch.randperm(len(rows), generator=generator)[: max(1, most // per_row)])
    codes = encoder.raw_codes(batch["x"])
    found = {"codes": codes, "x": batch["x"]} | ({"state": batch["state"].float()} if "state" in batch else {})
    if encoder.recurrent:
        found = {name: value[batch["mask"]] for name, value in found.items()}
    return found


def _log(encoder: Encoder, folder: Path, train: dict[str, Any], test: dict[str, Any]) -> dict[str, float]:
    """Probes as scalars, embeddings for TensorBoard's projector; nothing remains of an earlier try."""
    from mpagents.probes import probe
    from mpagents.results.logger import Logger

    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    figures: dict[str, float] = {}
    train, test = ({**part, "codes": (part["codes"] - encoder.mean) / encoder.std} for part in (train, test))
    if "state" in train:
        told = probe(train["codes"], train["state"], test["codes"], test["state"])
        figures = {f"probe/{kind}/state_{i}": r2 for kind, all_r2 in told.items() for i, r2 in enumerate(all_r2)}
        figures = {name: r2 for name, r2 in figures.items() if math.isfinite(r2)}  # a constant can't be told
    logger = Logger(folder)
    logger.text("encoder", f"```json\n{json.dumps(read_json(folder / 'encoder.json'), indent=1)}\n```")
    logger.scalars(0, figures)
    logger.close()
    write_embeddings(folder, test)
    return figures


def write_embeddings(folder: Path, data: dict[str, Any]) -> None:
    """Codes for TensorBoard's projector, each with its frame and its true state where there are such."""
    from torch.utils.tensorboard import SummaryWriter

    codes, x = data["codes"][:SHOWN], data["x"][:SHOWN]
    states = data["state"][:SHOWN].tolist() if "state" in data else [[]] * len(codes)
    metadata = [[f"{value:.4g}" for value in state] or [str(i)] for i, state in enumerate(states)]
    header = [f"state_{i}" for i in range(len(metadata[0]))] if states[0] else ["row"]
    single = len(header) == 1  # TensorBoard wants no header then
    shutil.rmtree(folder / "00000", ignore_errors=True)
    (folder / "projector_config.pbtxt").unlink(missing_ok=True)
    with SummaryWriter(str(folder)) as writer:
        writer.add_embedding(
            codes, metadata=[row[0] for row in metadata] if single else metadata,
            metadata_header=None if single else header, label_img=_pictures(x), tag="codes",
        )  # fmt: skip


def _pictures(x: torch.Tensor) -> torch.Tensor | None:
    """Square pictures [N, 3, H, H] in [0, 1] of frames; None of vectors."""
    if x.ndim != 4:
        return None
    shown = x if x.shape[3] == 3 else x[..., -1:].expand(-1, -1, -1, 3)
    side = min(x.shape[1:3])
    return torch.nn.functional.interpolate(shown.movedim(-1, 1).float() / max(1, int(x.max())), (side, side))
