"""Deep agents side by side with Stable-Baselines3: `python benchmarks/deep.py [--quick] [--only dqn|a2c|solve]`.

Every section is a function that returns rows. Both learn the same environment with the same network, batch and updates per
step, on one thread, in turn in this process, so that noise hits both alike; a figure is the median of the turns. Steps a second
are counted while learning: the first steps, in which neither learns and ours compiles, are left out. Beside them stands what is
left of them over a whole run of `RUN` steps when the seconds to compile are counted: with our cache on disk as it is ("warm")
and with an empty one ("cold"). `solve` counts the seconds to a greedy mean of 475 on CartPole-v1, from after the imports.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import gymnasium
import stable_baselines3
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from envs.classic.cartpole import vector as torch_cartpole
from mpagents.environments import EnvironmentSpec, make_vector
from mpagents.python_api import make_agent

CARTPOLE = EnvironmentSpec("CartPole-v1", label="cartpole")
RUN = 50_000  # environment steps over which compiling is repaid
LEARNING_STARTS = 1_000
DQN_CONFIG = {"learning_starts": LEARNING_STARTS, "batch_size": 64, "hidden_sizes": (64, 64), "train_every": 1}
A2C_CONFIG: dict[str, Any] = {  # Stable-Baselines3's defaults
    "rollout_steps": 5, "gae_lambda": 1.0, "epochs": 1, "clip_ratio": None, "optimiser": "rmsprop", "learning_rate": 7e-4,
    "value_coefficient": 0.5, "normalise_advantage": False, "normalise_rewards": False,
}  # fmt: skip


class Row(NamedTuple):
    work: str
    ours: str
    peer: str
    ratio: float | None  # ours / theirs in steps a second; in seconds, theirs / ours
    target: str
    met: bool | None


class Ours:
    """An agent of ours, one block of steps at a time; `warm_up` steps compile and aren't counted."""

    def __init__(self, name: str, env: Any, warm_up: tuple[int, int], **config: Any) -> None:
        agent = make_agent(name, env, **config)
        self.iterations: Iterator[tuple[int, Any]] = agent.train(env, 100_000_000)
        self.steps = 0
        self.block(warm_up[0])
        start = time.perf_counter()
        self.block(warm_up[1])
        self.compile_seconds = time.perf_counter() - start

    def block(self, num_steps: int) -> None:
        end = self.steps + num_steps
        while self.steps < end:
            self.steps, _ = next(self.iterations)


class Peer:
    """An algorithm of Stable-Baselines3."""

    def __init__(self, model: Any, warm_up: int) -> None:
        self.model = model
        self.block(warm_up)

    def block(self, num_steps: int) -> None:
        self.model.learn(num_steps, reset_num_timesteps=False)


def our_dqn(compile: bool) -> Ours:
    return Ours("dqn", make_vector(CARTPOLE, 1), (LEARNING_STARTS, 100), compile=compile, log_every=100, **DQN_CONFIG)


def our_a2c(env: Any, compile: bool) -> Ours:
    rollout = 5 * env.num_envs
    return Ours("actor_critic", env, (0, rollout), num_envs=env.num_envs, compile=compile, log_every=rollout, **A2C_CONFIG)


def peer_dqn() -> Peer:
    network = {"net_arch": [64, 64]}
    config: dict[str, Any] = {"learning_starts": LEARNING_STARTS, "batch_size": 64, "train_freq": 1, "gradient_steps": 1}
    model = stable_baselines3.DQN("MlpPolicy", "CartPole-v1", policy_kwargs=network, device="cpu", seed=0, **config)
    return Peer(model, LEARNING_STARTS + 100)


def peer_a2c(num_envs: int) -> Peer:
    model = stable_baselines3.A2C("MlpPolicy", make_vec_env("CartPole-v1", num_envs, seed=0), device="cpu", seed=0)
    return Peer(model, num_envs * 100)


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


