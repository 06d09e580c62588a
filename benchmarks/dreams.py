"""Policies trained in dreams of frames, judged awake: `python benchmarks/dreams.py catch|grid [--seeds 5] [--pictures DIR]`.

For each seed: frames of random play are recorded, a world model is trained on them, an agent trains in its dreams, and the
policy is judged in the real world. In Catch actor-critic sees the state of `world_model`, which is filtered from real frames
awake. In the gridworld DQN sees frames, dreamt by `diffusion_world_model` or real, through the code of a linear VAE. Beside it
stands the same with an untrained world model (`--control N`: for so many of the seeds). Seconds are those of trainings only:
this process's processor time, with `--device cuda` wall time. The agents learn on the processor there too.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `generative` is the package, not the file beside this

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import generative
import mpagents
from benchmarks.dream_tasks import AGENT, FIT, TASKS, Task, at_random, recorded, steps_in, windows_of
from generative.data import Rows
from generative.pictures import grid
from mpagents.dream import Dream, encoded_action
from mpagents.torch_env import TorchEnv, TorchVectorEnv

NUM_JUDGED = 500  # real episodes
NUM_VISITED = 5_000  # episodes of a recording whose states dreams start in


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--control", type=int, help="seeds with an untrained model beside; all by default")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of the first seed's dream beside real frames")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where world models are trained and dreamt")
    parser.add_argument("--progress", action="store_true", help="print the trainings' losses")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("seed", "real steps", "dream's return", "real return", "success", "untrained", "s model", "s policy")
    for number in range(arguments.seeds):
        run = Run(TASKS[arguments.task], arguments.first + number, arguments.device, arguments.progress)
        with run.clocked("model"):
            model = trained(run, fresh(run))
            encoder = encoder_of(run)
        with run.clocked("policy"):
            agent, dreamt = dreamer(run, model, encoder)
        found = [judged(run, model, encoder, agent)]
        if arguments.control is None or number < arguments.control:
            found.append(untrained(run, encoder))
        success = [f"{run.task.succeeded(part).float().mean():.1%}" for part in found] + ["–"] * (2 - len(found))
        told = f"{steps_in(run.rows):,}", f"{dreamt:.2f}", f"{found[0].mean():.2f}"
        table.add_row(str(run.seed), *told, *success, *(f"{run.seconds[part]:.0f}" for part in ("model", "policy")))
        if arguments.pictures and not number:
            arguments.pictures.mkdir(parents=True, exist_ok=True)
            save_picture(dream_beside(model.to("cpu"), run.rows), arguments.pictures / f"dream-{arguments.task}.png")
    Console().print(table)


class Run:
    """A task with a seed, the random play that is learned from, and the seconds that trainings took."""

    def __init__(self, task: Task, seed: int, device: str, progress: bool) -> None:
        self.task, self.seed, self.device, self.progress = task, seed, device, progress
        self.clock = time.process_time if device == "cpu" else time.perf_counter  # a process that waits for a GPU spins
        self.env: TorchEnv = task.env()
        self.rows = recorded(task, seed, task.episodes, task.random_steps, at_random(self.env.action.num))
        self.seconds = {"model": 0.0, "policy": 0.0}

    @contextmanager
    def clocked(self, name: str) -> Iterator[None]:
        """Adds the time to `seconds[name]`."""
        begun = self.clock()
        yield
        self.seconds[name] += self.clock() - begun


def trained(run: Run, model: Any) -> Any:
    source = windows_of(run.task, run.rows)
    for step, metrics in generative.fit(
        model.requires_grad_(True), source, **FIT, **run.task.fit, device=run.device, seed=run.seed
    ):
        if run.progress:
            told = {key: round(float(metrics[key]), 2) for key in metrics if key.split("/")[-1] in PRINTED}
            print(f"model {step} {told}", flush=True)
    return model.eval().requires_grad_(False)


PRINTED = ("loss", "kl", "squared_error", "reward", "end")


def fresh(run: Run) -> Any:
    torch.manual_seed(run.seed)
    shape, num = run.env.observation.frame, run.env.action.num
    model = generative.build(run.task.kind, shape=shape, action_size=num, **run.task.model)
    return model.to(run.device).eval().requires_grad_(False)


def encoder_of(run: Run) -> mpagents.Encoder | None:
    """A VAE's code of frames, standardised over some of them; None where the agent sees the model's state."""
    if run.task.codes is None:
        return None
    torch.manual_seed(run.seed)
    frames = run.rows["x"][run.rows["mask"]]
    vae = generative.build("vae", shape=run.env.observation.frame, **run.task.codes)
    settings = {"steps": 3_000, "batch_size": 64, "learning_rate": 1e-3, "device": "cpu", "log_every": 1_000, "seed": run.seed}
    for _ in generative.fit(vae, Rows({"x": frames.numpy()}), **settings):
        pass
    encoder = mpagents.Encoder(vae.eval().requires_grad_(False))
    encoder.measure([frames[:: len(frames) // 3_000]])
    return encoder.to(run.device)


def dreamer(run: Run, model: Any, encoder: Any) -> tuple[Any, float]:
    """(a policy, its last mean return in the dream)."""
    task = run.task
    observes: Any = "observation" if encoder else "features"
    dream = Dream(
        model, begun(run, model), run.env.action, horizon=task.horizon, observes=observes, temperature=task.temperature
    )
    venv: Any = TorchVectorEnv(dream, AGENT["num_envs"], run.device)
    venv = mpagents.EncodeObservation(venv, encoder) if encoder else venv
    agent = mpagents.make_agent(task.agent, venv, seed=run.seed, **AGENT, **task.settings)
    dreamt = 0.0
    for step, metrics in agent.train(venv, task.dream_steps):
        dreamt = float(metrics.get("rollout/ep_rew_mean", 0.0))
        if run.progress:
            success = task.succeeded(judged(run, model, encoder, agent)).float().mean()
            print(f"policy {step} dream {dreamt:.2f} real {success:.1%}", flush=True)
    return agent, dreamt


def begun(run: Run, model: Any) -> tuple[Tensor, ...]:
    """States to start dreams in: those of real steps, and those that episodes began in."""
    rows = {key: value[:NUM_VISITED].to(run.device) for key, value in run.rows.items()}
    with torch.no_grad():
        states, valid = model.posterior(rows)
        visited = tuple(part[valid] for part in states)
        share = run.task.beginnings
        if not share:
            return visited
        first = model.begin(rows["x"][:, 0])
    kept = torch.randperm(len(visited[0]), generator=torch.Generator().manual_seed(run.seed))
    kept = kept[: round(len(first[0]) * (1 - share) / share)].to(run.device)
    return tuple(torch.cat([one, part[kept]]) for one, part in zip(first, visited))


def judged(run: Run, model: Any, encoder: Any, agent: Any) -> Tensor:
    """Returns [NUM_JUDGED] of the greedy policy in the real world, the model's state being filtered from what is seen."""
    env, n = run.env, NUM_JUDGED
    generator = torch.Generator().manual_seed(1_000_000 + run.seed)
    state = env.reset(torch.rand(n, *env.noise_shape, generator=generator))
    returns, running, no = torch.zeros(n), torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    with torch.no_grad():
        believed = model.begin(env.observe(state).to(run.device))
        for _ in range(run.task.num_steps):
            seen = encoder(model.observation(believed))[0] if encoder else model.features(believed)
            action = torch.as_tensor(agent.predict(seen.cpu().numpy(), deterministic=True)[0])
            state, reward, ended = env.step(state, action, torch.rand(n, *env.noise_shape, generator=generator))
            returns += reward * running
            running &= ~ended
            taken = encoded_action(action, env.action.num)
            believed = model.filter(believed, *(part.to(run.device) for part in (taken, env.observe(state), no)))
    return returns


def untrained(run: Run, encoder: Any) -> Tensor:
    """The same with a world model that has learned nothing."""
    model = fresh(run)
    return judged(run, model, encoder, dreamer(run, model, encoder)[0])


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

    image = Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture)
    image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
