"""Environments that do what they shouldn't."""

from __future__ import annotations

import json
import random
from pathlib import Path

from benchmarks.fault_rows.outcome import QUICK, Outcome, run, write_study

BREAKING = '''
"""Environments that do what they shouldn't at step 7."""
import hashlib
import time

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Base(gymnasium.Env):
    observation_space, action_space = Discrete(3), Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.seen(), {}

    def seen(self):
        return 0

    def wrong(self):
        return self.seen(), 0.0

    def step(self, action):
        self.steps += 1
        seen, reward = self.wrong() if self.steps == 7 else (self.seen(), 0.0)
        return seen, reward, False, self.steps % 5 == 0, {}


class Raises(Base):
    def wrong(self):
        raise OSError("the simulator is gone")


class Hangs(Base):
    def wrong(self):
        time.sleep(1_000)


class HangsCompiled(Base):
    def wrong(self):
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)


class NanReward(Base):
    def wrong(self):
        return 0, float("nan")


class WrongReward(Base):
    def wrong(self):
        return 0, "much"


class WrongState(Base):
    def wrong(self):
        return 3, 0.0


class WrongType(Base):
    def wrong(self):
        return "here", 0.0


class Vector(Base):
    observation_space = Box(-1, 1, (3,))

    def seen(self):
        return np.zeros(3, np.float32)


class NanObservation(Vector):
    def wrong(self):
        return np.array([0, np.nan, 0], np.float32), 0.0


class WrongShape(Vector):
    def wrong(self):
        return np.zeros(2, np.float32), 0.0
'''
STATES = ("Raises", "Hangs", "HangsCompiled", "NanReward", "WrongReward", "WrongState", "WrongType")
VECTORS = ("NanObservation", "WrongShape")


def environments(times: int, folder: Path, rng: random.Random) -> Outcome:
    """Environments that raise, hang, or return NaN, wrong shapes and wrong types, beside one that is sound."""
    del rng
    outcome = Outcome(0, faults={"of others failed": 0, "not failed": 0, "without name and step": 0})
    kinds = [("q_learning", name) for name in STATES] + [("dqn", name) for name in VECTORS]
    for number in range(times):
        agent, name = kinds[number % len(kinds)]
        place = folder / f"{number}"
        envs = [{"id": f"breaking:{name}", "label": name}]
        envs += ["FrozenLake-v1"] if agent == "q_learning" else ["CartPole-v1"]
        agents = [agent if agent == "q_learning" else {"name": agent, "hidden_sizes": [8]}]
        study = QUICK | {"envs": envs, "agents": agents, "steps": 100, "step_timeout": 2.0}
        write_study(place, study | {"evaluation": {"every": 50, "episodes": 2}})
        (place / "breaking.py").write_text(BREAKING)
        done = run(place, "run", "study.yaml", "--workers", "1", "--json")
        statuses = {path.parts[-4]: json.loads(path.read_text()) for path in place.glob("runs/quick/*/*/*/status.json")}
        message = (statuses[name]["error"] or {}).get("message", "")
        outcome.faults["not failed"] += statuses[name]["status"] != "failed" or done.returncode != 1
        outcome.faults["without name and step"] += f"breaking:{name}" not in message or "step 7" not in message
        outcome.faults["of others failed"] += sum(
            status["status"] != "finished" for label, status in statuses.items() if label != name
        )
        outcome.times += 1
    return outcome
