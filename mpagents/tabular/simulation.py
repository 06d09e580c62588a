"""One stream of experience for compiled learners: simulated from a `FiniteMDP`'s arrays, or handed over by an environment.

A learner is a kernel `learn(world, walk, episodes, rng, …its tables…, num_steps)` that reads like its pseudocode: it calls
`begin`, `take_step` and `finish_step`, whose numbers come from the arrays (tens of nanoseconds a step) or, where an
environment has no arrays, from the transition that `Stream` has just put into the walk. There is one implementation of an
algorithm for both.

An episode that is cut by a time limit ends with `truncated`, which never stops a bootstrap; where an episode is both
terminated and truncated it counts as terminated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mpagents.seeding import derive, generator, generator_state, restore_generator
from mpagents.tabular.compiled import kernel
from mpagents.tabular.mdp import FiniteMDP

NO_LIMIT = np.iinfo(np.int64).max
NOT_CHOSEN = -1  # walk.action before an episode's first action is drawn
WINDOW = 100  # finished episodes that rollout statistics average over

WALK = np.dtype(
    [
        ("num_steps", np.int64),  # environment steps taken
        ("state", np.int64),
        ("action", np.int64),  # the one to be executed in `state`
        ("elapsed", np.int64),  # steps since the episode began
        ("episode_return", np.float64),
        ("num_episodes", np.int64),
        # the last transition's outcome, and the state that the next episode starts in
        ("reward", np.float64),
        ("next_state", np.int64),
        ("terminated", np.bool_),
        ("truncated", np.bool_),
        ("first_state", np.int64),
    ]
)

TRANSITION = np.dtype(
    [("cumulative", np.float64), ("reward", np.float64), ("next_state", np.int32), ("terminated", np.bool_)], align=True
)


class World(NamedTuple):
    """Where transitions come from: an MDP's arrays, or (`simulated` false, arrays empty) an environment."""

    simulated: bool
    num_actions: int
    max_episode_steps: int
    row_start: np.ndarray  # [S·A + 1]
    transitions: np.ndarray  # [N] of TRANSITION: one array, since each array passed to a compiled function costs time
    initial: np.ndarray  # [S], cumulated


class Episodes(NamedTuple):
    """Returns (undiscounted) and lengths of the last finished episodes, as rings [WINDOW]."""

    returns: np.ndarray
    lengths: np.ndarray


@kernel
def begin(world, walk, rng):
    """Start an episode; returns its first state."""
    if world.simulated:
        u = rng.random()
        walk.first_state = np.searchsorted(world.initial, u, side="right")
    walk.state = walk.first_state
    walk.elapsed = 0
    walk.episode_return = 0.0
    return walk.state


@kernel
def draw_transition(row_start, transitions, row, rng):
    """The index of a transition of the pair numbered `row`; a sure outcome costs no random number."""
    first, last = row_start[row], row_start[row + 1] - 1
    if first < last:
        u = rng.random()
        while first < last:
            middle = (first + last) // 2
            if transitions[middle].cumulative > u:
                last = middle
            else:
                first = middle + 1
    return first


@kernel
def take_step(world, walk, rng):
    """Execute `walk.action` in `walk.state`; returns (reward, next state, terminated, truncated)."""
    if world.simulated:
        k = draw_transition(world.row_start, world.transitions, walk.state * world.num_actions + walk.action, rng)
        walk.reward = world.transitions[k].reward
        walk.next_state = world.transitions[k].next_state
        walk.terminated = world.transitions[k].terminated
        walk.truncated = walk.elapsed + 1 >= world.max_episode_steps
    walk.elapsed += 1
    walk.num_steps += 1
    walk.episode_return += walk.reward
    return walk.reward, walk.next_state, walk.terminated, walk.truncated and not walk.terminated


@kernel
def finish_step(walk, episodes):
    """Move on to the next state, where the learner then chooses `walk.action`; True at an episode's end, which is booked."""
    if walk.terminated or walk.truncated:
        slot = walk.num_episodes % episodes.returns.size
        episodes.returns[slot] = walk.episode_return
        episodes.lengths[slot] = walk.elapsed
        walk.num_episodes += 1
        walk.action = NOT_CHOSEN
        return True
    walk.state = walk.next_state
    return False


def world_of(mdp: FiniteMDP | None, max_episode_steps: int | None, num_actions: int) -> World:
    """The arrays that kernels read; empty ones where there is no MDP."""
    if mdp is None:
        row_start, transitions, initial = np.zeros(0, np.int64), np.zeros(0, TRANSITION), np.zeros(0)
        return World(False, num_actions, max_episode_steps or NO_LIMIT, row_start, transitions, initial)
    transitions = np.empty(mdp.next_state.size, TRANSITION)
    for name in TRANSITION.names or ():
        transitions[name] = getattr(mdp, name)
    initial = np.cumsum(mdp.initial)
    initial[np.flatnonzero(mdp.initial)[-1] :] = 1.0  # whatever rounding has left
    return World(True, num_actions, max_episode_steps or NO_LIMIT, mdp.row_start, transitions, initial)


