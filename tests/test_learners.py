"""Tabular learners: update rules against numbers worked out by hand, identities between algorithms, known optima, resuming."""

import copy
import warnings

import gymnasium as gym
import numpy as np
import pytest

from mpagents.agents import agent_class
from mpagents.agents.agent import Spaces
from mpagents.agents.sarsa import Recent, learn_n_step, learn_traces
from mpagents.agents.sarsa import learn as learn_sarsa
from mpagents.configuration import validate
from mpagents.schedules import Schedule, numbers
from mpagents.seeding import generator
from mpagents.tabular import updates
from mpagents.tabular.exploration import epsilon_greedy_probabilities
from mpagents.tabular.mdp import FiniteMDP
from mpagents.tabular.planning import regret
from mpagents.tabular.policy_evaluation import evaluate_policy
from mpagents.tabular.traces import credit, fade, mark, no_traces

NEXT_STEP, SAME_STEP = gym.vector.AutoresetMode.NEXT_STEP, gym.vector.AutoresetMode.SAME_STEP


class TableEnv(gym.Env):
    """A finite MDP as an environment, drawing from its own generator."""

    def __init__(self, mdp):
        self.mdp = mdp
        self.observation_space = gym.spaces.Discrete(mdp.num_states)
        self.action_space = gym.spaces.Discrete(mdp.num_actions)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = int(self.np_random.choice(self.mdp.num_states, p=self.mdp.initial))
        return self.state, {}

    def step(self, action):
        row = self.state * self.mdp.num_actions + int(action)
        first, last = self.mdp.row_start[row], self.mdp.row_start[row + 1]
        k = int(self.np_random.choice(np.arange(first, last), p=self.mdp.probability[first:last]))
        self.state = int(self.mdp.next_state[k])
        return self.state, float(self.mdp.reward[k]), bool(self.mdp.terminated[k]), False, {}


def vector_of(make, mode=NEXT_STEP):
    return gym.vector.SyncVectorEnv([make], autoreset_mode=mode)


def table_env(mdp, limit=None, mode=NEXT_STEP):
    return vector_of(lambda: TableEnv(mdp) if limit is None else gym.wrappers.TimeLimit(TableEnv(mdp), limit), mode)


def simulated_spaces(mdp, limit=None):
    return Spaces(gym.spaces.Discrete(mdp.num_states), gym.spaces.Discrete(mdp.num_actions), mdp.discount, mdp, limit)


def stepped_spaces(mdp):
    return Spaces(gym.spaces.Discrete(mdp.num_states), gym.spaces.Discrete(mdp.num_actions), mdp.discount)


def build(name, spaces, seed=0, **config):
    cls = agent_class(name)
    config = cls.Config(**config)
    cls.check(config, spaces)
    return cls(config, spaces, seed=seed)


def trained(name, spaces, num_steps, seed=0, env=None, **config):
    agent = build(name, spaces, seed, **config)
    agent.metrics = [metrics for _, metrics in agent.train(env, num_steps)]
    return agent


def chain(num_states=5, discount=0.9):
    """One action leads along 0, 1, …; every step pays its own reward, and the last state ends the episode."""
    transition = np.zeros((num_states + 1, 1, num_states + 1))
    for s in range(num_states):
        transition[s, 0, s + 1] = 1.0
    transition[num_states, 0, num_states] = 1.0
    initial = np.eye(num_states + 1)[0]
    reward = np.arange(num_states + 1.0)[:, None] - 1.5
    return FiniteMDP.from_arrays(transition, reward, discount=discount, initial=initial, terminal=[num_states])


def loop(discount=0.9):
    """One state, one action, reward 1 for ever: worth 1/(1 − γ)."""
    return FiniteMDP.from_arrays([[[1.0]]], [[1.0]], discount=discount)


