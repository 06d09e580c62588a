import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpagents.tabular import threads
from mpagents.tabular.bellman import action_values, bellman_operator, greedy, greedy_actions, policy_operator
from mpagents.tabular.endings import ImproperPolicyError
from mpagents.tabular.mdp import FiniteMDP
from mpagents.tabular.planning import (
    backward_induction,
    modified_policy_iteration,
    modified_policy_iteration_sweeps,
    optimal_values,
    policy_iteration,
    policy_iteration_sweeps,
    regret,
    value_iteration,
    value_iteration_sweeps,
)
from mpagents.tabular.policy_evaluation import evaluate_policy

PLANNERS = {
    "value iteration": value_iteration,
    "gauss-seidel": lambda mdp, **kwargs: value_iteration(mdp, gauss_seidel=True, **kwargs),
    "policy iteration": lambda mdp, epsilon=None, **kwargs: policy_iteration(mdp, **kwargs),
    "iterative policy iteration": lambda mdp, epsilon=None, **kwargs: policy_iteration(mdp, evaluation="iterative", **kwargs),
    "modified policy iteration": modified_policy_iteration,
}


def puterman(discount=0.95):
    """Puterman 1994, §3.1: two states; the second action of state 1 is infeasible there, here it copies the first."""
    transition = [[[0.5, 0.5], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]
    return FiniteMDP.from_arrays(transition, [[5.0, 10.0], [-1.0, -1.0]], discount=discount)


def machine(discount=0.9):
    """A machine new, worn or broken; keep it (earning 10, 6, 0, wearing with probability 1/2 a step) or replace it for 9."""
    transition = [[[0.5, 0.5, 0], [1, 0, 0]], [[0, 0.5, 0.5], [1, 0, 0]], [[0, 0, 1], [1, 0, 0]]]
    return FiniteMDP.from_arrays(transition, [[10, -9], [6, -9], [0, -9]], discount=discount)


def toy_text(env_id, discount, **kwargs):
    return FiniteMDP.from_gymnasium(gym.make(env_id, **kwargs), discount)


def random_mdp(seed, num_states=30, num_actions=4, successors=3, discount=0.95, ends=True):
    rng = np.random.default_rng(seed)
    return FiniteMDP.from_successors(
        rng.integers(num_states, size=(num_states, num_actions, successors)),
        rng.dirichlet(np.ones(successors), size=(num_states, num_actions)),
        rng.normal(size=(num_states, num_actions)) * 10,
        discount=discount,
        terminal=[0, 1] if ends else [],
    )


def corridor(rewards, discount=1.0):
    """States 0 … n − 1 in a row: action 0 stays, action 1 goes on and ends after the last; `rewards` [n, 2]."""
    num_states = len(rewards) + 1
    successors = [[[s], [min(s + 1, num_states - 1)]] for s in range(num_states)]
    return FiniteMDP.from_successors(
        successors, np.ones((num_states, 2, 1)), [*rewards, [0.0, 0.0]], discount=discount, terminal=[num_states - 1]
    )


def test_action_values_by_hand():
    q = action_values(puterman(0.5), [4.0, -2.0])
    assert q.tolist() == [[5 + 0.5 * (0.5 * 4 - 0.5 * 2), 10 - 0.5 * 2], [-2.0, -2.0]]
    assert bellman_operator(puterman(0.5), [4.0, -2.0]).tolist() == [9.0, -2.0]
    assert policy_operator(puterman(0.5), [0, 1], [4.0, -2.0]).tolist() == [5.5, -2.0]
    assert policy_operator(puterman(0.5), [[0.5, 0.5], [1.0, 0.0]], [4.0, -2.0]).tolist() == [7.25, -2.0]


def test_operators_never_bootstrap_on_an_end():
    mdp = corridor([[1.0, 2.0], [3.0, 4.0]], discount=0.5)
    assert action_values(mdp, [10.0, 20.0, 1e9]).tolist() == [[6.0, 12.0], [13.0, 4.0], [0.0, 0.0]]


def test_greedy_averages_over_ties_within_tolerance():
    q = np.array([[1.0, 1.0 - 1e-12, 0.0], [-1e6, -2e6, -1e6]])
    assert greedy(q).tolist() == [[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]]
    assert greedy(q, tolerance=0.0)[0].tolist() == [1.0, 0.0, 0.0]
    assert greedy_actions(q).tolist() == [0, 0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.booleans())
def test_bellman_operators_contract_and_are_monotonic(seed, discount, ends):
    mdp, rng = random_mdp(seed, discount=discount, ends=ends), np.random.default_rng(seed)
    v = np.where(mdp.terminal, 0.0, rng.normal(size=30) * 100)
    w = v + np.where(mdp.terminal, 0.0, rng.normal(size=30))
    policy = rng.dirichlet(np.ones(4), size=30)
    for operator in (lambda v: bellman_operator(mdp, v), lambda v: policy_operator(mdp, policy, v)):
        assert np.abs(operator(v) - operator(w)).max() <= discount * np.abs(v - w).max() + 1e-11
        assert (operator(np.minimum(v, w)) <= operator(v) + 1e-11).all()
    assert (policy_operator(mdp, policy, v) <= bellman_operator(mdp, v) + 1e-11).all()
    np.testing.assert_allclose(policy_operator(mdp, greedy(action_values(mdp, v)), v), bellman_operator(mdp, v), atol=1e-7)


@pytest.mark.parametrize("planner", PLANNERS)
def test_planners_solve_putermans_example(planner):
    solution = PLANNERS[planner](puterman(), epsilon=1e-8)
    np.testing.assert_allclose(solution.values, [-60 / 7, -20], atol=1e-8)  # (5 + .95 · .5 · −20) / (1 − .95 · .5)
    assert solution.policy[0] == 0
    assert solution.bound <= 1e-8


@pytest.mark.parametrize("planner", PLANNERS)
def test_planners_replace_the_machine_when_it_is_broken(planner):
    # Keep while it works: w = 6 + .45 (w + b), n = 10 + .45 (n + w), b = −9 + .9 n.
    expected = np.linalg.solve([[0.55, -0.45, 0], [0, 0.55, -0.45], [-0.9, 0, 1]], [10, 6, -9])
    solution = PLANNERS[planner](machine(), epsilon=1e-8)
    np.testing.assert_allclose(solution.values, expected, atol=1e-8)
    assert solution.policy.tolist() == [0, 0, 1]
    assert len(solution.history) <= solution.sweeps
    np.testing.assert_allclose(solution.action_values.max(axis=1), expected, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 0.9, 0.99]), st.booleans(), st.sampled_from([1.0, 1e-3, 1e-6]))
