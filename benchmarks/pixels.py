"""Frames a second of the pixel worlds, on one core: `python benchmarks/pixels.py [--num-envs 64] [--size 32]`.

A frame is one observation, all its channels. "step + observe" is the batched torch environment itself, as a compiled or an
imagined rollout uses it; "vector" is Gymnasium's interface to it, with noise, the time limit, autoreset, the true
state and numpy; "single" is one copy under its id. Actions are random. Seconds are the processor's for this process, of the
best of seven rounds: what else the machine does can only slow a round down.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import gymnasium
import torch
from rich.console import Console
from rich.table import Table

from envs import VECTOR_ENTRY_POINTS
from mpagents.torch_env import TorchVectorEnv

TARGET = 100_000  # frames a second of step + observe
ROUNDS, SECONDS = 7, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--size", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("world", "frame", "step + observe", "vector", "single", f"target {TARGET:,}")
    for env_id, point in VECTOR_ENTRY_POINTS.items():
        if not point.startswith("envs.pixels"):
            continue
        bare, vector, single = rates(env_id, arguments.num_envs, arguments.size)
        shape = "×".join(map(str, gymnasium.make(f"envs:{env_id}", size=arguments.size).observation_space.shape or ()))
        table.add_row(env_id, shape, f"{bare:,.0f}", f"{vector:,.0f}", f"{single:,.0f}", "met" if bare >= TARGET else "missed")
    Console().print(table)


def rates(env_id: str, num_envs: int, size: int) -> tuple[float, float, float]:
    """Frames a second: bare, as a vector environment, single."""
    vector = gymnasium.make_vec(f"envs:{env_id}", num_envs, vectorization_mode="vector_entry_point", size=size)
    assert isinstance(vector, TorchVectorEnv)
    single = gymnasium.make(f"envs:{env_id}", size=size, disable_env_checker=True)
    return (
        best(bare_steps(vector), num_envs),
        best(gymnasium_steps(vector, num_envs), num_envs),
        best(gymnasium_steps(single, 1), 1),
    )


def bare_steps(env: TorchVectorEnv) -> Iterator[None]:
    """Steps and observations of the torch environment; every 50 steps new episodes, whose noise isn't counted as theirs."""
    torch_env, n = env.torch_env, env.num_envs
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((n, *torch_env.noise_shape), generator=generator)
    actions = torch.randint(torch_env.action.num or 0, (50, n), generator=generator)
    with torch.no_grad():
        while True:
            state = torch_env.reset(noise)
            for action in actions:
                state, _, _ = torch_env.step(state, action, noise)
                torch_env.observe(state)
                yield


def gymnasium_steps(env: gymnasium.Env | TorchVectorEnv, n: int) -> Iterator[None]:
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(50)]
    while True:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if n == 1 and (terminated or truncated):
                env.reset()
            yield


def best(steps: Iterator[None], n: int, clock: Callable[[], float] = time.process_time) -> float:
    """Frames a second of the fastest round."""
    fastest = 0.0
    for _ in range(ROUNDS):
        count, start = 0, clock()
        while clock() - start < SECONDS:
            next(steps)
            count += n
        fastest = max(fastest, count / (clock() - start))
    return fastest


if __name__ == "__main__":
    main()