def cold_seconds(work: str) -> float:
    """Seconds to compile with an empty cache, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        empty = {"XDG_CACHE_HOME": folder, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/torch"}
        command = [sys.executable, __file__, "--seconds-to-compile", work]
        shown = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | empty).stdout
    return float(shown.split()[-1])


def steps_a_second(speed: float) -> str:
    return f"{speed:,.0f} steps/s"


def repaid(work: str, speed: float, peer_speed: float, seconds: dict[str, float]) -> list[Row]:
    """A whole run with its compiling."""
    rows = []
    for cache, took in seconds.items():
        whole = with_compiling(speed, took)
        label = f"{work}: {RUN:,} steps with {took:.1f} s of compiling, {cache} cache"
        rows.append(Row(label, steps_a_second(whole), steps_a_second(peer_speed), whole / peer_speed, "", None))
    return rows


def dqn(quick: bool) -> list[Row]:
    """CartPole-v1, one environment, one update a step, network 64-64, batch 64; ours with its defaults (double, 5 steps)."""
    turns, blocks = (3, [2_000, 400, 400]) if quick else (7, [8_000, 1_500, 1_500])
    learners = [our_dqn(compile=True), our_dqn(compile=False), peer_dqn()]
    speed, eager, theirs = rates(learners, blocks, turns)
    work, peer = "DQN, 1 update a step", steps_a_second(theirs)
    row = Row(f"{work}, compiled", steps_a_second(speed), peer, speed / theirs, "≥ 4", speed / theirs >= 4)
    more = repaid(work, speed, theirs, {"warm": seconds_to_compile("dqn"), "cold": cold_seconds("dqn")})
    return [row, *more, Row(f"{work}, eager", steps_a_second(eager), peer, eager / theirs, "", None)]


def a2c(quick: bool) -> list[Row]:
    """CartPole-v1, 5 steps a rollout, network 64-64, RMSprop; ours on three kinds of vector environment."""
    rows = []
    for num_envs, target in ((8, 4), (64, 5)):
        copies = [lambda: gymnasium.make("CartPole-v1")] * num_envs
        ours = {
            "native vector environment": our_a2c(make_vector(CARTPOLE, num_envs), compile=True),
            "both on a synchronous one": our_a2c(SyncVectorEnv(copies, autoreset_mode=AutoresetMode.SAME_STEP), compile=True),
            "torch-native environment, an iteration one graph": our_a2c(torch_cartpole(num_envs), compile=True),
            "native, eager": our_a2c(make_vector(CARTPOLE, num_envs), compile=False),
        }
        turns, block = (3, 20_000) if quick else (7, 40_000)
        peers_block = block * num_envs // 64 if num_envs < 64 else block
        blocks = [*(peers_block * 4 for _ in ours), peers_block]
        *speeds, theirs = rates([*ours.values(), peer_a2c(num_envs)], blocks, turns)
        for (where, _), speed in zip(ours.items(), speeds):
            judged = where == "native vector environment"
            met = speed / theirs >= target if judged else None
            label = f"A2C, {num_envs} environments × 5 steps, {where}"
            limit = f"≥ {target}" if judged else ""
            rows.append(Row(label, steps_a_second(speed), steps_a_second(theirs), speed / theirs, limit, met))
        seconds = {"warm": seconds_to_compile(f"a2c-{num_envs}"), "cold": cold_seconds(f"a2c-{num_envs}")}
        rows += repaid(f"A2C, {num_envs} × 5, native", speeds[0], theirs, seconds)
    return rows


def seconds_to_compile(work: str) -> float:
    """With the cache as it is, in a process of its own, from after the imports."""
    command = [sys.executable, __file__, "--seconds-to-compile", work]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


SOLVED, JUDGE_EVERY, JUDGED_EPISODES = 475.0, 2_000, 20
DQN_TO_SOLVE: dict[str, Any] = {"compile": True}  # otherwise our defaults
A2C_TO_SOLVE: dict[str, Any] = {"num_envs": 8, "compile": True} | A2C_CONFIG | {"learning_rate": 1.5e-3}  # twice theirs
ZOO_DQN: dict[str, Any] = {  # the tuned settings of rl-baselines3-zoo
    "learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1_000, "target_update_interval": 10,
    "train_freq": 256, "gradient_steps": 128, "exploration_fraction": 0.16, "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]},
}  # fmt: skip


class Clock:
    """Seconds of learning: what is measured is not its measuring."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def stopped_for(self, judged: Callable[[], float]) -> float:
        begun = time.perf_counter()
        result = judged()
        self.start += time.perf_counter() - begun
        return result

    def seconds(self) -> float:
        return time.perf_counter() - self.start


def greedy_mean(agent: Any) -> float:
    """Over episodes that both are judged by."""
    env = make_vec_env("CartPole-v1", JUDGED_EPISODES, seed=10_000)
    return float(evaluate_policy(agent, env, n_eval_episodes=JUDGED_EPISODES, warn=False)[0])


def our_seconds(name: str, seed: int, config: dict[str, Any], budget: int) -> tuple[float, int]:
    """(seconds, environment steps) until the greedy mean is reached; judged as often as the peer, with the clock stopped."""
    clock = Clock()
    env = make_vector(CARTPOLE, config.get("num_envs", 1))
    agent = make_agent(name, env, seed=seed, **config)
    judged = 0
    for steps, _ in agent.train(env, budget):
        if steps // JUDGE_EVERY > judged:
            judged = steps // JUDGE_EVERY
            if clock.stopped_for(lambda: greedy_mean(agent)) >= SOLVED:
                return clock.seconds(), steps
    return float("inf"), budget