def random_mdp(num_states=12, num_actions=3, successors=7, discount=0.9):
    """Every pair has `successors` of which some end the episode."""
    rng = np.random.default_rng(5)
    next_state = np.stack([rng.permutation(num_states)[:successors] for _ in range(num_states * num_actions)])
    probability = rng.dirichlet(np.ones(successors), num_states * num_actions)
    shape = (num_states, num_actions, successors)
    initial = np.eye(num_states)[0]
    return FiniteMDP.from_successors(
        next_state.reshape(shape), probability.reshape(shape), rng.normal(size=shape), discount=discount, initial=initial,
        terminal=[num_states - 1],
    )  # fmt: skip


def gymnasium_mdp(env_id, discount, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = gym.make(env_id, **kwargs)
    limit = env.spec.max_episode_steps
    mdp = FiniteMDP.from_gymnasium(env, discount)
    return mdp, Spaces(env.observation_space, env.action_space, discount, mdp, limit)


# ---- update rules, by hand


def test_errors_by_hand():
    q, rng = np.array([[1.0, 2.0], [3.0, 5.0]]), np.random.default_rng(0)
    other = np.array([[0.0, 0.0], [7.0, -1.0]])
    assert updates.td_error(np.array([1.0, 4.0]), 0, 2.0, 1, False, 0.5) == 2 + 0.5 * 4 - 1
    assert updates.q_learning_error(q, 0, 1, 2.0, 1, False, 0.5) == 2 + 0.5 * 5 - 2
    assert updates.q_learning_error(q, 0, 1, 2.0, 1, True, 0.5) == 2 - 2
    assert updates.double_q_error(q, other, 0, 1, 2.0, 1, False, 0.5, rng) == 2 + 0.5 * -1 - 2
    assert updates.next_value(q, 1, 0, False, False, 0.2) == 3
    assert updates.next_value(q, 1, 0, False, True, 0.2) == pytest.approx(0.9 * 5 + 0.1 * 3)
    assert updates.next_value(q, 1, 0, True, True, 0.2) == 0
    assert updates.sarsa_error(q, 0, 1, 2.0, 3.0, 0.5) == 2 + 0.5 * 3 - 2


def test_n_step_return_by_hand_wraps_around_its_ring():
    ring = np.array([4.0, 2.0, 3.0])  # the rewards of steps 3, 1, 2
    assert updates.n_step_return(ring, 1, 4, 8.0, 0.5) == 2 + 0.5 * 3 + 0.25 * 4 + 0.125 * 8
    assert updates.n_step_return(ring, 3, 4, 8.0, 0.5) == 4 + 0.5 * 8


def test_step_size_is_constant_or_the_sample_average():
    constant = updates.Rates(0.9, 0.25, 0.0, numbers(0.0, 1))
    assert updates.step_size(constant, 7) == 0.25
    assert updates.step_size(constant._replace(alpha=1.0, alpha_decay=1.0), 8) == 1 / 8


def test_traces_by_hand():
    rates, values, visits = updates.Rates(1.0, 0.5, 0.0, numbers(0.0, 1)), np.zeros(3), np.ones(3, np.int64)
    traces = no_traces(3)
    mark(traces, 2, False)
    fade(traces, 0.5)
    mark(traces, 2, False)
    mark(traces, 0, False)
    credit(traces, values, visits, rates, 4.0)
    assert values.tolist() == [2.0, 0.0, 3.0]
    mark(traces, 2, True)
    assert traces.eligibility.tolist() == [1.0, 0.0, 1.0]
    fade(traces, 0.0)
    assert traces.num_active[0] == 0


@pytest.mark.parametrize(("traces", "expected"), [("accumulating", 1.0625), ("replacing", 0.875)])
def test_sarsa_lambda_by_hand(traces, expected):
    agent = trained("sarsa", simulated_spaces(loop(0.5)), 2, alpha=0.5, trace_decay=1.0, traces=traces)
    assert agent.q[0, 0] == expected


@pytest.mark.parametrize(("visits", "expected", "count"), [("first", 1.5, 1), ("every", 1.25, 2)])
def test_monte_carlo_visits_by_hand(visits, expected, count):
    agent = trained("monte_carlo", simulated_spaces(loop(0.5), limit=2), 2, visits=visits)
    assert (agent.q[0, 0], agent.visits[0, 0]) == (expected, count)


# ---- identities between algorithms


def sarsa_by(learn, expected, *more):
    mdp = random_mdp()
    agent = build("sarsa", simulated_spaces(mdp, limit=20), seed=3)
    rates = updates.rates_of(agent.config, mdp.discount, 5_000)
    more = [part(agent) if callable(part) else part for part in more]
    list(agent.control.train(None, 5_000, 1_000, learn, (rates, expected, agent.q, agent.visits, *more), rates.epsilon))
    return agent.q


@pytest.mark.parametrize("expected", [False, True])
def test_sarsa_one_step_n_one_and_lambda_zero_are_equal_to_the_bit(expected):
    one_step = sarsa_by(learn_sarsa, expected)
    recent = Recent(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1))
    flat = (lambda agent: agent.q.reshape(-1)), (lambda agent: agent.visits.reshape(-1))
    assert np.abs(one_step).max() > 0.1
    assert np.array_equal(one_step, sarsa_by(learn_n_step, expected, recent))
    assert np.array_equal(one_step, sarsa_by(learn_traces, expected, no_traces(one_step.size), 0.0, False, *flat))


