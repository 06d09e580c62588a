"""What `benchmarks/dreams.py` trains and judges: worlds of frames, world models, agents; and how real play is recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from envs.pixels.catch import Catch
from envs.pixels.grid import PixelGrid
from generative.windows import Reading, Windows, windows
from mpagents.dream import encoded_action
from mpagents.torch_env import TorchEnv

FIT = {"warm_up": 20, "log_every": 100, "validation_size": 200}
AGENT: dict[str, Any] = {"num_envs": 64, "compile": False, "device": "cpu", "log_every": 20_000}
HOLD = 0.5  # probability that random play repeats its action, so that it gets further
Play: TypeAlias = Callable[[Tensor, Tensor, torch.Generator], Tensor]  # (frames, last actions [n], randomness) → actions [n]


@dataclass(frozen=True)
class Task:
    """A world, how much of it is seen, and what is trained on that."""

    env: Callable[[], TorchEnv]
    num_steps: int  # longest episode that is judged
    random_steps: int  # and of random play, of which so many episodes are recorded:
    episodes: int
    length: int  # of the sequences that the world model is trained on
    kind: str  # of world model
    model: dict[str, Any]  # its configuration, beyond shape and actions
    fit: dict[str, Any]
    agent: str
    settings: dict[str, Any]  # of the agent, beyond AGENT
    dream_steps: int  # for the policy
    horizon: int  # of a dream
    temperature: float = 1.0  # of dreams
    beginnings: float = 0.0  # share of dreams that begin as an episode does; the others in any recorded state
    codes: dict[str, Any] | None = None  # of a VAE through whose code the agent sees frames; None: it sees the model's state
    succeeded: Callable[[Tensor], Tensor] = lambda returns: returns > 0


TASKS = {
    "catch": Task(
        Catch,
        num_steps=16,
        random_steps=16,
        episodes=10_000,
        length=9,
        kind="world_model",
        model={"hidden": (256,), "unseen": 0.5, "reward_scale": 0.03},
        fit={"steps": 9_000, "batch_size": 24, "learning_rate": 2e-3, "max_grad_norm": 1e5},
        agent="actor_critic",
        settings={"rollout_steps": 16, "epochs": 6},
        dream_steps=150_000,
        horizon=16,
        temperature=0.0,
    ),
    "grid": Task(
        lambda: PixelGrid(size=20, cells=5, channels=1, max_episode_steps=None),
        num_steps=60,
        random_steps=240,  # than in 60 steps, the goal is found in 1.9 times as many of them
        episodes=3_000,
        length=3,
        kind="diffusion_world_model",
        model={"past": 1, "channels": (16, 32, 32), "seen": (16, 32), "denoising": 2, "reward_scale": 0.02},
        fit={"steps": 10_000, "batch_size": 24, "learning_rate": 2e-3, "autocast": True},
        agent="dqn",
        settings={
            "train_every": 4,
            "n_step": 3,
            "discount": 0.95,  # at 0.99 the 0.02 that a dream may pay for each step beside the goal is worth more than the goal
            "replay_size": 100_000,
            "learning_starts": 2_000,
            "hidden_sizes": (128, 128),
            "learning_rate": {"start": 1e-3, "end": 0.0},
            "epsilon": {"start": 1.0, "end": 0.05, "fraction": 0.5},
        },
        dream_steps=120_000,
        horizon=30,
        beginnings=0.5,
        codes={"latent": 64, "hidden": (), "scale": 0.1},
    ),
}


def recorded(task: Task, seed: int, episodes: int, num_steps: int, play: Play) -> dict[str, Tensor]:
    """Whole episodes [N, T + 1, …] as world models take them: a row is what an action led to."""
    env, n = task.env(), episodes
    generator = torch.Generator().manual_seed(seed)
    num = env.action.num or 0
    state = env.reset(torch.rand(n, *env.noise_shape, generator=generator))
    action = torch.randint(num, (n,), generator=generator)
    running, no = torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    begun = {"x": env.observe(state), "action": action, "reward": torch.zeros(n), "terminated": no}
    rows = [{**begun, "first": running, "mask": running}]
    for _ in range(num_steps):
        action = play(rows[-1]["x"], action, generator)
        state, reward, ended = env.step(state, action, torch.rand(n, *env.noise_shape, generator=generator))
        seen = {"x": env.observe(state), "action": action, "reward": reward, "terminated": ended}
        rows.append({**seen, "first": no, "mask": running})
        running = running & ~ended
    found = {key: torch.stack([row[key] for row in rows], 1) for key in rows[0]}
    return {**found, "action": encoded_action(found["action"], num)}


def steps_in(rows: dict[str, Tensor]) -> int:
    return int(rows["mask"].sum() - rows["first"].sum())


def at_random(num: int | None) -> Play:
    def play(frames: Tensor, last: Tensor, generator: torch.Generator) -> Tensor:
        held = torch.rand(len(last), generator=generator) < HOLD
        return torch.where(held, last, torch.randint(num or 0, (len(last),), generator=generator))

    return play


def windows_of(task: Task, rows: dict[str, Tensor]) -> Windows:
    """Sequences of recorded episodes, which run on into the next: so last steps are seen as often as others."""
    columns = {key: value[rows["mask"]].numpy() for key, value in rows.items() if key != "mask"}
    whole = np.array([[0, len(columns["x"])]])
    return windows(columns, whole, Reading(length=task.length, crossing=True, actions="led"))
