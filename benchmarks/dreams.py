"""Policies trained in dreams of frames, judged awake: `python benchmarks/dreams.py catch [--seeds 5] [--pictures DIR]`.

For each seed: frames of random play are recorded, `world_model` is trained on them, actor-critic trains on the model's state in
its dreams, and the policy is judged in the real world, where the state is filtered from real frames. Beside it stands the same
with an untrained world model. Seconds are the processor's for this process, for the trainings only.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `generative` is the package, not the file beside this

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import generative
from envs.pixels.catch import Catch
from envs.pixels.grid import PixelGrid
from generative.pictures import grid
from generative.windows import Reading, Windows, windows
from mpagents.agents.actor_critic import ActorCritic
from mpagents.agents.agent import Spaces
from mpagents.dream import Dream, encoded_action
from mpagents.torch_env import TorchEnv, TorchVectorEnv

NUM_JUDGED = 500  # real episodes
NUM_VISITED = 300  # recorded episodes whose states dreams start in
HOLD = 0.5  # probability that random play repeats its action, so that it gets further


@dataclass(frozen=True)
class Task:
    """A world, how much of it is seen, and what is trained on that."""

    env: Callable[[], TorchEnv]
    num_steps: int  # longest episode
    episodes: int  # recorded
    length: int  # of the sequences that the world model is trained on
    model: dict[str, Any]  # of the world model, beyond shape and actions
    fit: dict[str, Any]
    dream_steps: int  # for the policy
    temperature: float = 1.0  # of dreams
    visited: bool = False  # dreams start in any state of the recorded episodes; else in those that begin one
    agent: dict[str, Any] = field(default_factory=dict)
    succeeded: Callable[[Tensor], Tensor] = lambda returns: returns > 0


TASKS = {
    "catch": Task(
        Catch,
        num_steps=16,
        episodes=3_000,
        length=9,
        model={"hidden": (256,), "unseen": 0.5, "reward_scale": 0.03},
        fit={"steps": 3_500, "batch_size": 24, "learning_rate": 2e-3},
        dream_steps=150_000,
        temperature=0.0,
    ),
    "grid": Task(
        lambda: PixelGrid(size=20, cells=5, channels=1, max_episode_steps=None),
        num_steps=60,
        episodes=2_000,
        length=10,
        model={"hidden": (256,), "latent_size": 12, "unseen": 0.5, "reward_scale": 0.03},
        fit={"steps": 5_000, "batch_size": 24, "learning_rate": 2e-3},
        dream_steps=400_000,
        temperature=0.0,
        visited=True,
        agent={"entropy_coefficient": 0.005},
    ),
}
FIT = {"learning_rate": 1e-3, "warm_up": 20, "max_grad_norm": 1e5, "device": "cpu", "log_every": 100, "validation_size": 200}
AGENT = {"num_envs": 64, "rollout_steps": 16, "epochs": 6, "compile": False, "log_every": 20_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--pictures", type=Path, help="folder for a picture of the first seed's dream beside real frames")
    parser.add_argument("--progress", action="store_true", help="print the trainings' losses")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("seed", "real steps", "dream's return", "real return", "success", "untrained", "s model", "s policy")
    for seed in range(arguments.seeds):
        task = TASKS[arguments.task]
        env, rows = task.env(), recorded(task, seed)
        begun = time.process_time()
        model = trained(task, env, windows_of(task, rows), seed, arguments.progress)
        modelled = time.process_time()
        agent, dreamt = dreamer(task, env, model, rows, seed, arguments.progress)
        done = time.process_time()
        returns = judged(task, env, model, agent, seed)
        control = untrained(task, env, rows, seed)
        success = [f"{task.succeeded(found).float().mean():.1%}" for found in (returns, control)]
        real_steps = int(rows["mask"].sum() - rows["first"].sum())
        seconds = f"{modelled - begun:.0f}", f"{done - modelled:.0f}"
        table.add_row(str(seed), f"{real_steps:,}", f"{dreamt:.2f}", f"{returns.mean():.2f}", *success, *seconds)
        if arguments.pictures and not seed:
            arguments.pictures.mkdir(parents=True, exist_ok=True)
            save_picture(dream_beside(model, rows), arguments.pictures / f"dream-{arguments.task}.png")
    Console().print(table)


def recorded(task: Task, seed: int) -> dict[str, Tensor]:
    """Whole episodes of random play [N, T + 1, …] as world models take them: a row is what an action led to."""
    env, n = task.env(), task.episodes
    generator = torch.Generator().manual_seed(seed)
    num = env.action.num or 0
    state = env.reset(torch.rand(n, *env.noise_shape, generator=generator))
    action = torch.randint(num, (n,), generator=generator)
    running, no = torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    rows = [
        {
            "x": env.observe(state),
            "action": action,
            "reward": torch.zeros(n),
            "terminated": no,
            "first": running,
            "mask": running,
        }
    ]
    for _ in range(task.num_steps):
        held = torch.rand(n, generator=generator) < HOLD
        action = torch.where(held, action, torch.randint(num, (n,), generator=generator))
        state, reward, ended = env.step(state, action, torch.rand(n, *env.noise_shape, generator=generator))
        seen = {"x": env.observe(state), "action": action, "reward": reward, "terminated": ended}
        rows.append({**seen, "first": no, "mask": running})
        running = running & ~ended
    found = {key: torch.stack([row[key] for row in rows], 1) for key in rows[0]}
    return {**found, "action": encoded_action(found["action"], num)}


def windows_of(task: Task, rows: dict[str, Tensor]) -> Windows:
    """Sequences of the recorded episodes, which run on into the next: so last steps are seen as often as others."""
    columns = {key: value[rows["mask"]].numpy() for key, value in rows.items() if key != "mask"}
    return windows(columns, np.array([[0, len(columns["x"])]]), Reading(length=task.length, crossing=True, actions="led"))


def trained(task: Task, env: TorchEnv, source: Windows, seed: int, progress: bool) -> Any:
    torch.manual_seed(seed)
    model = fresh(task, env)
    for step, metrics in generative.fit(model, source, **{**FIT, **task.fit}, seed=seed):
        if progress:
            told = {key: round(float(metrics[key]), 2) for key in metrics if key.split("/")[-1] in PRINTED}
            print(f"model {step} {told}", flush=True)
    return model.requires_grad_(False)


PRINTED = ("loss", "kl", "reward", "end")


def fresh(task: Task, env: TorchEnv) -> Any:
    shape, num = env.observation.frame, env.action.num
    return generative.build("world_model", shape=shape, action_size=num, **task.model).requires_grad_(True)


def dreamer(
    task: Task, env: TorchEnv, model: Any, rows: dict[str, Tensor], seed: int, progress: bool
) -> tuple[ActorCritic, float]:
    """(a policy on the model's state, its last mean return in the dream), from the states of some recorded episodes."""
    starts = begun(task, model, rows)
    dream = Dream(model, starts, env.action, horizon=task.num_steps, observes="features", temperature=task.temperature)
    venv = TorchVectorEnv(dream, AGENT["num_envs"])
    spaces = Spaces(venv.single_observation_space, venv.single_action_space)
    agent = ActorCritic(ActorCritic.Config(**{**AGENT, **task.agent}), spaces, seed=seed)
    dreamt = 0.0
    for step, metrics in agent.train(venv, task.dream_steps):
        dreamt = float(metrics.get("rollout/ep_rew_mean", 0.0))
        if progress:
            success = task.succeeded(judged(task, env, model, agent, seed)).float().mean()
            print(f"policy {step} dream {dreamt:.2f} real {success:.1%}", flush=True)
    return agent, dreamt


def begun(task: Task, model: Any, rows: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """States to start dreams in."""
    with torch.no_grad():
        if not task.visited:
            return model.begin(rows["x"][:, 0])
        states, valid = model.posterior({key: value[:NUM_VISITED] for key, value in rows.items()})
    return tuple(part[valid] for part in states)


def judged(task: Task, env: TorchEnv, model: Any, agent: ActorCritic, seed: int) -> Tensor:
    """Returns [NUM_JUDGED] of the greedy policy in the real world, the state being filtered from what is seen."""
    generator = torch.Generator().manual_seed(1_000_000 + seed)
    n = NUM_JUDGED
    state = env.reset(torch.rand(n, *env.noise_shape, generator=generator))
    returns, running, no = torch.zeros(n), torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    with torch.no_grad():
        believed = model.begin(env.observe(state))
        for _ in range(task.num_steps):
            action = torch.as_tensor(agent.predict(model.features(believed).numpy(), deterministic=True)[0])
            state, reward, ended = env.step(state, action, torch.rand(n, *env.noise_shape, generator=generator))
            returns += reward * running
            running &= ~ended
            believed = model.filter(believed, encoded_action(action, env.action.num), env.observe(state), no)
    return returns


def untrained(task: Task, env: TorchEnv, rows: dict[str, Tensor], seed: int) -> Tensor:
    """The same with a world model that has learned nothing."""
    torch.manual_seed(seed)
    model = fresh(task, env).requires_grad_(False)
    return judged(task, env, model, dreamer(task, env, model, rows, seed, False)[0], seed)


def dream_beside(model: Any, rows: dict[str, Tensor], episodes: int = 3, columns: int = 12) -> Any:
    """A picture [H, W, C]: for each of the last episodes a line of real frames, and below it what is dreamt from the first
    of them alone under the same actions."""
    lines = []
    last = {key: value[-episodes:] for key, value in rows.items()}
    places = torch.linspace(0, int(last["mask"].sum(1).min()) - 1, columns).long()
    with torch.no_grad():
        state, dreamt = model.begin(last["x"][:, 0]), [model.observation(model.begin(last["x"][:, 0]))]
        for t in range(1, int(places[-1]) + 1):
            state = model.imagine(state, last["action"][:, t], torch.full((episodes, model.num_noise), 0.5), 0.0)[0]
            dreamt.append(model.observation(state))
    for episode in range(episodes):
        lines += [last["x"][episode, places], torch.stack(dreamt, 1)[episode, places]]
    return grid(torch.cat(lines), columns)


def save_picture(picture: Any, path: Path) -> None:
    from PIL import Image

    Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