class Stream:
    """A learner's experience: the walk, the last episodes and the generator, and how a kernel is driven along them.

    A learner that can't go on for ever within one episode names its `longest_episode` (steps): there it is truncated.
    """

    def __init__(self, spaces, *, seed: int, longest_episode: int = NO_LIMIT) -> None:
        from mpagents.tabular.states import StateIndex

        self.seed = seed
        self.index = StateIndex(spaces.observation)
        limit = longest_episode if spaces.mdp is None else min(longest_episode, spaces.max_episode_steps or NO_LIMIT)
        self.world = world_of(spaces.mdp, limit, int(spaces.action.n))
        self.first_action = int(spaces.action.start)
        self.rng = generator(seed, "learner")
        self._walk = np.zeros(1, WALK)
        self.walk = self._walk.view(np.recarray)[0]  # the same memory, for kernels
        self.walk.action = NOT_CHOSEN
        self.episodes = Episodes(np.zeros(WINDOW), np.zeros(WINDOW))
        self._env: Any = None

    @property
    def num_steps(self) -> int:
        """Environment steps taken."""
        return int(self._walk["num_steps"][0])

    def advance(self, env, learn: Callable, tables: tuple, num_steps: int) -> None:
        """Take `num_steps` environment steps with `learn(…, *tables, num_steps)`; fewer where that is True (needs room)."""
        if self.world.simulated:
            learn(self.world, self.walk, self.episodes, self.rng, *tables, num_steps)
            return
        self._attach(env)
        asks = learn(self.world, self.walk, self.episodes, self.rng, *tables, 0)  # draws the first action
        for _ in range(num_steps):
            if asks:
                return
            self._step(env)
            asks = learn(self.world, self.walk, self.episodes, self.rng, *tables, 1)

    def _attach(self, env) -> None:
        """Reset an environment that this stream hasn't been stepping, unless it was restored to where the stream is."""
        if env is self._env:
            return
        if env.num_envs != 1:
            raise ValueError(f"a tabular agent learns from one environment; got a vector of {env.num_envs} (use num_envs=1)")
        self._autoreset = autoreset_mode(env)
        self._env = env
        if getattr(env, "restored", False):
            return
        observation, _ = env.reset(seed=derive(self.seed, "resumed", self.num_steps) if self.num_steps else self.seed)
        self.walk.first_state = self.index(observation)[0]
        self.walk.action = NOT_CHOSEN

    def _step(self, env) -> None:
        """Step the environment once and put the outcome into the walk, as the environment's autoreset mode tells it."""
        walk = self.walk
        action = np.array([walk.action + self.first_action])
        observation, reward, terminated, truncated, infos = env.step(action)
        ended = bool(terminated[0] or truncated[0])
        too_long = not ended and walk.elapsed + 1 >= self.world.max_episode_steps
        walk.reward, walk.terminated, walk.truncated = reward[0], terminated[0], truncated[0] or too_long
        last = observation
        if ended and self._autoreset == "SameStep":
            last = _batch_of_one(infos["final_obs"][0])
        walk.next_state = self.index(last)[0]
        if ended and self._autoreset == "NextStep":
            observation, *_ = env.step(action)  # the action is ignored: this call resets
        elif too_long:
            observation, _ = env.reset()
        walk.first_state = self.index(observation)[0]  # read where an episode begins

    def metrics(self) -> dict[str, float]:
        """Mean undiscounted return and length over the last episodes; empty before the first episode has ended."""
        num_episodes = int(self._walk["num_episodes"][0])
        count = min(num_episodes, WINDOW)
        if count == 0:
            return {}
        return {
            "rollout/ep_rew_mean": float(self.episodes.returns[:count].sum()) / count,
            "rollout/ep_len_mean": float(self.episodes.lengths[:count].sum()) / count,
            "rollout/episodes": num_episodes,
        }

    def state_dict(self) -> dict:
        return {
            "walk": {name: self._walk[name][0].item() for name in WALK.names or ()},
            "returns": self.episodes.returns.copy(),
            "lengths": self.episodes.lengths.copy(),
            "rng": generator_state(self.rng),
        }

    def load_state_dict(self, state: dict) -> None:
        for name, value in state["walk"].items():
            self._walk[name] = value
        self.episodes.returns[:] = state["returns"]
        self.episodes.lengths[:] = state["lengths"]
        restore_generator(self.rng, state["rng"])
        self._env = None


def autoreset_mode(env) -> str:
    """'NextStep' or 'SameStep'. Raises ValueError for anything else (gymnasium.vector.AutoresetMode)."""
    mode = env.metadata.get("autoreset_mode")
    value = getattr(mode, "value", mode)
    if value not in ("NextStep", "SameStep"):
        raise ValueError(f"the vector environment's autoreset mode is {mode!r}; expected NEXT_STEP or SAME_STEP")
    return value


def _batch_of_one(observation: Any) -> Any:
    if isinstance(observation, tuple):
        return tuple(np.asarray(part)[None] for part in observation)
    return np.asarray(observation)[None]
