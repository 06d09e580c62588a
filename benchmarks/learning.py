"""What the deep agents reach: `python benchmarks/learning.py [--results runs]` prints the table of docs/deep.md.

It reads what `mpagents run runs/<study>.yaml` has written: final greedy policies, 100 episodes a seed, on seeds of their own.
`--run` runs the studies first (hours on two cores; interrupted ones continue). `--keep` adds the seeds that are there to
benchmarks/learning.json, so that the long ones can be run a few at a time; the table is of both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mpagents.results.statistics import bootstrap_interval, interquartile_mean

KEPT = Path(__file__).with_suffix(".json")
Scores = dict[str, dict[str, dict[str, dict[str, float]]]]  # by study, agent and seed: return, steps, seconds
TARGETS: dict[str, tuple[str, float, int]] = {  # study: (rule, return, seeds that must reach it; 0: the interquartile mean)
    "cartpole-dqn": ("≥ 475 on 10 of 10", 475, 10),
    "cartpole-actor-critic": ("≥ 475 on 10 of 10", 475, 10),
    "cartpole-reinforce": ("≥ 475 on 10 of 10", 475, 10),
    "acrobot-dqn": ("≥ −100 on 10 of 10", -100, 10),
    "acrobot-actor-critic": ("≥ −100 on 10 of 10", -100, 10),
    "lunarlander-dqn": ("interquartile mean ≥ 200", 200, 0),
    "lunarlander-actor-critic": ("interquartile mean ≥ 150", 150, 0),
    "mountaincar-dqn": ("≥ −110 on 9 of 10", -110, 9),
    "pendulum-actor-critic": ("interquartile mean ≥ −300", -300, 0),
    "memory": ("LSTM 1 on 10 of 10", 1, 10),
    "pong-dqn": ("runs; too few steps to solve it", -21, 1),
}


def found_in(results: Path) -> Scores:
    """Of the finished trials of the studies."""
    scores: Scores = {}
    for path in sorted(path for study in TARGETS for path in (results / study).glob("*/*/seed=*/status.json")):
        status, (study, _, agent, seed) = json.loads(path.read_text()), path.relative_to(results).parts[:4]
        if status["status"] == "finished":
            told = {"return": status["final"]["mean_reward"], "steps": status["steps"], "seconds": round(status["seconds"], 1)}
            scores.setdefault(study, {}).setdefault(agent, {})[seed.removeprefix("seed=")] = told
    return scores


def rows(scores: Scores) -> Iterator[str]:
    """Lines of a Markdown table."""
    trained = [(study, *pair) for study, agents in scores.items() for pair in sorted(agents.items())]
    for study, agent, seeds in sorted(trained, key=lambda of_seeds: list(TARGETS).index(of_seeds[0])):
        rule, target, asked = TARGETS[study]
        returns = np.array([told["return"] for told in seeds.values()])
        low, high = bootstrap_interval(returns)
        mean, reached, n = interquartile_mean(returns), int((returns >= target).sum()), len(returns)
        met = "yes" if (reached >= asked if asked else mean >= target) else "no"
        met = "" if agent.startswith("sb3") or agent == "feed-forward" else met
        steps, seconds = max(told["steps"] for told in seeds.values()), np.median([told["seconds"] for told in seeds.values()])
        interval = f" [{low:.1f}, {high:.1f}]" if n > 1 else ""
        cells = [study, agent, f"{steps:,}", f"{mean:.1f}{interval}", f"{returns.min():.1f}"]
        yield "| " + " | ".join([*cells, f"{reached}/{n}", f"{seconds:.0f}", rule if met else "", met]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--results", type=Path, default=Path("runs"), help="where the studies' folders are")
    parser.add_argument("--run", action="store_true", help="run the studies first")
    parser.add_argument("--keep", action="store_true", help=f"write every seed into {KEPT.name}")
    options = parser.parse_args()
    for study in TARGETS if options.run else ():
        subprocess.run([sys.executable, "-m", "mpagents", "run", f"runs/{study}.yaml", "--out", options.results], check=True)
    scores: Scores = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for study, agents in found_in(options.results).items():
        for agent, seeds in agents.items():
            scores.setdefault(study, {}).setdefault(agent, {}).update(seeds)
    if options.keep:
        KEPT.write_text(json.dumps(scores, indent=1, sort_keys=True) + "\n")
    names = "Study", "Agent", "Steps", "Interquartile mean [95 %]", "Worst seed", "At the target", "Seconds", "Target", "Met"
    print("| " + " | ".join(names) + " |")
    print("|---" * len(names) + "|")
    print("\n".join(rows(scores)))


if __name__ == "__main__":
    main()
