"""Planning side by side with QuantEcon (DiscreteDP, sparse) and mdpsolver: `python benchmarks/tabular.py [--quick]`.

Every section is a function that returns rows; times of a row are medians of runs taken in turn, without compilation.

How near the machine a sweep is. A full sweep over 100,000 states × 4 actions × 8 successors makes 3.2 million gathers from a
vector of 0.8 MB and reads 12 bytes a transition and 16 a row: 47 MB. On the two-core machine where this was written (EPYC,
32 MB L3, others at work) one core sums 47 MB in 2.8 ms and makes nothing but the gathers in 3.2 ms; our sweep takes 4.6 ms on
one thread, 1.4 times the gathers alone (QuantEcon: 6.8), and 2.7 on two where both are free. The rest of value iteration's
gain is work left out: once the span of changes is small, beaten actions are dropped for good, and a sweep takes 1.4 ms.
The section `limits` measures these again.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import scipy.sparse as sp
from rich.console import Console
from rich.table import Table

from mpagents.agents import agent_class
from mpagents.agents.agent import Spaces
from mpagents.tabular import threads
from mpagents.tabular.bellman import optimal_backup, optimal_backups, policy_backups
from mpagents.tabular.compiled import jit
from mpagents.tabular.mdp import FiniteMDP
from mpagents.tabular.planning import modified_policy_iteration, value_iteration

EPSILON, DISCOUNT = 1e-6, 0.99


class Row(NamedTuple):
    work: str
    ours: str
    peer: str
    ratio: float | None  # ours / peer (or / the limit)
    target: str
    met: bool | None


def random_mdp(num_states: int, num_actions: int, successors: int) -> FiniteMDP:
    rng = np.random.default_rng(0)
    next_state = rng.integers(num_states, size=(num_states, num_actions, successors), dtype=np.int32)
    probability = rng.random((num_states, num_actions, successors))
    probability /= probability.sum(axis=2, keepdims=True)
    return FiniteMDP.from_successors(next_state, probability, rng.random((num_states, num_actions)), discount=DISCOUNT)


def compile_kernels() -> None:
    small = random_mdp(10, 2, 2)
    value_iteration(small)
    modified_policy_iteration(small)


def in_turn(calls: list[Callable[[], Any]], repeats: int) -> list[tuple[float, Any]]:
    """Median seconds and last result of each call, run one after the other so that noise hits all alike."""
    seconds: list[list[float]] = [[] for _ in calls]
    results = [None] * len(calls)
    for _ in range(repeats):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            results[i] = call()
            seconds[i].append(time.perf_counter() - start)
    return [(statistics.median(times), result) for times, result in zip(seconds, results)]


def quantecon_model(mdp: FiniteMDP):
    from quantecon.markov import DiscreteDP  # type: ignore[import-untyped]

    num_states, num_actions = mdp.num_states, mdp.num_actions
    rows = num_states * num_actions
    matrix = sp.csr_matrix((mdp.probability, mdp.next_state, mdp.row_start), shape=(rows, num_states))
    states, actions = np.repeat(np.arange(num_states), num_actions), np.tile(np.arange(num_actions), num_states)
    model = DiscreteDP(mdp.expected_reward.ravel(), matrix, mdp.discount, states, actions)
    model.max_iter = 1_000_000
    model.bellman_operator(np.zeros(num_states))  # compiles its maximum
    return model


def mdpsolver_model(mdp: FiniteMDP):
    import mdpsolver  # type: ignore[import-untyped]

    def nested(entries):
        rows = [row.tolist() for row in np.split(entries, mdp.row_start[1:-1])]
        return [rows[s * mdp.num_actions : (s + 1) * mdp.num_actions] for s in range(mdp.num_states)]

    model = mdpsolver.model()
    model.mdp(
        discount=mdp.discount,
        rewards=mdp.expected_reward.tolist(),
        tranMatProbs=nested(mdp.probability),
        tranMatColumns=nested(mdp.next_state),
    )
    return model


@jit
def _gathers(successor, v):
    total = 0.0
    for k in range(successor.size):
        total += v[successor[k]]
    return total


def limits(quick: bool) -> list[Row]:
    """A sweep against its bytes and its gathers alone, on one thread and on all."""
    mdp = random_mdp(20_000 if quick else 100_000, 4, 8)
    full = optimal_backups(mdp)
    chain = policy_backups(mdp, np.zeros(mdp.num_states, np.int64))
    v, out = np.random.default_rng(0).random(mdp.num_states + 1), np.zeros(mdp.num_states + 1)
    actions = np.empty(mdp.num_states, np.int64)
    num_bytes = sum(array.nbytes for array in full) + v.nbytes + out.nbytes + actions.nbytes
    block = np.ones(num_bytes // 8)

    def sweep(backups):
        return lambda: threads.over_states(optimal_backup, backups, DISCOUNT, v, out, actions)

    def alone(backups):
        return lambda: optimal_backup(backups, DISCOUNT, v, out, actions, 0, mdp.num_states)

    _gathers(full.successor, v)
    calls = [block.sum, lambda: _gathers(full.successor, v), alone(full), sweep(full), alone(chain), sweep(chain)]
    read, gather, *ours = [seconds for seconds, _ in in_turn(calls, 30)]
    names = ["all actions, one thread", "all actions, threads", "one action, one thread", "one action, threads"]
    floor = f"gathers {gather * 1e3:.2f} ms, bytes {read * 1e3:.2f} ms ({num_bytes / read / 1e9:.0f} GB/s)"
    return [
        Row(f"sweep {mdp.num_states:,}×4×8, {name}", f"{t * 1e3:.2f} ms", floor if i == 0 else "", t / gather, "", None)
        for i, (name, t) in enumerate(zip(names, ours))
    ]


def against_peers(work, ours, quantecon, mdpsolver, target, repeats) -> list[Row]:
    (t, solution), (t_quantecon, theirs), (_, (t_mdpsolver, values)) = in_turn([ours, quantecon, mdpsolver], repeats)
    apart, apart_other = np.abs(solution.values - theirs.v).max(), np.abs(solution.values - values).max()
    met = bool(t / t_quantecon <= target and apart <= EPSILON)
    return [
        Row(
            f"{work} ({solution.sweeps} sweeps, apart {apart:.0e})",
            f"{t:.3f} s",
            f"{t_quantecon:.3f} s QuantEcon ({theirs.num_iter})",
            t / t_quantecon,
            f"≤ {target}, values within {EPSILON:.0e}",
            met,
        ),
        Row(f"{work} (apart {apart_other:.0e})", f"{t:.3f} s", f"{t_mdpsolver:.3f} s mdpsolver", t / t_mdpsolver, "", None),
    ]


def planners(quick: bool) -> list[Row]:
    """Value iteration and modified policy iteration on a random process, against both peers.

    mdpsolver starts where its last solution ended unless told otherwise. Its value iteration stops by the span of changes;
    QuantEcon's and ours go on until the values themselves have settled (ours by span: modified policy iteration). Its time is
    its own `getRuntime`, without the conversion of lists, on one thread, which was its faster setting here.
    """
    mdp = random_mdp(20_000 if quick else 100_000, 4, 8)
    size = f"{mdp.num_states:,}×4×8, γ .99, ε 1e-6"
    quantecon, mdpsolver = quantecon_model(mdp), mdpsolver_model(mdp)
    policy, values = [0] * mdp.num_states, [0.0] * mdp.num_states

    def other(algorithm):
        def call():
            mdpsolver.solve(algorithm=algorithm, tolerance=EPSILON, initPolicy=policy, initValueVector=values, parallel=False)
            return mdpsolver.getRuntime() / 1e3, np.array(mdpsolver.getValueVector())

        return call

    swept = against_peers(
        f"value iteration {size}",
        lambda: value_iteration(mdp, epsilon=EPSILON),
        lambda: quantecon.solve("vi", epsilon=EPSILON),
        other("vi"),
        0.25,
        1,
    )
    modified = against_peers(
        f"modified policy iteration {size}",
        lambda: modified_policy_iteration(mdp, epsilon=EPSILON),
        lambda: quantecon.solve("mpi", epsilon=EPSILON),
        other("mpi"),
        0.5,
        7,
    )
    return swept + modified


def solve_large(num_states: int) -> dict[str, float]:
    """Build and solve a large process in this process, and say what it took."""
    compile_kernels()
    start = time.perf_counter()
    mdp = random_mdp(num_states, 4, 4)
    built = time.perf_counter()
    solution = modified_policy_iteration(mdp, epsilon=EPSILON)
    solved = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"build": built - start, "solve": solved - built, "bound": solution.bound, "peak": peak}


def large(quick: bool) -> list[Row]:
    """A million states in a process of its own, for its peak memory."""
    num_states = 100_000 if quick else 1_000_000
    command = [sys.executable, __file__, "--solve-large", str(num_states)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    work, seconds = f"{num_states:,}×4×4 built and solved", told["build"] + told["solve"]
    parts = f"build {told['build']:.1f} s, modified policy iteration {told['solve']:.1f} s"
    return [
        Row(work, f"{seconds:.1f} s ({parts})", "", None, "< 15 s", seconds < 15),
        Row(f"{work}: bound on the error", f"{told['bound']:.1e}", "", None, "≤ 5e-7", told["bound"] <= 5e-7),
        Row(f"{work}: peak memory", f"{told['peak']:.2f} GiB", "", None, "< 2 GiB", told["peak"] < 2),
    ]


def plain_q_learning(env, num_steps: int, alpha: float, epsilon: float) -> None:
    """The loop that tutorials teach: ε-greedy Q-learning over Gymnasium in plain Python and NumPy."""
    rng = np.random.default_rng(0)
    q = np.zeros((env.observation_space.n, env.action_space.n))
    s, _ = env.reset(seed=0)
    for _ in range(num_steps):
        a = int(rng.integers(q.shape[1])) if rng.random() < epsilon else int(np.argmax(q[s]))
        next_s, reward, terminated, truncated, _ = env.step(a)
        target = reward + (0.0 if terminated else DISCOUNT * np.max(q[next_s]))
        q[s, a] += alpha * (target - q[s, a])
        s = env.reset()[0] if terminated or truncated else next_s


def plain_sarsa(env, num_steps: int, alpha: float, epsilon: float) -> None:
    """The same for SARSA."""
    rng = np.random.default_rng(0)
    q = np.zeros((env.observation_space.n, env.action_space.n))

    def choose(s):
        return int(rng.integers(q.shape[1])) if rng.random() < epsilon else int(np.argmax(q[s]))

    s, _ = env.reset(seed=0)
    a = choose(s)
    for _ in range(num_steps):
        next_s, reward, terminated, truncated, _ = env.step(a)
        next_a = choose(next_s)
        target = reward + (0.0 if terminated else DISCOUNT * q[next_s, next_a])
        q[s, a] += alpha * (target - q[s, a])
        if terminated or truncated:
            next_s = env.reset()[0]
            next_a = choose(next_s)
        s, a = next_s, next_a


def learners(quick: bool) -> list[Row]:
    """Environment steps a second of agents with their default configuration on Taxi, against a plain loop over Gymnasium."""
    env = gym.make("Taxi-v4")
    mdp = FiniteMDP.from_gymnasium(env, DISCOUNT)
    spaces = Spaces(env.observation_space, env.action_space, DISCOUNT, mdp, env.spec.max_episode_steps if env.spec else None)
    steps, plain_steps = (2_000_000, 10_000) if quick else (10_000_000, 50_000)

    def train(agent_type, config, num_steps):
        for _ in agent_type(config, spaces, seed=0).train(None, num_steps):
            pass

    rows = []
    for name, plain in (("q_learning", plain_q_learning), ("sarsa", plain_sarsa)):
        agent_type = agent_class(name)
        config = agent_type.Config()
        train(agent_type, config, 1)  # compiles
        calls = [partial(train, agent_type, config, steps), partial(plain, env, plain_steps, config.alpha, config.epsilon)]
        (t, _), (t_plain, _) = in_turn(calls, 3)
        ours, theirs = steps / t, plain_steps / t_plain
        rows.append(
            Row(
                f"{name} on Taxi-v4",
                f"{ours / 1e6:.1f} M steps/s",
                f"{theirs:,.0f} steps/s plain Python, {ours / theirs:.0f}× slower",
                None,
                "≥ 10 M steps/s, ≥ 100×",
                ours >= 1e7 and ours >= 100 * theirs,
            )
        )
    return rows


SECTIONS: list[Callable[[bool], list[Row]]] = [limits, planners, large, learners]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, about 10 s")
    parser.add_argument("--solve-large", type=int, metavar="STATES", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.solve_large:
        print(json.dumps(solve_large(options.solve_large)))
        return
    start = time.perf_counter()
    compile_kernels()
    table = Table("work", "ours", "peer or limit", "ratio", "target", "met", title="Tabular planning and learning")
    for section in SECTIONS:
        for row in section(options.quick):
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
            met = {None: "", True: "yes", False: "NO"}[row.met]
            table.add_row(row.work, row.ours, row.peer, ratio, row.target, met)
    console = Console(width=200)
    console.print(table)
    console.print(f"{time.perf_counter() - start:.0f} s in all; kernels compiled or loaded before")


if __name__ == "__main__":
    main()