def test_planners_keep_their_bounds(seed, discount, ends, epsilon):
    mdp = random_mdp(seed, discount=discount, ends=ends)
    exact = policy_iteration(mdp)
    for name, planner in PLANNERS.items():
        solution = planner(mdp, epsilon=epsilon)
        error = np.abs(solution.values - exact.values).max()
        assert error <= solution.bound + 1e-11, name
        assert solution.bound <= epsilon / 2, name
        assert (solution.values[mdp.terminal] == 0).all(), name
        assert (exact.values - evaluate_policy(mdp, solution.policy)).max() <= epsilon, name
    values, policy = backward_induction(mdp, 40)
    left = discount**40 * np.abs(exact.values).max()
    assert np.abs(values[0] - exact.values).max() <= left + 1e-9
    assert values.shape == (41, 30) and policy.shape == (40, 30)


def test_dropping_beaten_actions_leaves_value_iteration_as_it_is():
    mdp = random_mdp(3, num_states=200, discount=0.99)
    v = np.zeros(200)
    for sweep in value_iteration_sweeps(mdp, epsilon=1e-8):
        v = bellman_operator(mdp, v)
        np.testing.assert_array_equal(sweep.values, v)
    assert sweep.number > 64


def test_backward_induction_by_hand():
    mdp = corridor([[1.0, 0.0], [0.0, 10.0]])
    values, policy = backward_induction(mdp, 3)
    assert values.tolist() == [[11.0, 10.0, 0.0], [10.0, 10.0, 0.0], [1.0, 10.0, 0.0], [0.0, 0.0, 0.0]]
    assert policy[:, 0].tolist() == [0, 1, 0]


