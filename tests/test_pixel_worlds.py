"""`envs.pixels`: pixels worked out by hand, what frames tell of the state, the optima, and single against batched."""

from __future__ import annotations

import warnings
from collections import deque

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import envs  # noqa: F401 (registers the ids)
from envs.pixels.cartpole import PixelCartPole, draw
from envs.pixels.catch import BALL_RADIUS, Catch
from envs.pixels.drawing import bar, centres, disc
from envs.pixels.grid import PixelGrid
from envs.pixels.sprites import TARGET_RADIUS, Sprites
from mpagents.environments import EnvironmentSpec, make, make_vector
from mpagents.snapshot import is_exact, restore, snapshot
from mpagents.torch_env import TorchVectorEnv, advance, begin

WORLDS = {"PixelCartPole-v0": PixelCartPole, "Catch-v0": Catch, "PixelGrid-v0": PixelGrid, "Sprites-v0": Sprites}
AT = centres(32, torch.zeros(1))


def uniform(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def centroid(shades):
    """(x, y) [n] in pixels of what is bright in shades [n, H, 32], counted from their first row."""
    shades = shades.float()
    total = shades.sum((1, 2))
    return (shades.sum(1) * AT).sum(1) / total, (shades.sum(2) * AT[: shades.shape[1]]).sum(1) / total


def test_drawing_agrees_with_pixels_worked_out_by_hand():
    assert bar(AT, torch.tensor(1.75), 1.0)[:4].tolist() == [0.25, 1.0, 0.75, 0.0]  # from 0.75 to 2.75
    assert bar(AT, torch.tensor(1.75), 0.1)[:3].tolist() == pytest.approx([0.0, 0.2, 0.0])  # a hair of width 0.2
    drawn = disc(torch.tensor([4.0]), torch.tensor([4.0]), 2.0, 8)[0]
    # (4.5, 5.5): ρ² = 0.25 + 2.25, d = (2.5 − 4)/4 = −0.375; (5.5, 5.5): ρ² = 4.5, d = 0.125; (4.5, 6.5): ρ² = 6.5, d = 0.625
    assert drawn[4:7, 4:6].tolist() == [[1.0, 0.875], [0.875, 0.375], [0.0, 0.0]]
    assert torch.equal(drawn, drawn.T)


@pytest.mark.parametrize(("radius", "most"), [(32 * BALL_RADIUS, 0.01), (32 * TARGET_RADIUS, 0.01), (4.0, 0.01), (1.5, 0.04)])
def test_drawing_covers_the_area_of_a_disc_wherever_it_is(radius, most):
    x, y = 16 + uniform(2, 2000)
    share = disc(x, y, radius, 32).sum((1, 2)).numpy() / (np.pi * radius**2)
    assert abs(share - 1).max() < most
    assert share.mean() == pytest.approx(1.0, abs=0.001)


def test_drawing_covers_the_area_of_bars_and_of_the_slanted_pole():
    centre = 10 + uniform(200, 1)
    for half in (0.2, 0.9, 2.3):
        assert bar(AT, centre, half).sum(1).numpy() == pytest.approx(np.full(200, 2 * half), rel=1e-4)
    poses = torch.stack([2 * uniform(200, 1) - 1, 0.4 * uniform(200, 1, seed=1) - 0.2], dim=2)
    shades = draw(poses, PixelCartPole().sheet)[:, 0]
    cart, pole = 130 * (0.2 * 32) * (0.12 * 32), 255 * (0.07 * 32) * (0.6 * 32)
    assert shades.sum((1, 2)).numpy() == pytest.approx(np.full(200, cart + pole), rel=0.01)


def test_catch_frames_tell_the_state_to_a_fraction_of_a_pixel():
    env = Catch()
    state = (torch.stack([0.1 + 0.8 * uniform(50), *(0.1 + 0.6 * uniform(2, 50, seed=9))], dim=1),)
    frames, truth = env.observe(state)[..., 0], 32 * env.truth(state)
    x, y = centroid(frames[:, :27])  # the ball's rows; the paddle's are below
    assert (torch.stack([x, y], 1) - truth[:, :2]).abs().max() < 0.07
    paddle = (frames[:, 29].float() * AT).sum(1) / frames[:, 29].sum(1)
    assert (paddle - truth[:, 2].clamp(3.2, 32 - 3.2)).abs()[truth[:, 2] > 3.2].max() < 0.03
    assert frames[:, :27].float().sum((1, 2)).div(255).numpy() == pytest.approx(
        np.full(50, np.pi * (32 * BALL_RADIUS) ** 2), rel=0.01
    )


def test_cartpole_frames_tell_position_and_angle():
    physical = torch.tensor([[0.0, 0, 0, 0], [0.6, 0, 0, 0], [0.615, 0, 0, 0], [0.6, 0, 0.1, 0]])
    env = PixelCartPole(stack=1)
    frames = env.observe((physical, physical[:, None, ::2]))[..., 0]
    cart, _ = centroid(frames[:, 25:])  # the rows below the axle
    assert cart.tolist() == pytest.approx([16.0, 20.0, 20.1, 20.0], abs=0.02)  # 32/4.8 pixels a metre
    pole, _ = centroid(frames[:, :24])
    assert (pole - cart)[:3].abs().max() < 0.03
    assert (pole - cart)[3] == pytest.approx(0.6 * 32 / 2 * np.sin(0.1), abs=0.03)  # its middle, half its length up


def test_cartpole_channels_are_the_frames_of_steps_before_and_make_speed_visible():
    noise, shown = uniform(40, 5, 4), []
    env, lone = PixelCartPole(stack=3, stride=3), PixelCartPole(stack=1)
    state, single = env.reset(noise[0]), lone.reset(noise[0])
    for t in range(12):
        frames = env.observe(state)
        shown.append(lone.observe(single)[..., 0])
        for k in range(3):
            assert torch.equal(frames[..., k], shown[max(0, t - 3 * k)])
        action = torch.tensor([0, 1, t % 2, 1, 0])
        state, single = env.step(state, action, noise[t])[0], lone.step(single, action, noise[t])[0]
    moving = torch.tensor([[0.0, 1.0, 0.0, 0.0]])  # 1 m/s to the right
    places = torch.stack([moving[0, :1] - 0.02 * k * moving[0, 1:2] for k in range(7)])  # [7, 1], now first
    state = moving, torch.cat([places, torch.zeros(7, 1)], dim=1)[None]
    x, _ = centroid(env.observe(state)[0].permute(2, 0, 1)[:, 25:])
    assert (x[:-1] - x[1:]).tolist() == pytest.approx([0.4, 0.4], abs=0.03)  # 0.13 pixel a step, three steps apart


def test_cartpole_difference_is_half_of_what_changed_around_the_middle_grey():
    noise = uniform(9, 4, 4)
    stacked, changed = PixelCartPole(stack=2), PixelCartPole(stack=2, difference=True)
    state = stacked.reset(noise[0])
    for t in range(8):
        state, _, _ = stacked.step(state, torch.ones(4, dtype=torch.long), noise[t])
    frames, seen = stacked.observe(state).float(), changed.observe(state)
    expected = 127.5 + (frames[..., 0] - frames[..., 1]) / 2
    assert torch.equal(seen[..., 0].float(), frames[..., 0])
    assert (seen[..., 1] - expected).abs().max() <= 1.0
    assert (seen[..., 1].float() - 127.5).abs().max() > 30


def test_sprites_frames_tell_agent_and_target_and_distractors_only_distract():
    env, distracted = Sprites(distractors=0), Sprites(distractors=4)
    state = env.reset(uniform(50, *env.noise_shape))
    frames = env.observe(state)
    x, y = centroid(frames[..., 0])  # the agent alone is red: the target is green
    assert (torch.stack([x, y], 1) - 32 * env.truth(state)[:, :2]).abs().max() < 0.03
    x, y = centroid(frames[..., 1].float() - frames[..., 0].float())  # without what the agent has of it
    assert (torch.stack([x, y], 1) - 32 * env.truth(state)[:, 2:4]).abs().max() < 0.1  # sums beyond 255 are cut
    noise = uniform(50, *distracted.noise_shape)
    many, few = distracted.reset(noise), env.reset(noise[:, :5])
    for action in range(5):
        taken = torch.full((50,), action)
        many, reward, ended = distracted.step(many, taken, noise)
        few, *same = env.step(few, taken, noise[:, :5])
        assert torch.equal(reward, same[0]) and torch.equal(ended, same[1])
        assert torch.equal(distracted.truth(many)[:, :6], env.truth(few))
        assert ((distracted.observe(many) != env.observe(few)).any(-1).sum((1, 2)) > 40).all()


def test_sprites_bounce_and_their_truth_holds_velocities():
    env = Sprites(distractors=1)
    state = torch.tensor([[0.5, 0.5]]), torch.tensor([[[0.11, 0.3], [0.3, 0.3]]]), torch.tensor([[[-0.02, 0.01], [0.0, 0.02]]])
    (_, places, velocity), _, _ = env.step(state, torch.tensor([0]), torch.zeros(1))
    assert places.flatten().tolist() == pytest.approx([0.11, 0.31, 0.3, 0.32])  # 0.09 is 0.01 beyond the edge
    assert velocity.flatten().tolist() == pytest.approx([0.02, 0.01, 0.0, 0.02])
    truth = env.truth((state[0], places, velocity))[0].tolist()
    assert truth == pytest.approx([0.5, 0.5, 0.11, 0.31, 0.02, 0.01, 0.3, 0.32, 0.0, 0.02])


def test_grid_step_takes_keys_and_opens_doors():
    env = PixelGrid(size=20, cells=5)
    # S . # . .    the agent at 0, its key at 5 below it; the door at 7 in the wall of column 2; the goal at 9
    # k . d . G
    state = (
        torch.tensor([0]),
        torch.tensor([[7]]),
        torch.tensor([[5]]),
        torch.tensor([9]),
        *[torch.zeros(1, 1, dtype=torch.bool)] * 2,
    )
    up, right, down, left = range(4)
    walk = [(up, 0), (left, 0), (right, 1), (right, 1), (down, 6), (right, 6), (left, 5), (right, 6), (right, 7), (up, 7),
            (right, 8), (right, 9)]  # fmt: skip
    for action, cell in walk:
        state, reward, terminated = env.step(state, torch.tensor([action]), torch.zeros(1))
        assert state[0].item() == cell
        assert reward.item() == pytest.approx(0.99 if cell == 9 else -0.01)
        assert terminated.item() == (cell == 9)
    assert env.truth(state)[0].tolist() == [1, 4, 1, 4, 1, 2, 1, 0, 1, 1]


@pytest.mark.parametrize(("cells", "doors"), [(8, 1), (8, 2), (8, 0), (12, 3)])
def test_grid_frames_tell_the_whole_state(cells, doors):
    env = PixelGrid(size=4 * cells, cells=cells, doors=doors)
    state = env.reset(uniform(200, *env.noise_shape))
    for t in range(30):
        state, _, _ = env.step(state, torch.randint(4, (200,), generator=torch.Generator().manual_seed(t)), torch.zeros(1))
    frames, codes = env.observe(state), env.codes(state)
    tiles = frames.view(200, cells, 4, cells, 4, 3).transpose(2, 3).reshape(200, cells, cells, -1)
    table = env.table.flatten(1)
    assert len(table.unique(dim=0)) == len(table)  # every tile looks different
    assert torch.equal(tiles, table[codes])
    agent, goal = (torch.nonzero(codes == code)[:, 1:].float() for code in (3, 2))
    hidden = (state[0] == state[3])[:, None]  # the agent on the goal
    assert torch.equal(agent, env.truth(state)[:, :2])
    assert torch.equal(goal, env.truth(state)[:, 2:4][~hidden[:, 0]])


def shortest(env, state):
    """Steps to the goal, by breadth-first search over (cell, keys held, doors open) with the environment's own step."""
    queue, seen = deque([(state, 0)]), set()
    while queue:
        state, steps = queue.popleft()
        after, _, terminated = env.step(
            tuple(part.repeat(4, *[1] * (part.dim() - 1)) for part in state), torch.arange(4), torch.zeros(1)
        )
        for i in range(4):
            if terminated[i]:
                return steps + 1
            key = (after[0][i].item(), *after[4][i].tolist(), *after[5][i].tolist())
            if key not in seen:
                seen.add(key)
                queue.append((tuple(part[i : i + 1] for part in after), steps + 1))
    return None


def through_rooms(env, state):
    """The next action of a policy that walks a map of distances to its next aim: the key, the door's other side, the goal."""
    agent, doors, keys, goal, held, opened = (part[0].tolist() for part in state)
    side = env.cells
    room = sum(agent % side >= door % side for door in doors)
    aim = goal if room == env.doors else (doors[room] if held[room] else keys[room])
    walls = {row * side + door % side for door in doors for row in range(side)} - {
        d for d, h, o in zip(doors, held, opened) if h or o
    }
    distance, queue = {aim: 0}, deque([aim])
    while queue:
        cell = queue.popleft()
        for near in neighbours(cell, side):
            if near not in distance and near not in walls:
                distance[near] = distance[cell] + 1
                queue.append(near)
    return min(range(4), key=lambda action: distance.get(neighbours(agent, side, off=agent)[action], 10_000))


def neighbours(cell, side, off=None):
    """Up, right, down, left; what lies off the grid is left out, or given as `off`."""
    row, column = divmod(cell, side)
    found = [(row - 1, column), (row, column + 1), (row + 1, column), (row, column - 1)]
    inside = [r * side + c if 0 <= r < side and 0 <= c < side else off for r, c in found]
    return inside if off is not None else [near for near in inside if near is not None]


@pytest.mark.parametrize("doors", [1, 2])
def test_grid_optimum_is_the_shortest_way(doors):
    env = gymnasium.make("envs:PixelGrid-v0", doors=doors)
    world = env.unwrapped.torch_env
    for seed in range(6):
        env.reset(seed=seed)
        steps = shortest(world, env.unwrapped.state)
        total, ended = 0.0, False
        while not ended:
            _, reward, ended, truncated, _ = env.step(through_rooms(world, env.unwrapped.state))
            assert not truncated
            total += reward
        assert total == pytest.approx(1 - 0.01 * steps)
        assert 4 * doors < steps < 60


def play(env_id, policy, num_envs=64, episodes=200, **kwargs):
    """Returns of whole episodes, acting on `info["state"]`."""
    env = gymnasium.make_vec(f"envs:{env_id}", num_envs, vectorization_mode="vector_entry_point", **kwargs)
    _, infos = env.reset(seed=0)
    totals, returns = np.zeros(num_envs), []
    while len(returns) < episodes:
        _, reward, terminated, truncated, infos = env.step(policy(infos["state"]))
        totals += reward
        ended = terminated | truncated
        returns += totals[ended].tolist()
        totals[ended] = 0
    return np.array(returns)


def test_catch_optimum_is_one_always_and_staying_wins_what_the_width_gives():
    follow = play("Catch-v0", lambda s: 1 + np.sign(np.round((s[:, 0] - s[:, 2]) * 16)).astype(int))
    assert (follow == 1).all()
    stay = play("Catch-v0", lambda s: np.ones(len(s), int), episodes=3000)
    assert set(stay) == {-1.0, 1.0}
    assert (stay > 0).mean() == pytest.approx(0.2 / 0.88, abs=0.03)


def test_cartpole_is_balanced_for_500_steps_by_a_linear_controller():
    returns = play("PixelCartPole-v0", lambda s: (s @ [0.1, 0.3, 3.0, 1.0] > 0).astype(int), num_envs=16, episodes=16)
    assert (returns == 500).all()
    assert play("PixelCartPole-v0", lambda s: np.ones(len(s), int), num_envs=8, episodes=8).max() < 12


def test_sprites_target_is_always_caught_by_steering_to_it():
    def steer(s):
        right, down = (s[:, 2] - s[:, 0]), (s[:, 3] - s[:, 1])
        return np.where(np.abs(right) > np.abs(down), np.where(right > 0, 2, 4), np.where(down > 0, 3, 1))

    assert (play("Sprites-v0", steer, episodes=500) == 1).all()
    assert play("Sprites-v0", lambda s: np.zeros(len(s), int), episodes=500).mean() < 0.2


@pytest.mark.parametrize("env_id", WORLDS)
def test_world_passes_both_checkers(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(f"envs:{env_id}", size=40, render_mode="rgb_array")  # SB3 warns of CNNs below 36 pixels
        check_env(env.unwrapped)
        sb3_check_env(env)
    assert env.observation_space.shape[:2] == (40, 40)
    env.reset(seed=0)
    assert env.render().shape == (256, 256, 3) if env_id != "PixelGrid-v0" else env.render().shape[0] >= 256


@pytest.mark.parametrize(("view", "shape"), [("full", (40, 40, 3)), ("partial", (56, 56, 3))])
def test_minigrid_shows_a_level_whole_or_as_the_agent_sees_it_and_tells_the_truth(view, shape):
    pytest.importorskip("minigrid")
    spec = EnvironmentSpec("envs:MiniGrid-v0", kwargs={"view": view, "max_steps": 30})
    env = make(spec, "rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="The system font")  # of pygame, in windows
        check_env(env.unwrapped)
        sb3_check_env(env)
    frame, info = env.reset(seed=0)
    began = info["state"]
    column, row, direction, carrying = began.astype(int)
    assert frame.shape == shape and carrying == 0
    row, column = (6, 3) if view == "partial" else (row, column)
    cell = frame[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
    red = cell[..., 0] > cell[..., 1].astype(int) + 150
    assert 8 < red.sum() < 40  # the agent, a triangle; in its own view it stands in the middle of the lowest line
    _, _, _, _, info = env.step(0)
    assert info["state"].tolist() == [*began[:2], (direction - 1) % 4, 0]
    assert env.render().shape[2] == 3
    vector = make_vector(spec, 2)
    assert vector.reset(seed=0)[1]["state"].shape == (2, 4) and not is_exact(vector)
    with pytest.raises(ValueError, match="view is 'above'; expected 'full' or 'partial'"):
        gymnasium.make("envs:MiniGrid-v0", view="above")
    with pytest.raises(ValueError, match="level is 'CartPole-v1'; expected one of MiniGrid's"):
        gymnasium.make("envs:MiniGrid-v0", level="CartPole-v1")


@pytest.mark.parametrize("env_id", WORLDS)
def test_world_goes_the_same_way_single_and_as_a_vector_of_one(env_id):
    single = gymnasium.make(f"envs:{env_id}", max_episode_steps=30)
    vector = gymnasium.make_vec(f"envs:{env_id}", 1, vectorization_mode="vector_entry_point", max_episode_steps=30)
    assert isinstance(vector, TorchVectorEnv)
    (obs, info), (batch, infos) = single.reset(seed=3), vector.reset(seed=3)
    single.action_space.seed(0)
    ends = 0
    for _ in range(100):
        np.testing.assert_array_equal(batch[0], obs)
        np.testing.assert_array_equal(infos["state"][0], info["state"])
        action = single.action_space.sample()
        obs, reward, terminated, truncated, info = single.step(action)
        batch, *came, infos = vector.step([action])
        assert [part[0] for part in came] == [np.float32(reward), terminated, truncated and not terminated]
        if terminated or truncated:
            ends += 1
            np.testing.assert_array_equal(infos["final_obs"][0], obs)
            np.testing.assert_array_equal(infos["final_info"]["state"][0], info["state"])
            obs, info = single.reset()
    assert ends >= 3
    assert info["state"].dtype == infos["state"].dtype == np.float32
    assert vector.reset(seed=3)[0].tobytes() == gymnasium.make(f"envs:{env_id}").reset(seed=3)[0].tobytes()


@pytest.mark.parametrize("world", WORLDS.values())
def test_world_copies_are_apart_and_a_graph_gives_the_same(world):
    env = world(max_episode_steps=7)
    noise, actions = uniform(20, 2, 4, *env.noise_shape), (uniform(20, 4, seed=1) * env.action.num).long()
    torch.compiler.reset()
    traced = torch.compile(lambda *given: advance(env, *given), backend="eager", fullgraph=True)
    walk, graphed, lone = begin(env, noise[0, 0]), begin(env, noise[0, 0]), begin(env, noise[0, 0, 2:3])
    for drawn, action in zip(noise, actions):
        walk, outcome = advance(env, walk, action, drawn)
        graphed, same = traced(graphed, action, drawn)
        lone, alone = advance(env, lone, action[2:3], drawn[:, 2:3])
        assert all(torch.equal(a, b) for a, b in zip((*outcome, *walk.state), (*same, *graphed.state)))
        assert all(torch.equal(a[2:3], b) for a, b in zip((*outcome, *walk.state), (*alone, *lone.state)))
    assert outcome.next_obs.dtype == torch.uint8


@pytest.mark.parametrize("env_id", WORLDS)
def test_world_vector_info_tells_the_state_of_what_is_seen_and_of_what_ended(env_id):
    env = gymnasium.make_vec(f"envs:{env_id}", 5, vectorization_mode="vector_entry_point", max_episode_steps=9)
    world, ends = env.torch_env, 0
    obs, infos = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(40):
        np.testing.assert_array_equal(infos["state"], world.truth(env.walk.state).numpy())
        np.testing.assert_array_equal(obs, world.observe(env.walk.state).numpy())
        before = env.walk
        action, noise = env.action_space.sample(), env.generator.get_state()
        obs, _, terminated, truncated, infos = env.step(action)
        ended = terminated | truncated
        assert infos["_state"].all()
        assert ("final_obs" in infos) == ("final_info" in infos) == ended.any()
        if ended.any():
            ends += 1
            env.generator.set_state(noise)
            arrived, _, _ = world.step(before.state, torch.as_tensor(action), env.noise(2)[0])
            np.testing.assert_array_equal(infos["final_info"]["state"][ended], world.truth(arrived).numpy()[ended])
            np.testing.assert_array_equal(infos["final_obs"][ended], world.observe(arrived).numpy()[ended])
            np.testing.assert_array_equal(infos["_final_info"], ended)
            assert (obs[ended] != infos["final_obs"][ended]).any(axis=(1, 2, 3)).all()
    assert ends >= 4


@pytest.mark.parametrize("env_id", WORLDS)
def test_world_snapshot_continues_to_the_bit(env_id):
    def made():
        return SyncVectorEnv([lambda: gymnasium.make(f"envs:{env_id}", max_episode_steps=12)] * 2)

    env, other = made(), made()
    env.reset(seed=1)
    env.action_space.seed(2)
    actions = [env.action_space.sample() for _ in range(60)]
    for action in actions[:30]:
        env.step(action)
    restore(other, snapshot(env))
    for action in actions[30:]:
        one, two = env.step(action), other.step(action)
        for a, b in zip(one[:4], two[:4]):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(one[4]["state"], two[4]["state"])


@pytest.mark.parametrize(
    ("env_id", "kwargs", "text"),
    [
        ("Catch-v0", {"size": 15}, "size is 15; expected a whole number of at least 16"),
        ("Catch-v0", {"fall_steps": 1}, "fall_steps is 1; expected"),
        ("PixelCartPole-v0", {"stack": 5}, "stack is 5; expected at most 4: use a larger stride"),
        ("PixelCartPole-v0", {"stride": 0}, "stride is 0; expected"),
        ("PixelGrid-v0", {"size": 36}, "size is 36; expected a multiple of cells = 8, at least 24"),
        ("PixelGrid-v0", {"doors": 3}, "doors is 3; expected at most 2 for 8 × 8 cells"),
        ("Sprites-v0", {"channels": 2}, r"channels is 2; expected 1 \(grey\) or 3"),
        ("Sprites-v0", {"distractors": -1}, "distractors is -1; expected"),
        ("Sprites-v0", {"render_mode": "human"}, "render_mode is 'human'; expected"),
    ],
)
def test_world_refuses_bad_parameters_by_name(env_id, kwargs, text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=text):
            gymnasium.make(f"envs:{env_id}", **kwargs)


def test_world_refuses_a_step_before_reset_and_an_unknown_action():
    env = gymnasium.make("envs:Catch-v0").unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded, match="before reset"):
        env.step(0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action is 3; expected 0 … 2"):
        env.step(3)
    vector = gymnasium.make_vec("envs:Catch-v0", 2, vectorization_mode="vector_entry_point")
    vector.reset(seed=0)
    with pytest.raises(ValueError, match="int64 from -1 to 0; expected integers from 0 to 2"):
        vector.step(np.array([0, -1]))
    with pytest.raises(ValueError, match=r"shape \(3,\); expected \(2,\)"):
        vector.step(np.array([0, 1, 2]))


@pytest.mark.parametrize("env_id", WORLDS)
def test_world_observed_as_its_state_goes_the_same_way(env_id):
    made = [
        gymnasium.make_vec(f"envs:{env_id}", 4, vectorization_mode="vector_entry_point", max_episode_steps=9, observes=observes)
        for observes in ("frame", "state")
    ]
    single = gymnasium.make(f"envs:{env_id}", observes="state")
    assert isinstance(made[1], TorchVectorEnv) and single.observation_space == made[1].single_observation_space
    assert single.reset(seed=4)[0] in single.observation_space
    (_, seen), (state, told) = (env.reset(seed=4) for env in made)
    ends = 0
    for _ in range(30):
        np.testing.assert_array_equal(state, seen["state"])
        np.testing.assert_array_equal(state, told["state"])
        action = made[0].action_space.sample()
        (_, *came, seen), (state, *same, told) = (env.step(action) for env in made)
        np.testing.assert_array_equal(came, same)
        if "final_info" in seen:
            ends += 1
            ended = told["_final_obs"]
            np.testing.assert_array_equal(told["final_obs"][ended], seen["final_info"]["state"][ended])
    assert ends >= 3
    with pytest.raises(ValueError, match="observes is 'truth'; expected 'frame' or 'state'"):
        gymnasium.make(f"envs:{env_id}", observes="truth")
