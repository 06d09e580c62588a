"""Trials killed at random times and continued, of five pairs of an agent and an environment: to the bit as if never stopped."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fault_rows.outcome import Outcome, curves, results
from mpagents.results.checkpoint import load_latest
from mpagents.study import Study
from mpagents.trial import run_trial

FORK = multiprocessing.get_context("fork")  # a child has everything imported
SMALL = {"hidden_sizes": [32], "learning_starts": 100, "train_every": 4, "batch_size": 16}
PAIRS: tuple[tuple[dict[str, Any], str, int], ...] = (  # agent, environment, steps
    ({"name": "dqn", "prioritised": True, "n_step": 3, **SMALL}, "CartPole-v1", 3_000),
    ({"name": "dqn", "num_envs": 2, "replay_size": 400, **SMALL}, "envs:Catch-v0", 800),
    ({"name": "actor_critic", "recurrent": 16, "rollout_steps": 16}, "envs:Memory-v0", 3_000),
    ({"name": "reinforce", "baseline": "value", "hidden_sizes": [32]}, "Acrobot-v1", 4_000),
    ({"name": "q_learning", "double": True}, "Blackjack-v1", 20_000),
)


def resumes(times: int, folder: Path, rng: random.Random) -> Outcome:
    """`times` cuts over all pairs, each of a run of its own."""
    outcome = Outcome(0, faults=dict.fromkeys(("runs unequal", "runs that failed"), 0))
    for number, pair in enumerate(PAIRS):
        spec, place = trial_of(*pair), folder / f"pair-{number}"
        begun = time.monotonic()
        in_a_child(spec, place / "calm").join()
        seconds, calm = time.monotonic() - begun, left_by(spec, place / "calm")
        cuts = times // len(PAIRS) + (number < times % len(PAIRS))
        while cuts:
            root = place / f"cut-{cuts}"
            killed = in_a_child(spec, root)
            killed.join(rng.uniform(0, seconds))
            killed.kill()
            killed.join()
            if killed.exitcode == 0:  # it was faster than the first
                continue
            in_a_child(spec, root).join()
            found = left_by(spec, root)
            outcome.faults["runs that failed"] += found["status"] != "finished"
            outcome.faults["runs unequal"] += found != calm
            outcome.times += 1
            cuts -= 1
    return outcome


def trial_of(agent: dict[str, Any], env: str, steps: int) -> Any:
    keys = {"evaluation": {"every": steps // 2, "episodes": 3}, "checkpoint": {"every": steps // 10, "keep": 2}}
    values = {"name": "pair", "envs": [{"id": env, "label": "here"}], "agents": [agent], "seeds": [0], "steps": steps}
    (spec,) = Study.from_values(values | keys).trials().trials
    return spec


def in_a_child(spec: Any, root: Path) -> Any:
    """A process that runs or continues the trial."""
    child = FORK.Process(target=run_trial, args=(spec, root))
    child.start()
    return child


def left_by(spec: Any, root: Path) -> dict[str, Any]:
    """What a trial has left, but for what the clock decides: its rows, curves, and all that its last checkpoint holds."""
    path = root / spec.path
    (told,) = results(root).values()
    step, state = load_latest(path / "checkpoint") or (0, {})
    status = told["status"]["status"]
    held = {key: comparable(state.get(key)) for key in ("agent", "env")}
    return {"status": status, "rows": told["rows"], "curves": curves(path), "step": step, **held}


def comparable(value: Any) -> Any:
    """Nested states as what `==` compares, arrays by their bytes."""
    if isinstance(value, dict):
        return {key: comparable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [comparable(part) for part in value]
    if hasattr(value, "numpy") or isinstance(value, np.ndarray):
        array = np.asarray(value)
        return array.dtype.str, array.shape, array.tobytes()
    return value
