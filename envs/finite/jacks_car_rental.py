"""Jack's car rental (Sutton & Barto 2018, Example 4.2): two lots, Poisson customers, cars moved overnight.

State n₁·(max_cars + 1) + n₂: cars at the two lots in the evening. Action a moves a − max_moves cars from the first lot to the
second (negative: back), clipped to the cars there are, so every action is legal and pays for the cars really moved; cars beyond
max_cars disappear, as in the book. The next day's requests are served from the stock after the move; returned cars are for rent
the day after:

    n′ = min(n − min(requests, n) + returns, max_cars)   for each lot, requests ~ Poisson(λ), returns ~ Poisson(μ).

The Poisson sums are exact (tails included, not cut at 10 as in many programs). The reward is the expected one of (s, a), so it
has no noise given the state and the move: all values are the same, single days are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from envs.finite.checks import check_count, check_number
from envs.finite.environment import FiniteEnv
from mpagents.tabular.mdp import FiniteMDP

Pair = tuple[float, float]


def jacks_car_rental(
    *,
    max_cars: int = 20,
    max_moves: int = 5,
    requests: Sequence[float] = (3.0, 4.0),
    returns: Sequence[float] = (3.0, 2.0),
    rental_reward: float = 10.0,
    move_cost: float = 2.0,
    render_mode: str | None = None,
) -> FiniteEnv:
    """Defaults are the book's: 441 states, 11 actions, $10 a rental, $2 a moved car; γ = 0.9; starts anywhere, never ends.

    The optimal policy is the last of Fig. 4.2 (5 cars to the second lot when the first is full and the second empty); its
    values range from 421.41 with no car at all to 636.99 with 20 at both lots.
    requests, returns: means (cars a day) at the first and the second lot. Raises ValueError for numbers that can't be.

    The table has 2.1 million entries (all pairs of stocks follow each other): `env.mdp` is built once a process; `env.P`, in
    Python objects, is best left alone unless `max_cars` is small.
    """
    check_count("max_cars", max_cars, 1)
    check_count("max_moves", max_moves, 1)
    check_number("rental_reward", rental_reward)
    check_number("move_cost", move_cost)
    mdp = _mdp(
        int(max_cars), int(max_moves), _means("requests", requests), _means("returns", returns), rental_reward, move_cost
    )
    names = [f"{a:+d}" for a in range(-max_moves, max_moves + 1)]
    grid = ["." * (max_cars + 1)] * (max_cars + 1)
    return FiniteEnv(mdp, grid=grid, action_names=names, render_mode=render_mode)


def poisson_up_to(mean: float, most: int) -> np.ndarray:
    """P(min(X, most) = k) for k = 0 … most, X ~ Poisson(mean): the tail is on the last entry; float64 [most + 1]."""
    k = np.arange(most)
    log_factorial = np.array([math.lgamma(n + 1.0) for n in k])
    below = np.exp(k * math.log(mean) - mean - log_factorial) if mean > 0 else (k == 0).astype(np.float64)
    return np.append(below, max(0.0, 1.0 - below.sum()))


def lot_day(max_cars: int, request_mean: float, return_mean: float) -> tuple[np.ndarray, np.ndarray]:
    """One lot's day by its stock in the morning: P(stock in the evening) [n, n], and the expected rentals [n]."""
    evening, rentals = np.zeros((max_cars + 1, max_cars + 1)), np.zeros(max_cars + 1)
    for stock in range(max_cars + 1):
        rented = poisson_up_to(request_mean, stock)
        rentals[stock] = rented @ np.arange(stock + 1)
        for left, probability in enumerate(rented[::-1]):
            evening[stock, left:] += probability * poisson_up_to(return_mean, max_cars - left)
    return evening, rentals


def _means(name: str, means: Sequence[float]) -> Pair:
    if len(means) != 2:
        raise ValueError(f"{name} is {means!r}; expected two numbers, one for each lot")
    for mean in means:
        check_number(name, mean, least=0.0)
    return float(means[0]), float(means[1])


@lru_cache(maxsize=2)  # 60 MB by default: copies of the environment share one
def _mdp(max_cars: int, max_moves: int, requests: Pair, returns: Pair, rental_reward: float, move_cost: float) -> FiniteMDP:
    evening_1, rentals_1 = lot_day(max_cars, requests[0], returns[0])
    evening_2, rentals_2 = lot_day(max_cars, requests[1], returns[1])
    n_1, n_2, wanted = np.ogrid[: max_cars + 1, : max_cars + 1, -max_moves : max_moves + 1]
    moved = np.clip(wanted, -n_2, n_1)  # [n, n, A]
    morning_1, morning_2 = np.minimum(n_1 - moved, max_cars), np.minimum(n_2 + moved, max_cars)
    reward = rental_reward * (rentals_1[morning_1] + rentals_2[morning_2]) - move_cost * np.abs(moved)
    probability = evening_1[morning_1][..., :, None] * evening_2[morning_2][..., None, :]  # [n, n, A, n′, n′]
    num_states, num_pairs = (max_cars + 1) ** 2, moved.size
    return FiniteMDP.from_transitions(
        num_states,
        moved.shape[2],
        np.arange(num_pairs + 1) * num_states,
        np.tile(np.arange(num_states), num_pairs),
        probability.ravel(),
        np.repeat(reward.ravel(), num_states),
        np.zeros(num_pairs * num_states, np.bool_),
        initial=np.full(num_states, 1.0 / num_states),
        discount=0.9,
        merge=False,
    )
