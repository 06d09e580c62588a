"""Stepping vector environments: true transitions in both autoreset modes, and statistics of finished episodes.

NEXT_STEP: the call after an episode's end only resets; its row is marked invalid and belongs in no buffer, loss or statistic.
SAME_STEP: the observation returned at an end is already the next episode's; the true last one is in `infos["final_obs"]`.
Returns are raw, as the environment pays them. Observations are copied: environments may reuse their buffers.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np

from mpagents.deep.observations import ObservationCodec
from mpagents.seeding import derive
from mpagents.tabular.simulation import WINDOW, autoreset_mode

Stored = dict[str, np.ndarray]


class Transition(NamedTuple):
    """One step of n environments; rows that aren't `valid` are resets."""

    reward: np.ndarray  # float32 [n]
    terminated: np.ndarray  # bool [n]
    truncated: np.ndarray  # bool [n], never together with terminated
    next_obs: Stored  # the true successor of what was observed, before any reset
    valid: np.ndarray  # bool [n]
    next_mask: np.ndarray | None = None  # bool [n, A], the mask of `next_obs` where `info["action_mask"]` is


class Collector:
    """Steps a vector environment for an agent; holds the current observation, and the masks where `info["action_mask"]` is."""

    def __init__(self, codec: ObservationCodec, seed: int) -> None:
        self.codec, self.seed = codec, seed
        self.num_steps = 0  # environment steps taken, resets not counted
        self.obs: Stored = {}  # what the agent sees now, by leaf [n, …]
        self.first = np.zeros(0, np.bool_)  # [n]: an episode begins with `obs`
        self.action_mask: np.ndarray | None = None  # bool [n, A]
        self._resetting, self._some_reset = np.zeros(0, np.bool_), 0  # which, and how many
        self._return, self._length = np.zeros(0), np.zeros(0, np.int64)
        self.returns: deque[float] = deque(maxlen=WINDOW)
        self.lengths: deque[int] = deque(maxlen=WINDOW)
        self.num_episodes = 0
        self._env: Any = None

    def attach(self, env: Any) -> None:
        """Reset an environment that we haven't been stepping, unless it was restored to where we are."""
        if env is self._env:
            return
        self._same_step = autoreset_mode(env) == "SameStep"
        self._env = env
        if getattr(env, "restored", False) and self.obs:
            return
        observation, infos = env.reset(seed=derive(self.seed, "resumed", self.num_steps) if self.num_steps else self.seed)
        n = env.num_envs
        self.obs, self.first = self.codec.store(observation), np.ones(n, np.bool_)
        self._resetting, self._some_reset = np.zeros(n, np.bool_), 0
        self._return, self._length = np.zeros(n), np.zeros(n, np.int64)
        self._take_mask(infos)

    def step(self, action: np.ndarray) -> Transition:
        """Execute `action` [n, …]; afterwards `obs` and `first` tell where the environments stand."""
        observation, reward, terminated, truncated, infos = self._env.step(action)
        valid, ends = ~self._resetting, terminated | truncated
        reward = np.array(reward, np.float32)
        if self._some_reset:
            reward[self._resetting] = 0.0
            ends &= valid
        terminated = terminated & ends
        ended = bool(ends.any())
        self.num_steps += len(valid) - self._some_reset
        self._count(reward, valid, ends if ended else None)
        self.obs = self.codec.store(observation)
        self._take_mask(infos)
        next_obs, next_mask = self.obs, self.action_mask
        if self._same_step:
            if ended:
                next_obs = self._with_final(infos["final_obs"], ends)
                next_mask = self._with_final_mask(infos.get("final_info", {}), ends)
            self.first = ends
        else:
            self.first = self._resetting
            self._resetting, self._some_reset = ends, int(ends.sum()) if ended else 0
        return Transition(reward, terminated, ends & ~terminated, next_obs, valid, next_mask)

    def absorb(self, reward: np.ndarray, ends: np.ndarray, observation: Any) -> None:
        """Take note of steps [T, n] that were taken elsewhere (a compiled rollout), each valid, and of what is seen now."""
        for t in range(len(reward)):
            self._count(reward[t], np.True_, ends[t] if ends[t].any() else None)
        self.num_steps += reward.size
        self.obs, self.first = self.codec.store(observation), ends[-1]

    def _with_final(self, final: Any, ended: np.ndarray) -> Stored:
        replaced = {name: value.copy() for name, value in self.obs.items()}
        for i in np.flatnonzero(ended):
            single = final[i] if not isinstance(final, dict | tuple) else _row(final, int(i))
            for name, value in self.codec.store(_batch_of_one(single)).items():
                replaced[name][i] = value[0]
        return replaced

    def _with_final_mask(self, final: dict[str, Any], ended: np.ndarray) -> np.ndarray | None:
        """The masks after the step, and at an end the true last one; where it isn't told, everything is allowed."""
        if self.action_mask is None:
            return None
        last = np.asarray(final["action_mask"], np.bool_) if "action_mask" in final else np.ones_like(self.action_mask)
        return np.where(ended[:, None], last, self.action_mask)

    def _count(self, reward: np.ndarray, valid: Any, ends: np.ndarray | None) -> None:
        self._return += reward
        self._length += valid
        if ends is None:
            return
        for i in np.flatnonzero(ends):
            self.returns.append(float(self._return[i]))
            self.lengths.append(int(self._length[i]))
            self.num_episodes += 1
        self._return[ends], self._length[ends] = 0.0, 0

    def _take_mask(self, infos: dict[str, Any]) -> None:
        mask = infos.get("action_mask")
        if mask is not None:
            self.action_mask = np.asarray(mask).astype(np.bool_)
        elif self.action_mask is not None:  # not told this time
            self.action_mask = np.ones_like(self.action_mask)

    def metrics(self) -> dict[str, float]:
        """Mean raw return and length of the last episodes; empty before the first has ended."""
        if not self.returns:
            return {}
        return {
            "rollout/ep_rew_mean": float(np.mean(self.returns)),
            "rollout/ep_len_mean": float(np.mean(self.lengths)),
            "rollout/episodes": self.num_episodes,
        }

    def state_dict(self) -> dict:
        arrays = {"first": self.first, "resetting": self._resetting, "return": self._return, "length": self._length}
        return {
            "num_steps": self.num_steps, "num_episodes": self.num_episodes, "obs": dict(self.obs), "mask": self.action_mask,
            "returns": list(self.returns), "lengths": list(self.lengths), **arrays,
        }  # fmt: skip

    def load_state_dict(self, state: dict) -> None:
        self.num_steps, self.num_episodes = state["num_steps"], state["num_episodes"]
        self.obs, self.action_mask = dict(state["obs"]), state["mask"]
        self.returns, self.lengths = deque(state["returns"], maxlen=WINDOW), deque(state["lengths"], maxlen=WINDOW)
        self.first, self._resetting = state["first"], state["resetting"]
        self._some_reset = int(self._resetting.sum())
        self._return, self._length = state["return"].copy(), state["length"].copy()  # they change in place
        self._env = None


def _row(batch: Any, i: int) -> Any:
    if isinstance(batch, dict):
        return {key: _row(value, i) for key, value in batch.items()}
    return tuple(_row(value, i) for value in batch) if isinstance(batch, tuple) else batch[i]


def _batch_of_one(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: _batch_of_one(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_batch_of_one(value) for value in observation)
    return np.asarray(observation)[None]
