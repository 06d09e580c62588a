"""Deep agents side by side with Stable-Baselines3: `python benchmarks/deep.py [--quick] [--only dqn]`.

Every section is a function that returns rows. Both learn the same environment with the same network, batch and updates per
step, on one thread, in turn in this process, so that noise hits both alike; a figure is the median of the turns.
Steps a second are
counted while learning (the first steps, in which neither learns and ours compiles, are left out); beside them stands what is
left of them over a whole run of `RUN` steps when the seconds to compile are counted: with torch's cache on disk as it is, and
with an empty one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import torch
from rich.console import Console
from rich.table import Table

from mpagents.environments import EnvironmentSpec, make_vector
from mpagents.python_api import make_agent

CARTPOLE = EnvironmentSpec("CartPole-v1", label="cartpole")
RUN = 50_000  # environment steps over which compiling is repaid
LEARNING_STARTS = 1_000


class Row(NamedTuple):
    work: str
    ours: str
    peer: str
    ratio: float | None  # ours / peer, in steps a second
    target: str
    met: bool | None


class DQN:
    """Ours, one block of steps at a time."""

    def __init__(self, compile: bool) -> None:
        env = make_vector(CARTPOLE, 1)
        config = {"learning_starts": LEARNING_STARTS, "batch_size": 64, "hidden_sizes": (64, 64), "train_every": 1}
        agent = make_agent("dqn", env, compile=compile, log_every=100, **config)
        self.iterations = agent.train(env, 10_000_000)
        self.steps = 0
        self.block(LEARNING_STARTS)
        start = time.perf_counter()
        self.block(100)  # compiles
        self.compile_seconds = time.perf_counter() - start

    def block(self, num_steps: int) -> None:
        end = self.steps + num_steps
        while self.steps < end:
            self.steps, _ = next(self.iterations)


class PeerDQN:
    """Stable-Baselines3's."""

    def __init__(self) -> None:
        import stable_baselines3

        config: dict[str, Any] = {"learning_starts": LEARNING_STARTS, "batch_size": 64, "train_freq": 1, "gradient_steps": 1}
        network = {"net_arch": [64, 64]}
        self.model = stable_baselines3.DQN("MlpPolicy", "CartPole-v1", policy_kwargs=network, device="cpu", seed=0, **config)
        self.block(LEARNING_STARTS + 100)

    def block(self, num_steps: int) -> None:
        self.model.learn(num_steps, reset_num_timesteps=False)


def rates(learners: list[Any], num_steps: list[int], turns: int) -> list[float]:
    """Median steps a second of each learner over blocks taken in turn."""
    found: list[list[float]] = [[] for _ in learners]
    for _ in range(turns):
        for learner, steps, speeds in zip(learners, num_steps, found):
            start = time.perf_counter()
            learner.block(steps)
            speeds.append(steps / (time.perf_counter() - start))
    return [statistics.median(speeds) for speeds in found]


def with_compiling(speed: float, seconds: float) -> float:
    """Steps a second over a run of `RUN` steps that compiles first."""
    return RUN / (RUN / speed + seconds)


def cold_seconds() -> float:
    """Seconds to compile with an empty cache, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": folder}
        command = [sys.executable, __file__, "--compile-dqn"]
        return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()[-1])


def dqn(quick: bool) -> list[Row]:
    """CartPole-v1, one environment, one update a step, network 64-64, batch 64; ours with its defaults (double, 3 steps)."""
    turns, blocks = (3, [2_000, 400, 400]) if quick else (7, [8_000, 1_500, 1_500])
    compiled, eager, peer = DQN(compile=True), DQN(compile=False), PeerDQN()
    speed, eager_speed, peer_speed = rates([compiled, eager, peer], blocks, turns)
    theirs = f"{peer_speed:,.0f} steps/s"
    warm, cold = compiled.compile_seconds, cold_seconds()
    work, ratio = "DQN, 1 update a step", speed / peer_speed
    rows = [Row(f"{work}, compiled", f"{speed:,.0f} steps/s", theirs, ratio, "≥ 4", ratio >= 4)]
    for name, seconds in (("warm cache", warm), ("cold cache", cold)):
        whole = with_compiling(speed, seconds)
        label = f"{work}, compiled: {RUN:,} steps with {seconds:.1f} s of compiling, {name}"
        rows.append(Row(label, f"{whole:,.0f} steps/s", theirs, whole / peer_speed, "", None))
    return [*rows, Row(f"{work}, eager", f"{eager_speed:,.0f} steps/s", theirs, eager_speed / peer_speed, "", None)]


SECTIONS: list[Callable[[bool], list[Row]]] = [dqn]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="shorter blocks")
    parser.add_argument("--only", choices=[section.__name__ for section in SECTIONS], help="one section")
    parser.add_argument("--compile-dqn", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.compile_dqn:
        print(DQN(compile=True).compile_seconds)
        return
    start = time.perf_counter()
    table = Table("work", "ours", "Stable-Baselines3", "ratio", "target", "met", title="Deep agents, one thread")
    for section in SECTIONS:
        if options.only in (None, section.__name__):
            for row in section(options.quick):
                ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
                table.add_row(row.work, row.ours, row.peer, ratio, row.target, {None: "", True: "yes", False: "NO"}[row.met])
    console = Console(width=180)
    console.print(table)
    console.print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
