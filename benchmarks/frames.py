"""Frames of CartPole, MiniGrid and Pong, 32 × 32, learned by a VAE, Glow, diffusion and latent diffusion:
`python benchmarks/frames.py [--only cartpole|minigrid|pong] [--models vae,glow,diffusion,latent_diffusion]`.

Each recording has 10,000 frames of a random policy, a tenth of them held out by episodes. Prints for each model the seconds of
processor time of its training, what it reaches on held-out frames, and the seconds that 64 samples take; draws a sheet for each
environment into docs/pictures: frames, their reconstructions, and samples. Needs ale-py and minigrid. One thread unless
OMP_NUM_THREADS says otherwise.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")  # before torch is imported
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

import generative
from generative.diffusion.latent_diffusion import LatentDiffusion
from generative.pictures import grid
from generative.recordings import Recording
from mpagents.collecting import View
from mpagents.recording import RecordingSpec, record

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
ENVIRONMENTS = {"cartpole": "CartPole-v1", "minigrid": "MiniGrid-DoorKey-5x5-v0", "pong": "ale_py:ALE/Pong-v5"}
NUM_FRAMES, NUM_SHOWN, SAMPLE_STEPS = 10_000, 8, 50
SHAPE = (32, 32, 3)
CONFIGS: dict[str, dict[str, Any]] = {
    "vae": {"shape": SHAPE, "latent": 16, "channels": (16, 32, 64), "hidden": (128,), "activation": "silu"},
    "glow": {"shape": SHAPE, "num_steps": 4, "num_scales": 3, "hidden": 32, "num_blocks": 1},
    "diffusion": {"shape": SHAPE, "channels": (16, 32, 64), "sample_steps": SAMPLE_STEPS},
    "latent_diffusion": {"hidden": (256, 256, 256), "sample_steps": SAMPLE_STEPS},
}
TRAINING: dict[str, dict[str, Any]] = {
    "vae": {"steps": 4_000, "batch_size": 64, "learning_rate": 1e-3, "warm_up": 100},
    "glow": {"steps": 3_000, "batch_size": 32, "learning_rate": 1e-3, "warm_up": 100, "max_grad_norm": 10.0, "ema": 0.99},
    "diffusion": {"steps": 2_500, "batch_size": 32, "learning_rate": 2e-3, "warm_up": 100, "ema": 0.995},
    "latent_diffusion": {"steps": 6_000, "batch_size": 256, "learning_rate": 2e-3, "ema": 0.999},
}


def recording(name: str, folder: Path) -> Recording:
    spec = RecordingSpec(ENVIRONMENTS[name], steps=NUM_FRAMES, view=View(size=SHAPE[:2]))
    record(spec, folder / name, show="off")
    return Recording(str(folder / name))


def built(name: str, autoencoder: Any, frames: Tensor) -> Any:
    torch.manual_seed(0)
    if name != "latent_diffusion":
        return generative.build(name, **CONFIGS[name])
    model = LatentDiffusion.over(autoencoder, **CONFIGS[name])
    model.measure_scale(frames)
    return model


def trained(model: Any, data: Any, settings: Mapping[str, Any], label: str) -> float:
    """Seconds of the training; of processor time, so that other work beside it changes nothing."""
    begun = time.process_time()
    settings = {**settings, "validation": 0.0, "keep": "last", "log_every": 500, "pictures_every": 10**9}
    for step, metrics in generative.fit(model, data, **settings):
        print(f"{label} {step}: {float(metrics['loss']):.3f}", file=sys.stderr, flush=True)
    return time.process_time() - begun


def reached(name: str, model: Any, x: Tensor) -> str:
    """On held-out frames: bits a dimension (exact, or a bound), or the error of reconstructions."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        if name == "glow":
            return f"{-model.elbo(x).mean().item() / (x[0].numel() * math.log(2)):.3f} bits/dim at most"
        if name == "diffusion":
            return f"squared error of v̂ {model.loss({'x': x}, generator=generator)[0].item() / x[0].numel():.4f} a dimension"
        error = (model.decode(model.encode(x)).float() - x.float()).square().mean().sqrt().item()
        if name == "vae":
            return f"reconstruction off by {error:.1f} of 255"
        return f"latent std {float(model.loss({'x': x}, generator=generator)[1]['latent_std']):.2f}"


def samples(model: Any) -> tuple[Tensor, float]:
    """64 samples and their seconds, the lesser of two."""
    seconds = []
    for _ in range(2):
        begun = time.process_time()
        with torch.no_grad():
            drawn = model.sample(64, generator=torch.Generator().manual_seed(2))
        seconds.append(time.process_time() - begun)
    return drawn, min(seconds)


def study(name: str, models: list[str], folder: Path, table: Table) -> None:
    kept, held_out = recording(name, folder).split(0.1, 0)
    x = held_out.sample(256, torch.Generator().manual_seed(0))["x"]
    distinct = x[:: len(x) // NUM_SHOWN][:NUM_SHOWN]
    rows, found = [distinct], {}
    for model_name in models:
        model = found[model_name] = built(model_name, found.get("vae"), x)
        seconds = trained(model, kept, TRAINING[model_name], f"{name} {model_name}")
        drawn, sampling = samples(model)
        table.add_row(name, model_name, f"{seconds:.0f}", reached(model_name, model, x), f"{sampling:.2f}")
        with torch.no_grad():
            rows += [model.decode(model.encode(distinct))] if model_name in ("vae", "glow") else []
        rows.append(drawn[:NUM_SHOWN])
    picture = grid(torch.cat(rows), NUM_SHOWN, like=x)
    Image.fromarray(picture).save(PICTURES / f"frames-{name}.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ENVIRONMENTS)
    parser.add_argument("--models", default=",".join(CONFIGS), help="latent_diffusion needs vae")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    table = Table("frames", "model", "training, s", "on held-out frames", "64 samples, s")
    with tempfile.TemporaryDirectory() as folder:
        for name in ENVIRONMENTS:
            if arguments.only in (None, name):
                study(name, arguments.models.split(","), Path(folder), table)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