def test_long_returns_and_lambda_one_equal_monte_carlo_on_a_chain():
    spaces, rates = simulated_spaces(chain()), {"alpha": 0.3, "alpha_decay": 0.5}
    monte_carlo = trained("monte_carlo", spaces, 15, visits="every", **rates).q
    assert np.array_equal(monte_carlo, trained("sarsa", spaces, 15, n=5, **rates).q)
    assert np.array_equal(monte_carlo, trained("sarsa", spaces, 15, n=50, **rates).q)
    np.testing.assert_allclose(trained("sarsa", spaces, 15, trace_decay=1.0, **rates).q, monte_carlo, rtol=1e-12)
    np.testing.assert_allclose(trained("td", spaces, 15, trace_decay=1.0, **rates).v, monte_carlo[:, 0], rtol=1e-12)


DETERMINED = [
    ("q_learning", {"epsilon": 0.0}),
    ("q_learning", {"epsilon": 0.0, "alpha_decay": 0.7}),
    ("sarsa", {"epsilon": 0.0}),
    ("sarsa", {"epsilon": 0.0, "n": 3}),
    ("sarsa", {"epsilon": 0.0, "trace_decay": 0.8}),
    ("monte_carlo", {"epsilon": 0.0, "visits": "every", "alpha": 0.5, "alpha_decay": 0.3}),
    ("td", {"trace_decay": 0.5}),
    ("model_based", {"epsilon": 0.0, "plan_every": 7}),
]


@pytest.mark.parametrize(("name", "config"), DETERMINED)
def test_simulated_and_stepped_learning_are_equal_where_nothing_is_random(name, config):
    mdp = chain()
    for limit in (None, 3):  # ended by the chain, or cut
        simulated = trained(name, simulated_spaces(mdp, limit), 40, **config)
        stepped = trained(name, stepped_spaces(mdp), 40, env=table_env(mdp, limit), **config)
        table = "v" if name == "td" else "q"
        assert np.array_equal(getattr(simulated, table), getattr(stepped, table))
        assert np.array_equal(simulated.visits, stepped.visits)
        keys = stepped.metrics[-1].keys()
        assert {key: simulated.metrics[-1][key] for key in keys} == stepped.metrics[-1]


@pytest.mark.parametrize(
    ("name", "config"), [("q_learning", {}), ("sarsa", {"n": 3}), ("monte_carlo", {}), ("td", {}), ("model_based", {})]
)
def test_both_autoreset_modes_teach_the_same(name, config):
    mdp = random_mdp()
    both = [trained(name, stepped_spaces(mdp), 600, env=table_env(mdp, 9, mode), **config) for mode in (NEXT_STEP, SAME_STEP)]
    table = "v" if name == "td" else "q"
    assert both[0].metrics == both[1].metrics
    assert both[0].stream.walk.num_episodes > 60
    assert np.array_equal(getattr(both[0], table), getattr(both[1], table))


