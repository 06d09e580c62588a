"""On a GPU and on the processor, in one run: `python benchmarks/gpu.py [--seconds 5]`.

Generative models at 32 × 32 × 3: updates a second of their training (batches of 64) and seconds for 64 samples. Deep agents:
environment steps a second while learning: DQN on Pong's frames beside Stable-Baselines3's with the same network, and batched
actor-critic on the torch-native CartPole. The processor has as many threads as torch takes by itself. Needs ale-py.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # before this folder, whose generative.py would be taken

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import generative
from mpagents.environments import EnvironmentSpec, make_vector
from mpagents.python_api import make_agent

SHAPE = (32, 32, 3)
MODELS: dict[str, dict[str, Any]] = {
    "vae": {"shape": SHAPE, "latent": 32, "channels": (32, 64, 128), "hidden": (256,)},
    "glow": {"shape": SHAPE, "num_steps": 8, "num_scales": 3, "hidden": 128},
    "gated_pixel_cnn": {"height": 32, "width": 32, "channels": 3, "levels": 256, "hidden": 64, "num_layers": 5},
    "diffusion": {"shape": SHAPE, "channels": (64, 128, 128), "sample_steps": 50},
}
BATCH, NUM_SAMPLES = 64, 64
PONG = EnvironmentSpec("ale_py:ALE/Pong-v5", label="pong")
NATIVE = EnvironmentSpec("envs:TorchCartPole-v1", label="native")
PONG_DQN: dict[str, Any] = {
    "hidden_sizes": (512,),
    "batch_size": 32,
    "train_every": 4,
    "learning_starts": 1_000,
    "replay_size": 20_000,
}


def training(model: Any, frames: Tensor, device: str, seconds: float) -> float:
    """Updates a second, of the last ten."""
    begun = time.perf_counter()
    settings = {"device": device, "batch_size": BATCH, "validation": 0.0, "compile": False, "log_every": 10}
    for _, metrics in generative.fit(model, {"x": frames.to(device)}, steps=10**6, **settings):
        rate = metrics["steps_per_second"]
        if time.perf_counter() - begun > seconds:
            break
    return rate


@torch.no_grad()
def sampling(model: Any, device: str) -> float:
    """Seconds for samples, the second time."""
    for _ in range(2):
        begun = time.perf_counter()
        model.sample(NUM_SAMPLES, generator=torch.Generator(device).manual_seed(0)).cpu()
        seconds = time.perf_counter() - begun
    return seconds


def of_models(devices: list[str], seconds: float) -> Iterator[tuple[str, list[float]]]:
    """(what, figure by device)."""
    frames = torch.randint(0, 256, (4_096, *SHAPE), dtype=torch.uint8)
    for name, config in MODELS.items():
        models = [generative.build(name, **config) for _ in devices]
        yield f"{name}: updates/s, batch {BATCH}", [training(*pair, seconds) for pair in zip(models, [frames] * 2, devices)]
        if name != "gated_pixel_cnn":  # pixel by pixel, minutes
            yield f"{name}: seconds for {NUM_SAMPLES} samples", [sampling(m.eval(), d) for m, d in zip(models, devices)]


def stepping(agent: Any, env: Any, seconds: float, skipped: int) -> float:
    """Steps a second of an agent's learning, after the first `skipped` steps."""
    begun = first = at = None
    for step, _ in agent.train(env, 10**9):
        if begun is None and step >= skipped:
            begun, first = time.perf_counter(), step
        elif begun is not None and time.perf_counter() - begun > seconds:
            at = step
            break
    return (at - first) / (time.perf_counter() - begun)


def of_agents(devices: list[str], seconds: float) -> Iterator[tuple[str, list[float]]]:
    for compiled in (False, True):
        rates = []
        for device in devices:
            env = make_vector(PONG, 1)
            agent = make_agent("dqn", env, device=device, compile=compiled, **PONG_DQN)
            rates.append(stepping(agent, env, seconds, 2_000))
        yield f"dqn on Pong{', compiled' * compiled}: steps/s", rates
    yield "Stable-Baselines3's DQN on Pong: steps/s", [peer(device, seconds) for device in devices]
    for num_envs, compiled in itertools.product((64, 4_096), (False, True)):
        rates = []
        for device in devices:
            env = make_vector(NATIVE, num_envs)
            agent = make_agent("actor_critic", env, device=device, compile=compiled, rollout_steps=16, log_every=num_envs * 16)
            rates.append(stepping(agent, env, seconds, 40 * num_envs))
        yield f"actor_critic on {num_envs:,} copies of TorchCartPole{', compiled' * compiled}: steps/s", rates


def peer(device: str, seconds: float) -> float:
    """Steps a second of Stable-Baselines3's DQN on the same frames, updating as ours."""
    env = make_vector(PONG, 1)
    agent = make_agent(
        "sb3", env, device=device, algorithm="DQN",
        settings={"buffer_size": 20_000, "learning_starts": 1_000, "train_freq": 4, "batch_size": 32},
    )  # fmt: skip
    return stepping(agent, env, seconds, 2_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each figure")
    seconds = parser.parse_args().seconds
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    table = Table("work", *devices, "GPU is faster by", title=torch.cuda.get_device_name() if "cuda" in devices else "no GPU")
    for work, figures in itertools.chain(of_models(devices, seconds), of_agents(devices, seconds)):
        ratio = figures[0] / figures[-1] if "seconds" in work else figures[-1] / figures[0]
        table.add_row(work, *(f"{figure:,.2f}" for figure in figures), f"{ratio:.1f} x" if len(figures) > 1 else "")
        print(work, figures, file=sys.stderr, flush=True)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