@pytest.mark.parametrize("discount", [0.99, 1.0])
def test_policy_iteration_ends_on_taxi_and_equals_value_iteration(discount):
    mdp = toy_text("Taxi-v4", discount)
    exact, swept = policy_iteration(mdp), value_iteration(mdp, epsilon=1e-9)
    assert exact.sweeps <= 30
    np.testing.assert_allclose(exact.values, swept.values, atol=1e-9)
    assert regret(mdp, exact.policy) == pytest.approx(0, abs=1e-10)
    if discount == 1.0:
        assert mdp.initial @ exact.values == pytest.approx(7.93)  # the mean of Taxi's 300 starts


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize(
    ("env_id", "kwargs", "start_value"),
    [
        ("CliffWalking-v1", {}, -13.0),
        ("FrozenLake-v1", {}, 14 / 17),
        ("FrozenLake-v1", {"is_slippery": False}, 1.0),
    ],
)
def test_planners_solve_toy_text_without_discount(planner, env_id, kwargs, start_value):
    mdp = toy_text(env_id, 1.0, **kwargs)
    solution = PLANNERS[planner](mdp, epsilon=1e-8)
    assert mdp.initial @ solution.values == pytest.approx(start_value, abs=1e-5)
    assert solution.bound == np.inf
    # Ties must not close a loop: on the dry lake every step is worth 1.
    assert regret(mdp, solution.policy) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("planner", PLANNERS)
def test_planners_refuse_to_plan_without_discount_where_nothing_ends(planner):
    mdp = FiniteMDP.from_successors(
        [[[1]], [[1]], [[2]]], np.ones((3, 1, 1)), [[1.0], [0.0], [0.0]], discount=1.0, terminal=[1]
    )
    with pytest.raises(ValueError, match="state 2: no policy reaches an end"):
        PLANNERS[planner](mdp)


@pytest.mark.parametrize("planner", PLANNERS)
def test_planners_refuse_loops_that_earn_forever(planner):
    limit = {} if "policy iteration" in planner and "modified" not in planner else {"max_sweeps": 500}
    with pytest.raises(ValueError, match=r"loop (earns|may earn) reward forever"):
        PLANNERS[planner](corridor([[0.0, 0.0], [0.5, 0.0]]), **limit)


@pytest.mark.parametrize("planner", PLANNERS)
def test_planners_take_the_best_policy_that_ends(planner):
    # Staying is free and going on costs: a policy that never ends would keep 0, but isn't one at γ = 1.
    solution = PLANNERS[planner](corridor([[0.0, -1.0], [0.0, -2.0]]))
    np.testing.assert_allclose(solution.values, [-3.0, -2.0, 0.0])
    assert solution.policy[:2].tolist() == [1, 1]


@pytest.mark.parametrize("method", ["exact", "iterative"])
@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
def test_evaluate_policy_by_hand(method, discount):
    mdp = corridor([[7.0, 1.0], [-3.0, 2.0]], discount)
    stay = 1 - discount / 2  # half the time it stays: v = (r_stay + r_go)/2 + γ/2 v + γ/2 v′
    last = -0.5 / stay
    expected = [(4.0 + discount / 2 * last) / stay, last, 0.0]
    np.testing.assert_allclose(evaluate_policy(mdp, np.full((3, 2), 0.5), method=method), expected, atol=1e-9)
    np.testing.assert_allclose(evaluate_policy(mdp, [1, 1, 0], method=method), [1 + 2 * discount, 2.0, 0.0], atol=1e-9)


def test_evaluate_policy_exact_equals_iterative():
    for seed in range(5):
        mdp = random_mdp(seed, ends=seed % 2 == 0)
        policy = np.random.default_rng(seed).dirichlet(np.ones(4), size=30)
        np.testing.assert_allclose(
            evaluate_policy(mdp, policy), evaluate_policy(mdp, policy, method="iterative", epsilon=1e-11), atol=1e-10
        )


