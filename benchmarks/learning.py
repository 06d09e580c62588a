"""What the deep agents reach: `python benchmarks/learning.py [--results runs]` prints the table of docs/deep.md.

It reads what `mpagents run runs/<study>.yaml` has written: final greedy policies, 100 episodes a seed, on seeds of their own.
`--run` runs the studies first (hours on two cores; interrupted ones continue).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from mpagents.results.statistics import bootstrap_interval, interquartile_mean

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
}


def rows(results: Path) -> list[str]:
    """Lines of a Markdown table."""
    found = []
    for study, (rule, target, seeds) in TARGETS.items():
        for folder in sorted((results / study).glob("*/*")):
            statuses = [json.loads(path.read_text()) for path in sorted(folder.glob("seed=*/status.json"))]
            finished = [status for status in statuses if status["status"] == "finished"]
            if not finished:
                continue
            scores = np.array([status["final"]["mean_reward"] for status in finished])
            low, high = bootstrap_interval(scores)
            mean, reached, n = interquartile_mean(scores), int((scores >= target).sum()), len(scores)
            met = "yes" if (reached >= seeds if seeds else mean >= target) else "no"
            met = "" if folder.name.startswith("sb3") or folder.name == "feed-forward" else met
            steps, seconds = finished[0]["steps"], np.median([status["seconds"] for status in finished])
            cells = [study, folder.name, f"{steps:,}", f"{mean:.1f} [{low:.1f}, {high:.1f}]", f"{scores.min():.1f}"]
            found.append("| " + " | ".join([*cells, f"{reached}/{n}", f"{seconds:.0f}", rule if met else "", met]) + " |")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--results", type=Path, default=Path("runs"), help="where the studies' folders are")
    parser.add_argument("--run", action="store_true", help="run the studies first")
    options = parser.parse_args()
    for study in TARGETS if options.run else ():
        subprocess.run([sys.executable, "-m", "mpagents", "run", f"runs/{study}.yaml", "--out", options.results], check=True)
    names = "Study", "Agent", "Steps", "Interquartile mean [95 %]", "Worst seed", "At the target", "Seconds", "Target", "Met"
    print("| " + " | ".join(names) + " |")
    print("|---" * len(names) + "|")
    print("\n".join(rows(options.results)))


if __name__ == "__main__":
    main()
