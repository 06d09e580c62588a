"""World models: their speed, and what policies learned in them are worth in the true environment.

    python benchmarks/world_models.py [--only speed|lake|linear_quadratic|dyna|temperature|beside]

prints the tables of docs/world-models.md. (CartPole's is a study: `mpagents run runs/cartpole-imagination.yaml`.) One thread.
`temperature` also draws docs/images/dream-temperature.png, and `beside` docs/images/dream-beside.png.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # before this folder, whose generative.py would be taken

import gymnasium
import numpy as np
import scipy.linalg
import torch
from PIL import Image

import generative
from envs.classic import linear_quadratic as lq
from mpagents.dream import Dream
from mpagents.environments import EnvironmentSpec, make_vector, spaces_of
from mpagents.evaluation import evaluate, policy_table
from mpagents.python_api import make_agent
from mpagents.recording import RecordingSpec, record
from mpagents.tabular.planning import value_iteration
from mpagents.tabular.policy_evaluation import evaluate_policy
from mpagents.torch_env import ArraySpec

DREAMS, STEPS = 256, 200
TARGETS = {"per_step": 150_000, "own": 350_000}  # imagined steps/s
IMAGES = Path(__file__).parent.parent / "docs/images"


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


def trained(env_id: str, steps: int, seed: int, name: str = "imagination", **settings: Any) -> tuple[Any, Any, float]:
    """(agent, environment's specification, seconds of processor time)."""
    spec = EnvironmentSpec(env_id, label="env")
    agent, begun = make_agent(name, env := make_vector(spec, 1), seed=seed, **settings), time.process_time()
    for _ in agent.train(env, steps):
        pass
    return agent, spec, time.process_time() - begun


def lake(seeds: int = 40) -> None:
    """Exact values in the true MDP, as shares of the optimum, of a planner on the counts and an actor-critic in dreams."""
    mdp = spaces_of(make_vector(EnvironmentSpec("FrozenLake-v1"), 1).envs[0]).mdp  # type: ignore[attr-defined]
    assert mdp is not None
    optimum = float(value_iteration(mdp, epsilon=1e-9).values @ mdp.initial)
    dreamt = {"inner": "actor_critic", "horizon": 100, "inner_settings": {"entropy_coefficient": 0.02}, "collect_steps": 500}
    rows = []
    for steps, settings, n in ((5_000, {}, seeds), (10_000, {}, seeds), (5_000, dreamt, 5)):
        shares, seconds = [], 0.0
        for seed in range(n):
            agent, _, spent = trained("FrozenLake-v1", steps, seed, **settings)  # type: ignore[arg-type]
            shares.append(float(evaluate_policy(mdp, policy_table(agent, mdp)) @ mdp.initial) / optimum)
            seconds += spent / n
        first = ", ".join(f"{share:.1%}" for share in shares[:5])
        met = f"{sum(share >= 0.95 for share in shares)} of {n}"
        rows.append((settings.get("inner", "value_iteration"), f"{steps:,}", first, met, f"{seconds:.1f}"))
    table(("Inside", "Real steps", f"Share of the optimum {optimum:.4f}, seeds 0 … 4", "≥ 95 %", "Seconds"), *rows)


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


def linear_quadratic(seeds: int = 5) -> None:
    """The cost of the learned mean policy, beside that of the Riccati policy within the same bounds."""
    gain = riccati(0.99)
    optimum = discounted_cost(lambda x: np.clip(-x @ gain.T, -1, 1).astype(np.float32))
    rows = [("Riccati", f"{optimum:.3f}", "1", ""), ("nothing", f"{discounted_cost(lambda x: 0 * x[:, :2]):.3f}", "", "")]
    settings: dict[str, Any] = {"activation": "silu", "initial_log_std": -0.5, "normalise_rewards": False}
    settings["learning_rate"] = {"start": 1e-3, "end": 0.0}
    for seed in range(seeds):
        agent, _, seconds = trained("envs:LinearQuadratic-v0", 3_000, seed, inner_settings=settings)
        cost = discounted_cost(lambda x, agent=agent: agent.predict(x, deterministic=True)[0])
        rows.append((f"imagination, seed {seed}", f"{cost:.3f}", f"{cost / optimum:.3f}", f"{seconds:.0f}"))
    table(("Policy", "Discounted cost", "Ratio", "Seconds"), *rows)


def cartpole(steps: int, seeds: int, **settings: Any) -> tuple[list[float], float]:
    """(greedy returns over 50 real episodes after so many real steps, mean seconds of a training)."""
    scores, seconds = [], 0.0
    for seed in range(seeds):
        agent, spec, spent = trained("CartPole-v1", steps, seed, **settings)
        spaces = spaces_of(make_vector(spec, 1).envs[0])  # type: ignore[attr-defined]
        scores.append(evaluate(agent, spec, spaces, episodes=50, seed=7)["mean_reward"])
        seconds += spent / seeds
    return scores, seconds


def dyna(steps: int = 1_000, seeds: int = 5) -> None:
    """DQN on real and imagined transitions, mixed and each alone, and DQN without a model, from the same real steps."""
    deep = {"target_every": 1_000, "batch_size": 64, "learning_starts": 500, "learning_rate": 1e-3, "train_every": 4}
    mixing = {"inner": "dqn", "inner_settings": deep, "dreams": 64, "horizon": 30, "rollouts": 2}
    rivals: dict[str, dict[str, Any]] = {"dqn": {"name": "dqn", "compile": False, "learning_starts": 100}}
    for share, label in ((0.0, "imagined alone"), (0.5, "half real, half imagined"), (1.0, "real alone, as many updates")):
        rivals[f"imagination, {label}"] = mixing | {"real_share": share}
    rows = []
    for label, settings in rivals.items():
        scores, seconds = cartpole(steps, seeds, **settings)
        rows.append((label, f"{np.mean(scores):.0f}", ", ".join(f"{score:.0f}" for score in scores), f"{seconds:.0f}"))
    table(("Agent", "Mean return", "Seeds", "Seconds"), *rows)


def temperature(seeds: int = 5) -> None:
    """CartPole's real return after 1,500 real steps, by the temperature of the dreams it was learned in."""
    temperatures = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 32.0, 128.0)
    returns = [cartpole(1_500, seeds, temperature=value)[0] for value in temperatures]
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
    figure.savefig(IMAGES / "dream-temperature.png", dpi=120)


