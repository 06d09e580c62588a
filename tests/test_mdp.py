import gymnasium as gym
import numpy as np
import pytest
import scipy.sparse as sp

from mpagents.tabular.mdp import FiniteMDP

TRANSITION = [[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0], [0.25, 0.0, 0.75]], [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]
REWARD = [[5.0, 10.0], [-1.0, 2.0], [0.0, 3.0]]


def random_arrays(seed, num_states=7, num_actions=3):
    rng = np.random.default_rng(seed)
    transition = rng.random((num_states, num_actions, num_states)) * (rng.random((num_states, num_actions, num_states)) < 0.5)
    transition[..., 0] += 0.1
    return transition / transition.sum(axis=2, keepdims=True), rng.normal(size=(num_states, num_actions))


def arrays_of(mdp):
    return [mdp.row_start, mdp.next_state, mdp.probability, mdp.reward, mdp.terminated, mdp.initial, mdp.terminal]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": (1, 1, 0, 0.3)}, r"state 1, action 1: probabilities sum to 1\.05; expected 1"),
        ({"transition": (2, 0, 2, -1.0)}, r"state 2, action 0: probability is -1\.0; expected 0 … 1"),
        ({"reward": (0, 1, np.nan)}, r"state 0, action 1: reward is nan; expected a finite number"),
        ({"discount": 1.5}, r"discount is 1\.5; expected a number in \[0, 1\]"),
        ({"initial": [0.5, 0.5, 0.5]}, r"initial distribution has shape \(3,\) and sum 1\.5"),
    ],
)
def test_mdp_refuses_by_name_of_state_and_action(change, message):
    transition, reward = np.array(TRANSITION), np.array(REWARD)
    if "transition" in change:
        *place, value = change["transition"]
        transition[tuple(place)] = value
    if "reward" in change:
        *place, value = change["reward"]
        reward[tuple(place)] = value
    with pytest.raises(ValueError, match=message):
        FiniteMDP.from_arrays(transition, reward, discount=change.get("discount", 0.9), initial=change.get("initial"))


def test_mdp_refuses_unknown_successors():
    with pytest.raises(ValueError, match="state 1, action 0: next state is 2; expected 0 … 1"):
        FiniteMDP.from_successors([[[0, 1]], [[2, 0]]], [[[0.5, 0.5]], [[0.5, 0.5]]], [[1.0], [1.0]], discount=0.9)


def test_mdp_merges_duplicate_successors_with_mean_reward():
    mdp = FiniteMDP.from_successors(
        [[[1, 0, 1]], [[1, 1, 1]]],
        [[[0.25, 0.25, 0.5]], [[0.5, 0.5, 0.0]]],
        [[[3.0, 1.0, 6.0]], [[2.0, 4.0, 9.0]]],
        discount=0.9,
    )
    assert mdp.row_start.tolist() == [0, 2, 3]
    assert mdp.next_state.tolist() == [1, 0, 1]
    assert mdp.probability.tolist() == [0.75, 0.25, 1.0]
    assert mdp.reward.tolist() == [5.0, 1.0, 3.0]
    assert mdp.expected_reward.tolist() == [[4.0], [3.0]]


@pytest.mark.parametrize("terminal", [(), (2, 5)])
def test_mdp_dense_equals_sparse_equals_successors(terminal):
    transition, reward = random_arrays(0)
    dense = FiniteMDP.from_arrays(transition, reward, discount=0.9, terminal=terminal)
    explicit_zeros = [sp.csr_array(np.where(transition[:, a] == 0, 7.0, transition[:, a])) for a in range(3)]
    for a, matrix in enumerate(explicit_zeros):
        matrix.data[:] = transition[:, a].ravel()
    sparse = FiniteMDP.from_arrays(explicit_zeros, reward, discount=0.9, terminal=terminal)
    successors = np.broadcast_to(np.arange(7), transition.shape)
    listed = FiniteMDP.from_successors(successors, transition, reward, discount=0.9, terminal=terminal)
    for ours, other, third in zip(arrays_of(dense), arrays_of(sparse), arrays_of(listed)):
        np.testing.assert_array_equal(ours, other)
        np.testing.assert_array_equal(ours, third)
    assert np.flatnonzero(dense.terminal).tolist() == list(terminal)


@pytest.mark.parametrize("env_id", ["CliffWalking-v1", "FrozenLake-v1", "Taxi-v4"])
def test_mdp_from_gymnasium_pins_terminal_states(env_id):
    env = gym.make(env_id)
    mdp = FiniteMDP.from_gymnasium(env, discount=1.0)
    entries = np.repeat(np.repeat(mdp.terminal, mdp.num_actions), np.diff(mdp.row_start))
    assert mdp.terminal.any()
    assert (mdp.reward[entries] == 0).all() and mdp.terminated[entries].all()
    assert (mdp.expected_reward[mdp.terminal] == 0).all()
    table = env.unwrapped.P
    s = int(np.argmin(mdp.terminal))
    for a in range(mdp.num_actions):
        assert mdp.expected_reward[s, a] == pytest.approx(sum(p * r for p, _, r, _ in table[s][a]))


def test_mdp_from_gymnasium_knows_that_cliff_walking_goes_on_paying_at_its_goal():
    env = gym.make("CliffWalking-v1")
    assert env.unwrapped.P[47][0][0][2] == -1  # the table's outgoing transition from the goal
    mdp = FiniteMDP.from_gymnasium(env)
    assert np.flatnonzero(mdp.terminal).tolist() == [47]
    assert mdp.expected_reward[47].tolist() == [0.0] * 4


def test_mdp_backup_state_and_matrix_leave_out_what_terminates():
    mdp = FiniteMDP.from_arrays(TRANSITION, REWARD, discount=0.9, terminal=[2])
    assert (mdp.backup_state[mdp.terminated] == 3).all() and (mdp.backup_state[~mdp.terminated] < 2).all()
    np.testing.assert_allclose(mdp.transition_matrix().sum(axis=1), [1, 0, 1, 0.25, 0, 0])


def test_mdp_cumulative_rows_end_in_exactly_one():
    transition, reward = random_arrays(1)
    mdp = FiniteMDP.from_arrays(transition, reward, discount=0.9)
    assert (mdp.cumulative[mdp.row_start[1:] - 1] == 1.0).all()
    np.testing.assert_allclose(np.diff(mdp.cumulative[: mdp.row_start[1]], prepend=0), mdp.probability[: mdp.row_start[1]])