class Judge(BaseCallback):
    """Stops Stable-Baselines3 where the greedy mean is reached."""

    solved = False

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def _on_step(self) -> bool:
        if self.num_timesteps // JUDGE_EVERY > (self.num_timesteps - self.training_env.num_envs) // JUDGE_EVERY:
            self.solved = self.clock.stopped_for(lambda: greedy_mean(self.model)) >= SOLVED
        return not self.solved


def peer_seconds(algorithm: str, seed: int, budget: int) -> tuple[float, int]:
    clock = Clock()
    if algorithm == "DQN":
        model: Any = stable_baselines3.DQN("MlpPolicy", "CartPole-v1", device="cpu", seed=seed, **ZOO_DQN)
    else:
        model = stable_baselines3.A2C("MlpPolicy", make_vec_env("CartPole-v1", 8, seed=seed), device="cpu", seed=seed)
    judge = Judge(clock)
    model.learn(budget, callback=judge)
    return (clock.seconds() if judge.solved else float("inf")), model.num_timesteps


def solve(quick: bool) -> list[Row]:
    """Seconds to a greedy mean ≥ 475; each run of ours in a process of its own, so that it traces and loads its graphs."""
    rows, seeds = [], range(1 if quick else 5)
    works = (("DQN", "dqn", DQN_TO_SOLVE, 50_000, 50_000), ("A2C", "actor_critic", A2C_TO_SOLVE, 200_000, 500_000))
    for algorithm, name, _, _, budget in works:
        warm, theirs = [], []
        for seed in seeds:
            command = [sys.executable, __file__, "--seconds-to-solve", name, str(seed)]
            shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            warm.append(float(shown[-1]))
            theirs.append(peer_seconds(algorithm, seed, budget)[0])
            print(
                f"{algorithm}, seed {seed}: {warm[-1]:.1f} s, Stable-Baselines3 {theirs[-1]:.1f} s", file=sys.stderr, flush=True
            )
        with tempfile.TemporaryDirectory() as folder:
            empty = os.environ | {"XDG_CACHE_HOME": folder, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/torch"}
            command = [sys.executable, __file__, "--seconds-to-solve", name, "0"]
            cold = float(subprocess.run(command, check=True, capture_output=True, text=True, env=empty).stdout.split()[-1])
        ours, peer = statistics.median(warm), statistics.median(theirs)
        spread = f"{ours:.1f} s ({min(warm):.1f}–{max(warm):.1f})"
        their_spread = f"{peer:.1f} s ({min(theirs):.1f}–{max(theirs):.1f})"
        work = f"{algorithm}: seconds to a greedy mean ≥ {SOLVED:.0f}, {len(warm)} seeds"
        rows.append(Row(f"{work}, warm cache", spread, their_spread, peer / ours, "≥ 3", peer / ours >= 3))
        first = cold - warm[0] + ours  # what compiling adds, on seed 0
        rows.append(Row(f"{work}, cold cache", f"{first:.1f} s", their_spread, peer / first, "", None))
    return rows


SECTIONS: list[Callable[[bool], list[Row]]] = [dqn, a2c, solve]


def timed(work: str) -> float:
    """Seconds to compile."""
    if work == "dqn":
        return our_dqn(compile=True).compile_seconds
    return our_a2c(make_vector(CARTPOLE, int(work.removeprefix("a2c-"))), compile=True).compile_seconds


def timed_solution(name: str, seed: int) -> float:
    config, budget = {"dqn": (DQN_TO_SOLVE, 50_000), "actor_critic": (A2C_TO_SOLVE, 200_000)}[name]
    return our_seconds(name, seed, config, budget)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="shorter blocks, one seed")
    parser.add_argument("--only", choices=[section.__name__ for section in SECTIONS], help="one section")
    parser.add_argument("--seconds-to-compile", help=argparse.SUPPRESS)
    parser.add_argument("--seconds-to-solve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.seconds_to_compile:
        print(timed(options.seconds_to_compile))
        return
    if options.seconds_to_solve:
        print(timed_solution(options.seconds_to_solve[0], int(options.seconds_to_solve[1])))
        return
    start, console = time.perf_counter(), Console(width=180)
    for section in SECTIONS:
        if options.only in (None, section.__name__):
            table = Table("work", "ours", "Stable-Baselines3", "ratio", "target", "met", title=section.__name__)
            for row in section(options.quick):
                ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
                table.add_row(row.work, row.ours, row.peer, ratio, row.target, {None: "", True: "yes", False: "NO"}[row.met])
            console.print(table)
    console.print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