# ---- truncation and termination

CONSTANT = {"alpha": 0.5, "epsilon": 0.0}
BOOTSTRAPPING = [
    ("q_learning", CONSTANT),
    ("q_learning", {**CONSTANT, "double": True}),
    ("sarsa", CONSTANT),
    ("sarsa", {**CONSTANT, "expected": True}),
    ("sarsa", {**CONSTANT, "n": 2}),
    ("sarsa", {**CONSTANT, "n": 8}),
    ("sarsa", {**CONSTANT, "trace_decay": 0.5}),
    ("monte_carlo", {**CONSTANT, "alpha_decay": 0.0}),
    ("td", {"alpha": 0.5}),
    ("td", {"alpha": 0.5, "trace_decay": 0.5}),
    ("model_based", {"unvisited": "self_loop"}),
    ("model_based", {**CONSTANT, "planning": "dyna"}),
]


@pytest.mark.parametrize(("name", "config"), BOOTSTRAPPING)
def test_truncation_bootstraps_and_termination_does_not(name, config):
    table = "v" if name == "td" else "q"
    ending = FiniteMDP.from_arrays([[[0.0, 1.0]], [[0.0, 1.0]]], [[1.0], [0.0]], discount=0.9, terminal=[1])
    for spaces, env in ((simulated_spaces(loop(), 3), None), (stepped_spaces(loop()), table_env(loop(), 3))):
        agent = trained(name, spaces, 1_500, env=env, **config)
        assert getattr(agent, table)[0] == pytest.approx(10.0)
        assert agent.metrics[-1]["rollout/ep_len_mean"] == 3
    for spaces, env in ((simulated_spaces(ending), None), (stepped_spaces(ending), table_env(ending))):
        assert getattr(trained(name, spaces, 50, env=env, **config), table)[0] == pytest.approx(1.0)


def test_monte_carlo_cuts_endless_episodes_itself_and_bootstraps_them():
    config = {**CONSTANT, "alpha_decay": 0.0, "max_episode_length": 3}
    for spaces, env in ((simulated_spaces(loop()), None), (stepped_spaces(loop()), table_env(loop()))):
        agent = trained("monte_carlo", spaces, 600, env=env, **config)
        assert agent.stream.walk.num_episodes == 200
        assert agent.q[0, 0] == pytest.approx(10.0)
        dropped = trained("monte_carlo", spaces, 600, env=env, on_truncation="drop", **config)
        assert dropped.visits.sum() == 0


# ---- known values and known behaviour


def random_walk():
    """Sutton and Barto, Example 6.2: five states in a row, from the middle; the right end pays 1."""
    transition = np.zeros((7, 1, 7))
    for s in range(5):
        left, right = (s - 1 if s > 0 else 5), (s + 1 if s < 4 else 6)
        transition[s, 0, left] = transition[s, 0, right] = 0.5
    transition[5, 0, 5] = transition[6, 0, 6] = 1.0
    reward = np.zeros((7, 1, 7))
    reward[4, 0, 6] = 1.0
    return FiniteMDP.from_arrays(transition, reward, discount=1.0, initial=np.eye(7)[2], terminal=[5, 6])


@pytest.mark.parametrize("trace_decay", [0.0, 0.9])
def test_td_learns_the_random_walk(trace_decay):
    config = {"alpha": 0.5, "alpha_decay": 0.7, "trace_decay": trace_decay}
    agent = trained("td", simulated_spaces(random_walk()), 100_000, log_every=100, initial_value=0.5, **config)
    np.testing.assert_allclose(agent.v[:5], np.arange(1, 6) / 6, atol=0.02)
    errors = [metrics["train/value_rmse"] for metrics in agent.metrics]
    assert errors[-1] == pytest.approx(np.sqrt(np.mean((agent.v[:5] - np.arange(1, 6) / 6) ** 2)))
    assert errors[-1] < errors[0] / 5


