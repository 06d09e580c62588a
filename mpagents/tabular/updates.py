"""Update rules of tabular learning, each equal to one equation (Sutton and Barto 2018, chapters 5–7; notes §10.1–10.2).

A learner moves a value towards a target by a step size, `q[s, a] += step_size(…) * error`. Nothing is worth anything after
termination: only `terminated` zeroes what is bootstrapped on, never truncation.

Deviation: the notes write the update as αQ + (1 − α)(…) in one place and Q + αδ in another; here α weighs the new.
"""

from __future__ import annotations

from typing import NamedTuple

from mpagents.schedules import ScheduleNumbers, numbers
from mpagents.tabular.compiled import kernel
from mpagents.tabular.exploration import epsilon_greedy_value, greedy_action, largest_value


class Rates(NamedTuple):
    discount: float
    alpha: float
    alpha_decay: float
    epsilon: ScheduleNumbers


def rates_of(config, discount: float, num_steps: int) -> Rates:
    """What a configuration with `alpha`, `alpha_decay` and `epsilon` says of a training of `num_steps` environment steps."""
    return Rates(float(discount), float(config.alpha), float(config.alpha_decay), numbers(config.epsilon, num_steps))


@kernel
def step_size(rates, visits):
    """α / n^decay for the n-th visit: constant at decay 0, the sample average at α = decay = 1."""
    return rates.alpha if rates.alpha_decay == 0.0 else rates.alpha / visits**rates.alpha_decay


@kernel
def td_error(v, s, reward, next_s, terminated, discount):
    """r + γ V(s′) − V(s)."""
    bootstrap = 0.0 if terminated else v[next_s]
    return reward + discount * bootstrap - v[s]


@kernel
def q_learning_error(q, s, a, reward, next_s, terminated, discount):
    """r + γ max_a′ Q(s′, a′) − Q(s, a)."""
    bootstrap = 0.0 if terminated else largest_value(q, next_s)
    return reward + discount * bootstrap - q[s, a]


@kernel
def double_q_error(q, other, s, a, reward, next_s, terminated, discount, rng):
    """r + γ Q_other(s′, argmax_a′ Q(s′, a′)) − Q(s, a)."""
    bootstrap = 0.0 if terminated else other[next_s, greedy_action(q, next_s, rng)]
    return reward + discount * bootstrap - q[s, a]


@kernel
def next_value(q, next_s, next_a, terminated, expected, epsilon):
    """What SARSA bootstraps on: Q(s′, a′), or Expected SARSA: Σ_a π(a | s′) Q(s′, a) under the ε-greedy π."""
    if terminated:
        return 0.0
    return epsilon_greedy_value(q, next_s, epsilon) if expected else q[next_s, next_a]


@kernel
def sarsa_error(q, s, a, reward, bootstrap, discount):
    """r + γ Q(s′, a′) − Q(s, a), with `bootstrap` the value that follows."""
    return reward + discount * bootstrap - q[s, a]


@kernel
def n_step_return(rewards, first, last, bootstrap, discount):
    """r_first + γ r_{first+1} + … + γ^m · bootstrap over the m steps `first … last − 1`, from a ring indexed by step."""
    total = bootstrap
    for step in range(last - 1, first - 1, -1):
        total = rewards[step % rewards.size] + discount * total
    return total
