"""World models: their speed, and what policies learned in them are worth in the true environment.

    python benchmarks/world_models.py [--only speed|lake|linear_quadratic|temperature]

prints the tables of docs/world-models.md. (CartPole's is a study: `mpagents run runs/cartpole-imagination.yaml`.) One thread.
`temperature` also draws docs/images/dream-temperature.png.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # before this folder, whose generative.py would be taken

import numpy as np
import scipy.linalg
import torch

import generative
from envs.classic import linear_quadratic as lq
from mpagents.dream import Dream
from mpagents.environments import EnvironmentSpec, make_vector, spaces_of
from mpagents.evaluation import evaluate, policy_table
from mpagents.python_api import make_agent
from mpagents.tabular.planning import value_iteration
from mpagents.tabular.policy_evaluation import evaluate_policy
from mpagents.torch_env import ArraySpec

DREAMS, STEPS = 256, 200
TARGETS = {"per_step": 150_000, "own": 350_000}  # imagined steps/s
FIGURE = Path(__file__).parent.parent / "docs/images/dream-temperature.png"


def table(*rows: tuple[Any, ...]) -> None:
    """Print a Markdown table; the first row is its head."""
    for i, row in enumerate(rows):
        print("| " + " | ".join(map(str, row)) + " |")
        if i == 0:
            print("|---" * len(row) + "|")


def imagined_steps(members: str) -> float:
    """Steps/s of processor time, the best of ten runs, of 256 dreams of CartPole's size, eager."""
    torch.manual_seed(0)
    model = generative.build("ensemble_dynamics", in_features=4, action_size=2, members=members).requires_grad_(False).eval()
    dream = Dream(model, (0.05 * torch.randn(1_000, 4),), ArraySpec(num=2), horizon=50, observes="features")
    generator = torch.Generator().manual_seed(0)
    action, best = torch.randint(2, (DREAMS,), generator=generator), 0.0
    for _ in range(10):
        state = dream.reset(torch.rand(DREAMS, *dream.noise_shape, generator=generator))
        begun = time.process_time()
        for _ in range(STEPS):
            state, _, _ = dream.step(state, action, torch.rand(DREAMS, *dream.noise_shape, generator=generator))
        best = max(best, DREAMS * STEPS / (time.process_time() - begun))
    return best


def speed() -> None:
    rows = [(members, f"{imagined_steps(members):,.0f}", f"≥ {target:,}") for members, target in TARGETS.items()]
    table(("Members", "Imagined steps/s", "Target"), *rows)


def trained(env_id: str, steps: int, seed: int, **settings: Any) -> tuple[Any, Any, float]:
    """(agent, environment's specification, seconds of processor time)."""
    spec = EnvironmentSpec(env_id, label="env")
    agent, begun = make_agent("imagination", env := make_vector(spec, 1), seed=seed, **settings), time.process_time()
    for _ in agent.train(env, steps):
        pass
    return agent, spec, time.process_time() - begun


def lake(seeds: int = 5) -> None:
    """The learned policy's exact value in the true MDP, beside the optimum."""
    mdp = spaces_of(make_vector(EnvironmentSpec("FrozenLake-v1"), 1).envs[0]).mdp  # type: ignore[attr-defined]
    assert mdp is not None
    optimum = float(value_iteration(mdp, epsilon=1e-9).values @ mdp.initial)
    rows = []
    for seed in range(seeds):
        settings = {"collect_steps": 500, "horizon": 100, "inner_settings": {"entropy_coefficient": 0.02}}
        agent, _, seconds = trained("FrozenLake-v1", 5_000, seed, **settings)
        value = float(evaluate_policy(mdp, policy_table(agent, mdp)) @ mdp.initial)
        rows.append((seed, f"{value:.4f}", f"{value / optimum:.1%}", f"{seconds:.0f}"))
    table(("Seed", f"Value (optimum {optimum:.4f})", "Share", "Seconds"), *rows)


