"""`envs`: one contract over all ids, the dynamics against hand-worked numbers, and the optima that the sources print."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import envs
from envs.finite.environment import FiniteEnv
from envs.finite.gridworld import gridworld
from envs.finite.jacks_car_rental import poisson_up_to
from mpagents.tabular.mdp import FiniteMDP

IDS = sorted(spec.id for spec in gymnasium.registry.values() if str(spec.entry_point).startswith("envs."))
FINITE = [env_id for env_id in IDS if str(gymnasium.spec(env_id).entry_point).startswith("envs.finite.")]
APART = {"WorldModel-v0", "MiniGrid-v0"}  # need a model's file, a package: see test_world_models.py, test_pixel_worlds.py
ALONE = [env_id for env_id in IDS if env_id not in APART]
SMALL_KWARGS = {"JacksCarRental-v0": {"max_cars": 4, "max_moves": 2}}  # its table P would take seconds


def backup(mdp, values):
    """r + γ P v, [S, A]; terminated transitions bootstrap on 0."""
    return mdp.expected_reward + mdp.discount * (mdp.transition_matrix() @ values).reshape(mdp.num_states, mdp.num_actions)


def solve(env_id, policy="optimal"):
    """(mdp, v*, q*) by value iteration, or those of the uniformly random policy."""
    mdp = gymnasium.make(f"envs:{env_id}").unwrapped.mdp
    values = np.zeros(mdp.num_states)
    for _ in range(5000):
        previous, q = values, backup(mdp, values)
        values = q.max(axis=1) if policy == "optimal" else q.mean(axis=1)
        if np.abs(values - previous).max() < 1e-9:
            return mdp, values, backup(mdp, values)
    raise AssertionError(f"{env_id}: no convergence")


def long_run_average(mdp, action):
    """Reward a step of always choosing `action`, from its stationary distribution."""
    rows = np.arange(mdp.num_states) * mdp.num_actions + action
    occupancy = np.linalg.matrix_power(mdp.transition_matrix().toarray()[rows], 10_000)[0]
    return occupancy @ mdp.expected_reward[:, action]


def test_all_ids_are_registered_once_and_without_warnings():
    assert set(envs.ENTRY_POINTS) == set(IDS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(envs)


def test_importing_envs_loads_nothing_heavy():
    code = "import envs, sys; print([m for m in ('numba', 'torch', 'scipy', 'PIL', 'mpagents') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("env_id", ALONE)
def test_env_passes_both_checkers_and_its_spec_travels_as_json(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*-?infinity")  # CartPole's speeds have no bounds
        warnings.filterwarnings("ignore", message=".*minimal resolution for an image is 36x36")  # ours are 32×32
        env = gymnasium.make(f"envs:{env_id}", **SMALL_KWARGS.get(env_id, {}))
        again = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(env.spec.to_json()))
        check_env(env.unwrapped)
        sb3_check_env(env)
    assert again.observation_space == env.observation_space


@pytest.mark.parametrize("env_id", FINITE)
def test_env_table_agrees_with_its_mdp(env_id):
    env = gymnasium.make(f"envs:{env_id}", **SMALL_KWARGS.get(env_id, {})).unwrapped
    rebuilt = FiniteMDP.from_gymnasium(_TableOnly(env), discount=env.mdp.discount)
    sums = [sum(entry[0] for entry in row) for actions in env.P.values() for row in actions.values()]
    np.testing.assert_allclose(sums, 1.0, atol=1e-12)
    np.testing.assert_allclose(rebuilt.transition_matrix().toarray(), env.mdp.transition_matrix().toarray(), atol=1e-15)
    np.testing.assert_allclose(rebuilt.expected_reward, env.mdp.expected_reward, atol=1e-12)
    np.testing.assert_array_equal(rebuilt.terminal, env.mdp.terminal)


class _TableOnly:
    """What toy-text environments show: `P` and `initial_state_distrib`, no `mdp`."""

    def __init__(self, env):
        self.unwrapped, self.P, self.initial_state_distrib = self, env.P, env.initial_state_distrib


@pytest.mark.parametrize("env_id", FINITE)
def test_env_seed_decides_the_episode(env_id):
    def episode(seed):
        env = gymnasium.make(f"envs:{env_id}", **SMALL_KWARGS.get(env_id, {}))
        env.action_space.seed(0)
        steps = [env.reset(seed=seed)[0]]
        for _ in range(30):
            obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            steps.append((obs, reward, terminated, truncated))
            if terminated or truncated:
                steps.append(env.reset()[0])
        return steps

    assert episode(7) == episode(7)
    env = gymnasium.make(f"envs:{env_id}", **SMALL_KWARGS.get(env_id, {}))
    starts = {env.reset(seed=seed)[0] for seed in range(50)}
    assert starts <= set(np.flatnonzero(env.unwrapped.mdp.initial))
    assert len(starts) > 1 or env.unwrapped.mdp.initial.max() == 1.0


@pytest.mark.parametrize("env_id", FINITE)
def test_env_renders_text_and_pictures(env_id):
    text = gymnasium.make(f"envs:{env_id}", render_mode="ansi")
    picture = gymnasium.make(f"envs:{env_id}", render_mode="rgb_array")
    for env in (text, picture):
        env.reset(seed=3)
        env.step(1)
    state, grid_shape = text.unwrapped.s, text.unwrapped.grid_shape
    shown = text.render()
    assert shown.count("@") == 1
    assert f"state {state}, after action {text.unwrapped.action_names[1]}" in shown
    frame = picture.render()
    assert frame.dtype == np.uint8
    assert frame.shape[2] == 3
    if grid_shape is not None:
        assert np.prod(grid_shape) == text.unwrapped.mdp.num_states
        size, (i, j) = frame.shape[0] // grid_shape[0], divmod(state, grid_shape[1])
        assert frame.shape[:2] == (grid_shape[0] * size, grid_shape[1] * size)
        assert shown.splitlines()[i][j] == "@"
        before = frame.copy()
        picture.unwrapped.s = int(picture.unwrapped.mdp.num_states - 1 - state)
        changed = (picture.render() != before).any(axis=2)
        assert changed[i * size : (i + 1) * size, j * size : (j + 1) * size].mean() > 0.2  # the disc went away
        assert changed.sum() < 2 * size * size


def test_env_frequencies_are_those_of_its_table():
    env = gymnasium.make("envs:Garnet-v0", num_states=6, num_actions=2, branching=4, max_episode_steps=30_000).unwrapped
    counts = np.zeros((6, 2, 6))
    state, _ = env.reset(seed=0)
    actions = np.random.default_rng(1).integers(2, size=30_000)
    for action in actions:
        next_state, reward, *_ = env.step(action)
        assert reward == pytest.approx(env.mdp.expected_reward[state, action])
        counts[state, action, next_state] += 1
        state = next_state
    expected = env.mdp.transition_matrix().toarray().reshape(6, 2, 6)
    total = counts.sum(axis=2, keepdims=True)
    error = np.sqrt(expected * (1 - expected) / total)
    assert total.min() > 500
    assert (np.abs(counts / total - expected) <= 4.5 * error).all()  # 4.5 standard errors, and 0 where p = 0


def test_garnet_instance_is_not_drawn_from_the_episode_seed():
    one, other = (gymnasium.make("envs:Garnet-v0") for _ in range(2))
    one.reset(seed=1), other.reset(seed=2)
    np.testing.assert_array_equal(one.unwrapped.mdp.next_state, other.unwrapped.mdp.next_state)
    another = gymnasium.make("envs:Garnet-v0", instance_seed=1)
    assert (another.unwrapped.mdp.reward != one.unwrapped.mdp.reward).any()


def test_gridworld_slips_bumps_portals_and_pays_as_drawn():
    env = gridworld(["S1A", "#Ha"], slip=0.2, step_reward=-1.0, bump_reward=-0.5, rewards={"1": 3.0, "A": 7.0})

    def row(state, action):
        return {(s, terminated): [round(p, 9), round(r, 9)] for p, s, r, terminated in env.P[state][action]}

    up, right, left = 0, 1, 3
    # right from S: 0.8 onto the 1 (−1 + 3); up off the grid and down into the wall, 0.1 each, bump (−1 − 0.5)
    assert row(0, right) == {(1, False): [0.8, 2.0], (0, False): [0.2, -1.5]}
    # up from the 1: 0.8 bump and so stay on the 1 (−1 − 0.5 + 3); 0.1 right onto the portal, 0.1 left onto S (−1)
    assert row(1, up) == {(1, False): [0.8, 1.5], (2, False): [0.1, -1.0], (0, False): [0.1, -1.0]}
    assert all(row(2, a) == {(5, False): [1.0, 6.0]} for a in range(4))  # the portal: −1 + 7
    # left from the portal's exit: into the hole (−1 − 1), which ends it; 0.1 down bumps; 0.1 up onto the portal
    assert row(5, left) == {(4, True): [0.8, -2.0], (5, False): [0.1, -1.5], (2, False): [0.1, -1.0]}
    assert env.mdp.terminal.tolist() == [False, False, False, True, True, False]  # the wall and the hole


def test_sutton_gridworld_has_the_values_of_figures_3_2_and_3_5():
    _, values, _ = solve("SuttonGridWorld-v0")
    figure_3_5 = [
        [22.0, 24.4, 22.0, 19.4, 17.5],
        [19.8, 22.0, 19.8, 17.8, 16.0],
        [17.8, 19.8, 17.8, 16.0, 14.4],
        [16.0, 17.8, 16.0, 14.4, 13.0],
        [14.4, 16.0, 14.4, 13.0, 11.7],
    ]
    np.testing.assert_allclose(values.reshape(5, 5), figure_3_5, atol=0.0501)
    assert values[1] == pytest.approx(10 / (1 - 0.9**5))  # round A → A′ → up, up, up, up → A
    _, values, _ = solve("SuttonGridWorld-v0", policy="random")
    figure_3_2 = [
        [3.3, 8.8, 4.4, 5.3, 1.5],
        [1.5, 3.0, 2.3, 1.9, 0.5],
        [0.1, 0.7, 0.7, 0.4, -0.4],
        [-1.0, -0.4, -0.4, -0.6, -1.2],
        [-1.9, -1.3, -1.2, -1.4, -2.0],
    ]
    np.testing.assert_allclose(values.reshape(5, 5), figure_3_2, atol=0.0501)


def test_small_gridworld_has_the_values_of_figure_4_1():
    _, values, _ = solve("SmallGridWorld-v0", policy="random")
    figure_4_1 = [[0, -14, -20, -22], [-14, -18, -20, -20], [-20, -20, -18, -14], [-22, -20, -14, 0]]
    np.testing.assert_allclose(values.reshape(4, 4), figure_4_1, atol=1e-6)
    _, values, _ = solve("SmallGridWorld-v0")
    np.testing.assert_allclose(values.reshape(4, 4), [[0, -1, -2, -3], [-1, -2, -3, -2], [-2, -3, -2, -1], [-3, -2, -1, 0]])


def test_gambler_wins_with_the_known_probabilities():
    _, values, q = solve("GamblersProblem-v0")
    assert values[[25, 50, 75]] == pytest.approx([0.16, 0.4, 0.64])  # p², p, p + (1 − p) p
    for capital in (12, 51, 97):  # bold play is optimal, if not alone
        assert q[capital, min(capital, 100 - capital) - 1] == pytest.approx(values[capital])
    fair = gymnasium.make("envs:GamblersProblem-v0", p_heads=0.5).unwrapped.mdp
    np.testing.assert_allclose(backup(fair, np.arange(101) / 100)[1:100], np.arange(1, 100)[:, None] / 100 * np.ones(50))


def test_gambler_stakes_no_more_than_there_is_and_than_the_goal_needs():
    table = gymnasium.make("envs:GamblersProblem-v0").unwrapped.P
    assert table[3][49] == [(0.4, 6, 0.0, False), (0.6, 0, 0.0, True)]
    assert table[98][49] == [(0.4, 100, 1.0, True), (0.6, 96, 0.0, False)]
    assert table[98][0] == [(0.4, 99, 0.0, False), (0.6, 97, 0.0, False)]


def test_cliff_and_gridworld_optima_are_their_shortest_ways():
    mdp, values, q = solve("Cliff-v0")
    assert mdp.initial @ values == -13.0
    assert q[36, 1] == -113.0  # right from the start: over the edge, back to the start
    mdp, _, _ = solve("GridWorld-v0")
    values = np.zeros(mdp.num_states)
    for _ in range(50):
        values = backup(mdp.with_discount(1.0), values).max(axis=1)
    assert mdp.initial @ values == pytest.approx(1 - 20 * 0.01)


def test_chain_and_river_swim_earn_their_known_averages():
    mdp, _, q = solve("Chain-v0")
    assert (q.argmax(axis=1) == 0).all()
    assert long_run_average(mdp, action=0) == pytest.approx(3.6768)  # Strens 2000: 3677 in a phase of 1000 steps
    mdp, _, q = solve("RiverSwim-v0")
    assert (q.argmax(axis=1) == 1).all()
    occupancy = np.array([1, 3, 9, 27, 81, 81 * 3 / 7])  # detailed balance: 0.3 up against 0.1 (at the end 0.7) down
    assert long_run_average(mdp, action=1) == pytest.approx(10_000 * 0.3 * occupancy[-1] / occupancy.sum())
    assert long_run_average(mdp, action=0) == 5.0


def test_poisson_up_to_keeps_the_tail_and_the_mean():
    cut = poisson_up_to(3.0, 2)
    assert cut == pytest.approx([np.exp(-3), 3 * np.exp(-3), 1 - 4 * np.exp(-3)])
    assert poisson_up_to(4.0, 60) @ np.arange(61) == pytest.approx(4.0)
    assert poisson_up_to(0.0, 2).tolist() == [1.0, 0.0, 0.0]


def test_car_rental_is_built_fast_and_has_the_policy_of_figure_4_2():
    began = time.perf_counter()
    gymnasium.make("envs:JacksCarRental-v0", rental_reward=9.0)  # another instance than the cached one
    assert time.perf_counter() - began < 2.0
    mdp, values, q = solve("JacksCarRental-v0")
    moves = q.argmax(axis=1).reshape(21, 21) - 5
    assert mdp.expected_reward.shape == (441, 11)
    assert values.max() == values[440] == pytest.approx(637.0, abs=0.1)
    assert values.min() == values[0] == pytest.approx(421.4, abs=0.1)
    assert moves[20].tolist() == [5, 5, 5, 5, 4, 4, 3, 3, 3, 3, 2, 2, 2, 2, 2, 1, 1, 1, 0, 0, 0]
    assert moves[0, 8:].tolist() == [-1, -1, -2, -2, -2, -3, -3, -3, -3, -3, -4, -4, -4]
    assert (moves[10, 8:] == 0).all()


def test_car_rental_clips_moves_to_the_cars_there_are():
    mdp = gymnasium.make("envs:JacksCarRental-v0").unwrapped.mdp
    two_and_none = 2 * 21
    rewards, matrix = mdp.expected_reward[two_and_none], mdp.transition_matrix()[two_and_none * 11 : two_and_none * 11 + 11]
    assert (rewards[:5] == rewards[5]).all()  # the second lot has none to send back
    assert (rewards[8:] == rewards[7]).all()  # the first has two
    assert abs(matrix[[10]] - matrix[[7]]).max() == 0.0
    assert rewards[5] == pytest.approx(10 * poisson_up_to(3.0, 2) @ np.arange(3))


@pytest.mark.parametrize(
    ("env_id", "kwargs", "text"),
    [
        ("GridWorld-v0", {"slip": 1.5}, r"slip is 1\.5; expected a probability"),
        ("GridWorld-v0", {"text_map": "..\n."}, r"lengths \[2, 1\]; expected equal"),
        ("GridWorld-v0", {"text_map": "S?G"}, r"a cell '\?'; expected"),
        ("GridWorld-v0", {"text_map": "SAG"}, r"1 × 'A' and 0 × 'a'; expected a portal"),
        ("GridWorld-v0", {"text_map": "SaG"}, r"0 × 'A' and 1 × 'a'; expected a portal"),
        ("GridWorld-v0", {"text_map": "G#"}, "no cell to start from"),
        ("GridWorld-v0", {"rewards": {"K": 1}}, r"rewards names 'K'; expected cells of the map \(\. G S\)"),
        ("RiverSwim-v0", {"num_states": 2}, "num_states is 2; expected a whole number of at least 3"),
        ("RiverSwim-v0", {"left_reward": float("nan")}, "left_reward is nan; expected a finite number"),
        ("Garnet-v0", {"branching": 31}, "branching is 31; expected at most num_states = 30"),
        ("JacksCarRental-v0", {"requests": [3]}, r"requests is \[3\]; expected two numbers"),
        ("JacksCarRental-v0", {"returns": (3, -1)}, "returns is -1; expected a finite number of at least 0"),
        ("GamblersProblem-v0", {"p_heads": "0.4"}, r"p_heads is '0\.4'; expected a probability"),
        ("Cliff-v0", {"num_columns": 2}, "num_columns is 2; expected a whole number of at least 3"),
        ("Chain-v0", {"num_states": 5.0}, r"num_states is 5\.0; expected a whole number"),
    ],
)
def test_env_refuses_bad_parameters_by_name(env_id, kwargs, text):
    with pytest.raises(ValueError, match=text):
        gymnasium.make(f"envs:{env_id}", **kwargs)


@pytest.mark.parametrize("env_id", FINITE)
def test_env_refuses_unknown_parameters_modes_and_actions(env_id):
    with pytest.raises(TypeError, match="nosuch"):
        gymnasium.make(f"envs:{env_id}", nosuch=1)
    env = gymnasium.make(f"envs:{env_id}").unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded, match="before reset"):
        env.step(0)
    with pytest.raises(ValueError, match=r"render_mode is 'human'; expected one of \['ansi', 'rgb_array'\]"):
        FiniteEnv(env.mdp, render_mode="human")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=f"action is {env.action_space.n}; expected 0 … {env.action_space.n - 1}"):
        env.step(env.action_space.n)


def test_env_changes_only_plain_attributes():
    env = gymnasium.make("envs:Garnet-v0", render_mode="rgb_array").unwrapped
    env.reset(seed=0)
    before = dict(vars(env))
    for action in (0, 1, 2):
        env.step(action)
        env.render()
    changed = {name for name, value in vars(env).items() if value is not before.get(name)}
    assert changed <= {"s", "last_action"}
    json.dumps([env.s, env.last_action])


def test_memory_shows_the_cue_once_and_pays_for_it_at_the_end():
    env = gymnasium.make("envs:Memory-v0", length=3, render_mode="ansi")
    cues = set()
    for seed in range(20):
        cue, _ = env.reset(seed=seed)
        cues.add(cue)
        steps = [env.step(0) for _ in range(3)]
        assert [(observation, reward, terminated) for observation, reward, terminated, *_ in steps] == [
            (2, 0.0, False), (2, 0.0, False), (3, 0.0, False),
        ]  # fmt: skip
        assert env.render() == "LR"[cue] + "..@\n"
        assert env.step(0)[1:3] == (1.0 if cue == 0 else -1.0, True)
    assert cues == {0, 1}
    with pytest.raises(ValueError, match="length is 0; expected"):
        gymnasium.make("envs:Memory-v0", length=0)