def greedy_path(mdp, q, limit=100):
    """The states that greedy actions visit in a deterministic process, from its first state."""
    path = [int(mdp.initial.argmax())]
    while len(path) < limit:
        k = mdp.row_start[path[-1] * mdp.num_actions + int(q[path[-1]].argmax())]
        path.append(int(mdp.next_state[k]))
        if mdp.terminated[k]:
            break
    return path


def test_cliff_q_learning_walks_the_edge_and_sarsa_is_safe():
    mdp, spaces = gymnasium_mdp("CliffWalking-v1", 1.0)
    q_learning = trained("q_learning", spaces, 300_000)
    sarsa = trained("sarsa", spaces, 300_000, alpha=0.5, alpha_decay=0.3)
    edge, safe = greedy_path(mdp, q_learning.q), greedy_path(mdp, sarsa.q)
    assert len(edge) - 1 == 13
    assert sum(s // 12 == 2 for s in edge) == 12  # along the row above the cliff
    assert 15 <= len(safe) - 1 <= 19
    assert sum(s // 12 == 2 for s in safe) <= 4
    online = [evaluate_policy(mdp, epsilon_greedy_probabilities(agent.q, 0.1))[36] for agent in (q_learning, sarsa)]
    assert online[1] > online[0] + 10


def test_double_q_learning_is_less_biased():
    """Sutton and Barto, Figure 6.5: going left leads to ten actions of mean −0.1, and noise makes one of them look good."""
    num_actions = 10
    transition, reward = np.zeros((4, num_actions, 4)), np.zeros((4, num_actions, 4))
    transition[0, :5, 2], transition[0, 5:, 1] = 1.0, 1.0  # right ends, left leads on
    transition[1, :, 2:] = 0.5
    reward[1, :, 2], reward[1, :, 3] = 0.9, -1.1
    transition[2:, :, 2] = 1.0
    mdp = FiniteMDP.from_arrays(transition, reward, discount=1.0, initial=np.eye(4)[0], terminal=[2, 3])

    def share_of_left(**config):
        visits = sum(trained("q_learning", simulated_spaces(mdp), 300, seed, **config).visits[0] for seed in range(100))
        return visits[5:].sum() / visits.sum()

    assert share_of_left(double=True) < share_of_left() - 0.1


DECAYING = Schedule(1.0, 0.05, 0.5)
FROZEN = [
    ("q_learning", 300_000, {"epsilon": DECAYING, "alpha": 0.5, "alpha_decay": 0.5}),
    ("q_learning", 300_000, {"epsilon": DECAYING, "alpha": 0.5, "alpha_decay": 0.5, "double": True}),
    ("sarsa", 300_000, {"epsilon": Schedule(1.0, 0.01, 0.7), "alpha": 0.5, "alpha_decay": 0.5}),
    ("sarsa", 300_000, {"epsilon": Schedule(1.0, 0.01, 0.7), "alpha": 0.5, "alpha_decay": 0.5, "expected": True}),
    ("sarsa", 300_000, {"epsilon": Schedule(1.0, 0.01, 0.7), "alpha": 0.5, "alpha_decay": 0.5, "n": 3}),
    ("sarsa", 300_000, {"epsilon": Schedule(1.0, 0.01, 0.7), "alpha": 0.5, "alpha_decay": 0.6, "trace_decay": 0.5}),
    ("monte_carlo", 1_000_000, {"epsilon": Schedule(1.0, 0.05, 0.5), "alpha_decay": 0.7}),
    ("monte_carlo", 1_000_000, {"exploring_starts": True, "alpha_decay": 0.7}),
    ("model_based", 30_000, {"epsilon": 0.2}),
    ("model_based", 30_000, {"epsilon": 0.2, "planning": "policy_iteration"}),
    ("model_based", 30_000, {"epsilon": DECAYING, "planning": "dyna", "alpha": 0.5, "alpha_decay": 0.5}),
]


@pytest.mark.parametrize(("name", "num_steps", "config"), FROZEN)
def test_frozen_lake_is_learned(name, num_steps, config):
    mdp, spaces = gymnasium_mdp("FrozenLake-v1", 0.99)
    agent = trained(name, spaces, num_steps, log_every=10_000, **config)
    assert regret(mdp, agent.action_probabilities(np.arange(mdp.num_states))) < 0.03  # of 0.54; a random policy's is 0.53


def test_blackjack_is_learned():
    def mean_return(agent, num_envs=40, num_steps=60):
        env = gym.vector.SyncVectorEnv([lambda: gym.make("Blackjack-v1")] * num_envs, autoreset_mode=SAME_STEP)
        observation, _ = env.reset(seed=1)
        total, finished = 0.0, 0
        for _ in range(num_steps):
            action, _ = agent.predict(observation, deterministic=True)
            observation, reward, terminated, *_ = env.step(action)
            total, finished = total + reward.sum(), finished + terminated.sum()
        return total / finished

    env = vector_of(lambda: gym.make("Blackjack-v1"))
    spaces = Spaces(env.single_observation_space, env.single_action_space, 1.0)
    learned = trained("monte_carlo", spaces, 12_000, env=env, epsilon=0.2)
    assert mean_return(build("random", spaces)) < -0.3
    assert mean_return(learned) > -0.15


# ---- the learned model


def test_model_based_learns_the_model_and_makes_room_for_successors():
    mdp = random_mdp()
    agent = trained("model_based", simulated_spaces(mdp, 50), 200_000, epsilon=1.0, plan_every=50_000)
    learned = agent.model()
    assert agent.counts.code.shape[2] == 8  # 4 don't hold 7
    assert agent.visits.sum() == 200_000
    alive = ~mdp.terminal
    np.testing.assert_allclose(learned.expected_reward[alive], mdp.expected_reward[alive], atol=0.1)
    difference = learned.transition_matrix() - mdp.transition_matrix()
    rows = np.repeat(alive, mdp.num_actions)
    assert np.abs(difference.toarray()[rows]).max() < 0.05
    assert learned.initial[0] == 1.0


def test_model_based_says_what_it_believes_of_unknown_pairs():
    mdp = random_mdp()
    spaces = simulated_spaces(mdp)
    hopeful = build("model_based", spaces, best_reward=2.0)
    assert hopeful.q == pytest.approx(20.0)
    assert hopeful.model().expected_reward[0, 0] == pytest.approx(20.0)
    staying = build("model_based", spaces, unvisited="self_loop").model()
    assert (staying.next_state == np.repeat(np.arange(12), 3)).all()
    assert not staying.reward.any() and not staying.terminated.any()
    unsure = trained("model_based", spaces, 500, known_after=10**9, best_reward=2.0)
    assert unsure.metrics[-1]["train/known_pairs"] == 0
    assert unsure.q[~mdp.terminal] == pytest.approx(20.0)
    assert not unsure.q[mdp.terminal].any()


# ---- refusals and checkpoints


@pytest.mark.parametrize(
    ("name", "config", "discount", "words"),
    [
        ("sarsa", {"n": 2, "trace_decay": 0.5}, 0.9, "use n=1 or trace_decay=0"),
        ("monte_carlo", {"exploring_starts": True}, 0.9, "exploring_starts=false"),
        ("td", {"policy": "optimal"}, 0.9, "policy is 'optimal'"),
        ("td", {"policy": (0, 1)}, 0.9, "names 2 actions; expected one for each of the 12 states"),
        ("td", {"policy": (0,) * 11 + (3,)}, 0.9, "action 3 in state 11; expected 0 … 2"),
        ("model_based", {}, 1.0, "unvisited='self_loop'"),
        ("model_based", {"unvisited": "self_loop", "planning": "policy_iteration"}, 1.0, "planning='value_iteration'"),
    ],
)
def test_check_refuses_with_the_fix(name, config, discount, words):
    cls, spaces = agent_class(name), stepped_spaces(random_mdp(discount=discount))
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        cls.check(validate(cls.Config, config), spaces)


@pytest.mark.parametrize("name", ["q_learning", "sarsa", "monte_carlo", "td", "model_based"])
def test_check_refuses_spaces_that_are_not_finite(name):
    cls, box, one = agent_class(name), gym.spaces.Box(0, 1, (2,)), gym.spaces.Discrete(2)
    with pytest.raises(ValueError, match="observation space is Box"):
        cls.check(cls.Config(), Spaces(box, one))
    with pytest.raises(ValueError, match="action space is Box"):
        cls.check(cls.Config(), Spaces(one, box))


def test_td_refuses_policies_without_values():
    stuck = FiniteMDP.from_arrays([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0]] * 2], [[1, 1], [0, 0]], discount=1.0, terminal=[1])
    cls = agent_class("td")
    cls.check(cls.Config(policy="optimal"), simulated_spaces(chain(discount=1.0)))
    with pytest.raises(ValueError):
        cls.check(cls.Config(policy=(0, 0)), simulated_spaces(stuck))