def beside(steps: int = 3_000) -> None:
    """Episodes of rendered CartPole dreamt again under their own actions: docs/images/dream-beside.png."""
    with tempfile.TemporaryDirectory() as folder:
        files = {"recording": f"{folder}/frames", "path": f"{folder}/world.safetensors"}
        spec = RecordingSpec("envs:PixelCartPole-v0", steps=20_000, settings=("kwargs.stack=1",))
        record(spec, Path(files["recording"]), show="never")
        source = generative.source("recording", folder=files["recording"], length=12, crossing=True, actions="led")
        torch.manual_seed(0)
        shape = tuple(source.sample(1, torch.Generator())["x"].shape[2:])
        model = generative.build("world_model", shape=shape, action_size=2, hidden=(256,), unseen=0.5, reward_scale=0.03)
        for _ in generative.fit(model, source, steps=steps, batch_size=24, learning_rate=2e-3, max_grad_norm=1e5):
            pass
        generative.save(model, files["path"])
        mode = {"actions": "recorded", "seen": 4, "temperature": 0.0, "render_mode": "rgb_array"}
        env = gymnasium.make("envs:WorldModel-v0", **files, **mode)  # type: ignore[arg-type]
        Image.fromarray(np.concatenate([filmed(env, seed) for seed in range(4)])).save(IMAGES / "dream-beside.png")


def filmed(env: gymnasium.Env, seed: int, shown: int = 6, every: int = 3) -> np.ndarray:
    """What an episode renders after each `every` steps, side by side [H, shown · W, 3]; its end is left white."""
    env.reset(seed=seed)
    frames, ended = [env.render()], False
    blank = np.full_like(frames[0], 255)
    while len(frames) < shown:
        for _ in range(every):
            ended = ended or env.step(env.action_space.sample())[2]
        frames.append(blank if ended else env.render())
    return np.concatenate([np.pad(frame, ((2, 2), (2, 2), (0, 0)), constant_values=255) for frame in frames], axis=1)


PARTS: dict[str, Callable[[], None]] = {
    "speed": speed, "lake": lake, "linear_quadratic": linear_quadratic, "dyna": dyna, "temperature": temperature,
    "beside": beside,
}  # fmt: skip


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