def riccati(discount: float) -> np.ndarray:
    """K [2, 4] of the optimal policy u = −K x of the linear-quadratic system."""
    a, b, q, r = (matrix.double().numpy() for matrix in (lq.A, lq.B, lq.Q, lq.R))
    cost = scipy.linalg.solve_discrete_are(discount**0.5 * a, discount**0.5 * b, q, r)
    return np.linalg.solve(r + discount * b.T @ cost @ b, discount * b.T @ cost @ a)


def discounted_cost(policy: Callable[[np.ndarray], np.ndarray], discount: float = 0.99, n: int = 1_000) -> float:
    """Mean over n episodes of 100 steps of the true system, the same starts and winds for every policy."""
    env = lq.vector(n)
    obs, _ = env.reset(seed=9)
    total = np.zeros(n)
    for t in range(100):
        obs, reward, _, _, _ = env.step(policy(obs))
        total -= discount**t * reward
    return float(total.mean())


def linear_quadratic(seeds: int = 3) -> None:
    """The cost of the learned mean policy, beside that of the Riccati policy within the same bounds."""
    gain = riccati(0.99)
    optimum = discounted_cost(lambda x: np.clip(-x @ gain.T, -1, 1).astype(np.float32))
    rows = [("Riccati", f"{optimum:.3f}", "1", ""), ("nothing", f"{discounted_cost(lambda x: 0 * x[:, :2]):.3f}", "", "")]
    settings = {"initial_log_std": -0.5, "normalise_rewards": False, "learning_rate": {"start": 1e-3, "end": 0.0}}
    for seed in range(seeds):
        agent, _, seconds = trained("envs:LinearQuadratic-v0", 3_000, seed, inner_settings=settings)
        cost = discounted_cost(lambda x, agent=agent: agent.predict(x, deterministic=True)[0])
        rows.append((f"imagination, seed {seed}", f"{cost:.3f}", f"{cost / optimum:.3f}", f"{seconds:.0f}"))
    table(("Policy", "Discounted cost", "Ratio", "Seconds"), *rows)


def temperature(seeds: int = 3) -> None:
    """CartPole's real return after 1,500 real steps, by the temperature of the dreams it was learned in."""
    temperatures, returns = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0), []
    for value in temperatures:
        scores = []
        for seed in range(seeds):
            agent, spec, _ = trained("CartPole-v1", 1_500, seed, temperature=value)
            spaces = spaces_of(make_vector(spec, 1).envs[0])  # type: ignore[attr-defined]
            scores.append(evaluate(agent, spec, spaces, episodes=50, seed=7)["mean_reward"])
        returns.append(scores)
    rows = [(t, f"{np.mean(s):.0f}", ", ".join(f"{score:.0f}" for score in s)) for t, s in zip(temperatures, returns)]
    table(("Temperature", "Mean return", "Seeds"), *rows)
    draw(temperatures, returns)


def draw(temperatures: tuple[float, ...], returns: list[list[float]]) -> None:
    """The sweep as a figure: a point for each seed, a line through the means."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    places = np.arange(len(temperatures))
    axes.plot(places, np.mean(returns, 1), color="#0072B2")
    axes.scatter(np.repeat(places, len(returns[0])), np.ravel(returns), color="#0072B2", alpha=0.6)
    axes.set_xticks(places, [f"{value:g}" for value in temperatures])
    axes.set(xlabel="temperature of the dreams", ylabel="real return", ylim=(0, 520))
    axes.set_title("CartPole-v1 after 1,500 real steps in imagination", fontsize=10)
    figure.savefig(FIGURE, dpi=120)


PARTS = {"speed": speed, "lake": lake, "linear_quadratic": linear_quadratic, "temperature": temperature}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=PARTS, help="one part")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, part in PARTS.items():
        if options.only in (None, name):
            print(f"\n{name}")
            part()


if __name__ == "__main__":
    main()
