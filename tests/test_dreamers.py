"""Who finds a policy in a learned world: MDPs drawn from counts, replay of real and imagined transitions, Deep Dyna-Q."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.spaces import Box

from mpagents.deep.collection import Transition
from mpagents.deep.mixed_replay import MixedReplay
from mpagents.deep.observations import ObservationCodec
from mpagents.deep.replay import Replay
from mpagents.environments import EnvironmentSpec, make_vector, spaces_of
from mpagents.evaluation import evaluate
from mpagents.python_api import make_agent
from mpagents.tabular.counting import count_transition, no_counts
from mpagents.tabular.planning import value_iteration
from mpagents.tabular.posterior import drawn_model


def counted():
    """Of states 0 and 1 with two actions: (0, 0) led three times to 1, unpaid, and once to the end, 2; no more is known."""
    counts = no_counts(np.zeros((3, 2), np.int64))
    for next_s, reward, ended in ((1, 0.0, False), (1, 0.0, False), (2, 2.0, True), (1, 0.0, False)):
        count_transition(counts, 0, 0, reward, next_s, ended)
    counts.starts[0] = 1
    return counts


def test_drawn_models_average_to_what_was_counted_and_one_hopeful_outcome():
    """n_i / (n + 1): of five outcomes three lead on, one ends as it was seen to, and one is hoped for: it pays the best."""
    counts, rng = counted(), np.random.default_rng(0)
    before, shares = [part.copy() for part in counts], []
    for _ in range(4_000):
        mdp = drawn_model(counts, 0.5, rng)
        row = slice(mdp.row_start[0], mdp.row_start[1])
        assert mdp.probability[row].sum() == pytest.approx(1)
        assert mdp.next_state[row].tolist() == [1, 2, 0] and mdp.terminated[row].tolist() == [False, True, True]
        np.testing.assert_allclose(mdp.reward[row], [0, 2, 2])
        shares.append(mdp.probability[row])
    np.testing.assert_allclose(np.mean(shares, 0), [0.6, 0.2, 0.2], atol=0.01)
    np.testing.assert_allclose(np.var(shares, 0), np.array([0.24, 0.16, 0.16]) / 6, atol=0.005)  # Dirichlet(3, 1, 1)
    assert all(np.array_equal(one, two) for one, two in zip(before, counts))


def test_drawn_models_hold_untried_pairs_for_the_best_and_ends_for_nothing():
    counts = counted()
    values = value_iteration(drawn_model(counts, 0.5, np.random.default_rng(0))).action_values
    assert values[0, 1] == values[1, 0] == values[1, 1] == 2 / 0.5
    assert (values[2] == 0).all()


def filled(value, action):
    """A replay of two environments' ten steps, all seen as `value`."""
    replay = Replay(ObservationCodec(Box(-np.inf, np.inf, (1,))), 100, 0.9)
    obs, no = {"": np.full((2, 1), value, np.float32)}, np.zeros(2, np.bool_)
    for t in range(10):
        step = Transition(np.full(2, value, np.float32), no, no, obs, ~no)
        replay.add(obs, np.full(2, action), step, np.full(2, t == 0))
    return replay


@pytest.mark.parametrize(("share", "real"), [(0.0, 0), (0.25, 2), (1.0, 8)])
def test_mixed_replay_gives_each_its_share_and_sees_real_ones_anew(share, real):
    seen = 10.0
    replay = MixedReplay(filled(1, 0), filled(2, 1), share, lambda x: x * seen)
    for seen in (10.0, 20.0):
        batch = replay.gather(replay.draw(8, np.random.default_rng(0)))
        x = [2 * seen] * real + [1] * (8 - real)
        assert batch["obs."].tolist() == batch["next_obs."].tolist() == [[value] for value in x]
        assert batch["reward"].tolist() == [2] * real + [1] * (8 - real)
        assert batch["action"].tolist() == [1] * real + [0] * (8 - real)


def test_dqn_learns_more_from_the_same_real_steps_where_imagined_ones_are_mixed_in():
    """CartPole, 600 real steps: about 15 to 25 without a model, about 85 to 140 with one."""
    spec = EnvironmentSpec("CartPole-v1", label="pole")
    inside = {"train_every": 4, "target_every": 1_000, "batch_size": 64, "learning_starts": 500, "learning_rate": 1e-3}
    dyna = {"inner": "dqn", "real_share": 0.5, "inner_settings": inside, "collect_steps": 200, "updates": 150}
    dyna |= {"dreams": 64, "horizon": 30, "rollouts": 2}
    returns = []
    for name, settings in (("dqn", {"learning_starts": 100, "compile": False}), ("imagination", dyna)):
        env = make_vector(spec, 1)
        agent = make_agent(name, env, seed=0, **settings)
        for _ in agent.train(env, 600):
            pass
        returns.append(evaluate(agent, spec, spaces_of(env.envs[0]), episodes=20, seed=7)["mean_reward"])
    assert returns[1] > 2 * returns[0]