def test_evaluate_policy_refuses_improper_policies_by_state():
    mdp = corridor([[-1.0, -1.0], [-1.0, -1.0]])
    with pytest.raises(ImproperPolicyError, match="state 0: at discount 1 the policy visits it and then never ends"):
        evaluate_policy(mdp, [1, 0, 0])
    with pytest.raises(ImproperPolicyError, match="state 0"):
        regret(mdp, [0, 1, 0])
    assert evaluate_policy(mdp, [[0.9, 0.1], [0.5, 0.5], [1.0, 0.0]]) == pytest.approx([-12.0, -2.0, 0.0])


def test_evaluate_policy_asks_visited_states_only():
    successors = [[[3], [1]], [[1], [1]], [[1], [1]], [[3], [3]]]
    mdp = FiniteMDP.from_successors(
        successors, np.ones((4, 2, 1)), -np.ones((4, 2)), discount=1.0, terminal=[3], initial=[1.0, 0, 0, 0]
    )
    np.testing.assert_array_equal(evaluate_policy(mdp, [0, 0, 0, 0]), [-1.0, np.nan, np.nan, 0.0])
    with pytest.raises(ImproperPolicyError, match="state 1"):
        evaluate_policy(mdp, [[0.5, 0.5], [1, 0], [1, 0], [1, 0]])


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ([0, 5], r"state 1: the policy's action is 5; expected 0 … 1"),
        ([[0.5, 0.5], [0.5, 0.4]], r"state 1: the policy's probabilities are \[0\.5, 0\.4\]"),
        ([0, 0, 0], r"policy has shape \(3,\) and type int64; expected integers \[2\] or probabilities \[2, 2\]"),
    ],
)
def test_evaluate_policy_refuses_what_is_no_policy(policy, message):
    with pytest.raises(ValueError, match=message):
        evaluate_policy(puterman(), policy)


def test_regret_by_hand():
    mdp = puterman()
    assert regret(mdp, [1, 0]) == pytest.approx(0.5 * (-60 / 7 - (10 - 0.95 * 20)))
    assert optimal_values(mdp) is optimal_values(mdp)


def test_planners_stop_at_float_noise_and_say_so():
    mdp = random_mdp(0, discount=0.999)
    exact = policy_iteration(mdp)
    for planner in (value_iteration, modified_policy_iteration):
        solution = planner(mdp, epsilon=1e-18)
        assert 1e-18 < solution.bound < 1e-7
        assert np.abs(solution.values - exact.values).max() <= solution.bound + exact.bound


@pytest.mark.parametrize(
    "sweeps", [value_iteration_sweeps, policy_iteration_sweeps, modified_policy_iteration_sweeps], ids=lambda f: f.__name__
)
def test_sweeps_report_falling_bounds_that_hold(sweeps):
    mdp = random_mdp(1)
    exact = policy_iteration(mdp).values
    steps = [(s.number, s.bound, np.abs(s.values - exact).max()) for s in sweeps(mdp)]
    numbers, bounds, errors = map(np.array, zip(*steps))
    assert (np.diff(numbers) > 0).all()
    assert (errors <= bounds + 1e-11).all()
    assert bounds[-1] < 1e-3 * bounds[0]


@pytest.mark.parametrize("num_threads", [2, 3])
def test_threads_leave_every_bit_as_it_is(monkeypatch, num_threads):
    mdp = random_mdp(2, num_states=1001)
    policy = np.random.default_rng(2).dirichlet(np.ones(4), size=1001)

    def results():
        solved = [value_iteration(mdp), modified_policy_iteration(mdp)]
        arrays = [x for s in solved for x in (s.values, s.policy, s.action_values, s.history)]
        return [*arrays, policy_operator(mdp, policy, solved[0].values), backward_induction(mdp, 5)[0]]

    alone = results()
    monkeypatch.setattr(threads, "num_threads", lambda backups: num_threads)
    for one, many in zip(alone, results()):
        assert one.tobytes() == many.tobytes()
