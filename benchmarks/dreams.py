"""Policies trained in dreams of frames, judged awake: `python benchmarks/dreams.py catch|grid [--seeds 5] [--pictures DIR]`.

For each seed: frames of random play are recorded, a world model is trained on them, an agent trains in its dreams, and the
policy is judged in the real world. In Catch actor-critic sees the state of `world_model`, which is filtered from real frames
awake. In the gridworld DQN sees frames, dreamt by `diffusion_world_model` or real, through the code of a linear VAE. Beside
it stands the same with an untrained world model (`--control N`: for so many of the seeds). Seconds are the processor's for this
process, for the trainings only.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
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
import mpagents
from envs.pixels.catch import Catch
from envs.pixels.grid import PixelGrid
from generative.data import Rows
from generative.pictures import grid
from generative.windows import Reading, Windows, windows
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
    kind: str  # of world model
    model: dict[str, Any]  # its configuration, beyond shape and actions
    fit: dict[str, Any]
    agent: str
    settings: dict[str, Any]  # of the agent, beyond AGENT
    dream_steps: int  # for the policy
    horizon: int  # of a dream
    temperature: float = 1.0  # of dreams
    visited: bool = False  # dreams start in any state of some recorded episodes; else in those that begin one
    codes: dict[str, Any] | None = None  # of a VAE through whose code the agent sees frames; None: it sees the model's state
    succeeded: Callable[[Tensor], Tensor] = lambda returns: returns > 0


TASKS = {
    "catch": Task(
        Catch,
        num_steps=16,
        episodes=3_000,
        length=9,
        kind="world_model",
        model={"hidden": (256,), "unseen": 0.5, "reward_scale": 0.03},
        fit={"steps": 3_500, "batch_size": 24, "learning_rate": 2e-3},
        agent="actor_critic",
        settings={"rollout_steps": 16, "epochs": 6},
        dream_steps=150_000,
        horizon=16,
        temperature=0.0,
    ),
    "grid": Task(
        lambda: PixelGrid(size=20, cells=5, channels=1, max_episode_steps=None),
        num_steps=60,
        episodes=10_000,
        length=3,
        kind="diffusion_world_model",
        model={"past": 1, "channels": (16, 32), "seen": (16, 32), "denoising": 2},
        fit={"steps": 8_000, "batch_size": 24, "learning_rate": 2e-3},
        agent="dqn",
        settings={
            "train_every": 4,
            "n_step": 3,
            "replay_size": 100_000,
            "learning_starts": 2_000,
            "hidden_sizes": (128, 128),
            "learning_rate": {"start": 1e-3, "end": 0.0},
            "epsilon": {"start": 1.0, "end": 0.05, "fraction": 0.5},
        },
        dream_steps=200_000,
        horizon=30,
        visited=True,
        codes={"latent": 64, "hidden": (), "scale": 0.1},
    ),
}
FIT = {"learning_rate": 1e-3, "warm_up": 20, "max_grad_norm": 1e5, "device": "cpu", "log_every": 100, "validation_size": 200}
AGENT = {"num_envs": 64, "compile": False, "log_every": 20_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--control", type=int, help="seeds with an untrained model beside; all by default")
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
        encoder = encoder_of(task, env, rows, seed)
        modelled = time.process_time()
        agent, dreamt = dreamer(task, env, model, encoder, rows, seed, arguments.progress)
        done = time.process_time()
        found = [judged(task, env, model, encoder, agent, seed)]
        if arguments.control is None or seed < arguments.control:
            found.append(untrained(task, env, encoder, rows, seed))
        returns, success = found[0], [f"{task.succeeded(part).float().mean():.1%}" for part in found]
        success += ["–"] * (2 - len(success))
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


PRINTED = ("loss", "kl", "squared_error", "reward", "end")


def fresh(task: Task, env: TorchEnv) -> Any:
    shape, num = env.observation.frame, env.action.num
    return generative.build(task.kind, shape=shape, action_size=num, **task.model).requires_grad_(True)


def encoder_of(task: Task, env: TorchEnv, rows: dict[str, Tensor], seed: int) -> mpagents.Encoder | None:
    """A VAE's code of frames, standardised over some of them; None where the agent sees the model's state."""
    if task.codes is None:
        return None
    torch.manual_seed(seed)
    frames = rows["x"][rows["mask"]]
    vae = generative.build("vae", shape=env.observation.frame, **task.codes)
    settings = {"steps": 3_000, "batch_size": 64, "learning_rate": 1e-3, "device": "cpu", "log_every": 1_000, "seed": seed}
    for _ in generative.fit(vae, Rows({"x": frames.numpy()}), **settings):
        pass
    encoder = mpagents.Encoder(vae.eval().requires_grad_(False))
    encoder.measure([frames[:: len(frames) // 3_000]])
    return encoder


def dreamer(
    task: Task, env: TorchEnv, model: Any, encoder: Any, rows: dict[str, Tensor], seed: int, progress: bool
) -> tuple[Any, float]:
    """(a policy, its last mean return in the dream), from the states of some recorded episodes."""
    starts, observes = begun(task, model, rows), "observation" if encoder else "features"
    dream = Dream(model, starts, env.action, horizon=task.horizon, observes=observes, temperature=task.temperature)  # type: ignore[arg-type]
    venv: Any = TorchVectorEnv(dream, AGENT["num_envs"])
    venv = mpagents.EncodeObservation(venv, encoder) if encoder else venv
    agent = mpagents.make_agent(task.agent, venv, seed=seed, **AGENT, **task.settings)
    dreamt = 0.0
    for step, metrics in agent.train(venv, task.dream_steps):
        dreamt = float(metrics.get("rollout/ep_rew_mean", 0.0))
        if progress:
            success = task.succeeded(judged(task, env, model, encoder, agent, seed)).float().mean()
            print(f"policy {step} dream {dreamt:.2f} real {success:.1%}", flush=True)
    return agent, dreamt


def begun(task: Task, model: Any, rows: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """States to start dreams in."""
    with torch.no_grad():
        if not task.visited:
            return model.begin(rows["x"][:, 0])
        states, valid = model.posterior({key: value[:NUM_VISITED] for key, value in rows.items()})
    return tuple(part[valid] for part in states)


def judged(task: Task, env: TorchEnv, model: Any, encoder: Any, agent: Any, seed: int) -> Tensor:
    """Returns [NUM_JUDGED] of the greedy policy in the real world, the model's state being filtered from what is seen."""
    generator = torch.Generator().manual_seed(1_000_000 + seed)
    n = NUM_JUDGED
    state = env.reset(torch.rand(n, *env.noise_shape, generator=generator))
    returns, running, no = torch.zeros(n), torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    with torch.no_grad():
        believed = model.begin(env.observe(state))
        for _ in range(task.num_steps):
            seen = encoder(model.observation(believed))[0] if encoder else model.features(believed)
            action = torch.as_tensor(agent.predict(seen.numpy(), deterministic=True)[0])
            state, reward, ended = env.step(state, action, torch.rand(n, *env.noise_shape, generator=generator))
            returns += reward * running
            running &= ~ended
            believed = model.filter(believed, encoded_action(action, env.action.num), env.observe(state), no)
    return returns


def untrained(task: Task, env: TorchEnv, encoder: Any, rows: dict[str, Tensor], seed: int) -> Tensor:
    """The same with a world model that has learned nothing."""
    torch.manual_seed(seed)
    model = fresh(task, env).requires_grad_(False)
    return judged(task, env, model, encoder, dreamer(task, env, model, encoder, rows, seed, False)[0], seed)


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