RESUMED = [
    ("q_learning", {"epsilon": DECAYING}),
    ("q_learning", {"double": True, "alpha_decay": 0.5}),
    ("sarsa", {}),
    ("sarsa", {"n": 4, "expected": True}),
    ("sarsa", {"trace_decay": 0.9}),
    ("monte_carlo", {}),
    ("monte_carlo", {"visits": "every", "max_episode_length": 5}),
    ("td", {"policy": "uniform"}),
    ("td", {"trace_decay": 0.9, "traces": "replacing", "policy": (1,) * 12}),
    ("model_based", {"plan_every": 40}),
    ("model_based", {"plan_every": 50, "planning": "policy_iteration"}),
    ("model_based", {"planning": "dyna", "known_after": 2}),
]


def assert_equal(one, other, place=""):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_equal(one[key], other[key], f"{place}/{key}")
    else:
        assert np.array_equal(np.asarray(one), np.asarray(other)), place


@pytest.mark.parametrize("simulated", [True, False])
@pytest.mark.parametrize(("name", "config"), RESUMED)
def test_resuming_at_any_yield_changes_nothing(name, config, simulated):
    mdp = random_mdp()
    spaces, num_steps = (simulated_spaces(mdp, 15) if simulated else stepped_spaces(mdp)), 210
    env, other_env = (None, None) if simulated else (table_env(mdp, 15), table_env(mdp, 15))
    through = build(name, spaces, seed=2, log_every=7, **config)
    expected = list(through.train(env, num_steps))
    agent, yields = build(name, spaces, seed=2, log_every=7, **config), []
    while len(yields) < len(expected):  # at every yield a new agent takes over
        yields.append(next(agent.train(other_env, num_steps)))
        agent.predict(np.array([0, 1]), deterministic=False)
        state = copy.deepcopy(agent.state_dict())
        agent = build(name, spaces, seed=9, log_every=7, **config)
        agent.load_state_dict(state)
        if other_env is not None:
            other_env.restored = True
    assert yields == expected
    final = through.state_dict()
    final.pop("predict_rng"), state.pop("predict_rng")
    assert_equal(state, final)


def test_predict_draws_from_its_own_generator_and_obeys_masks():
    agent = build("sarsa", simulated_spaces(random_mdp()), seed=4)
    assert agent.control.predict_rng.random() == generator(4, "predict").random()
    actions, _ = agent.predict(np.zeros(50, np.int64), deterministic=True, action_masks=np.tile([False, True, True], (50, 1)))
    assert set(actions.tolist()) == {1, 2}
