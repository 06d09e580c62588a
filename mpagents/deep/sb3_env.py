"""A Gymnasium vector environment as Stable-Baselines3 knows vector environments.

Stable-Baselines3 resets an environment within the step that ends its episode, and finds the true last observation and whether
the time limit cut it in `infos`. SAME_STEP does just that; in NEXT_STEP the reset is asked for at once, so that the step which
would only reset never happens, and no buffer sees it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from stable_baselines3.common.vec_env import VecEnv

from mpagents.agents.agent import Spaces
from mpagents.tabular.simulation import autoreset_mode


class SameStepVecEnv(VecEnv):
    """Made from spaces alone, since an agent is; `attach` gives it the environment that it steps."""

    def __init__(self, spaces: Spaces, num_envs: int) -> None:
        self._env: Any = None
        super().__init__(num_envs, spaces.observation, spaces.action)

    def attach(self, env: VectorEnv, seed: int | None) -> bool:
        """Step `env` from now on, its first reset seeded; False where it was attached already."""
        if env is self._env:
            return False
        if env.num_envs != self.num_envs:
            raise ValueError(f"got a vector of {env.num_envs} environments; expected {self.num_envs}, the agent's num_envs")
        self._next_step = autoreset_mode(env) == "NextStep"
        if self._next_step and self.num_envs > 1 and not isinstance(env.unwrapped, SyncVectorEnv | AsyncVectorEnv):
            raise ValueError(
                f"{env} resets its environments in the step after an episode's end, where Stable-Baselines3 can't follow; "
                "make it with autoreset_mode SAME_STEP, or use num_envs=1"
            )
        self._env, self._seed = env, seed
        return True

    def reset(self) -> Any:
        observation, _ = self._env.reset(seed=self._seed)
        self._seed = None
        self._returns, self._lengths = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)
        return _copied(observation)

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = np.asarray(actions, self.action_space.dtype)

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict]]:
        observation, reward, terminated, truncated, infos = self._env.step(self._actions)
        if not np.isfinite(reward).all():
            raise FloatingPointError(f"the environment's reward is {reward}; expected finite numbers")
        self._returns += reward
        self._lengths += 1
        ended = np.asarray(terminated | truncated, np.bool_)
        told: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if ended.any():
            last = observation if self._next_step else infos["final_obs"]
            for i in np.flatnonzero(ended).tolist():
                told[i] = self._ending(i) | {"terminal_observation": _row(last, i)}
                told[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
            if self._next_step:
                observation = self._begin(ended)
        return _copied(observation), np.array(reward, np.float32), ended, told

    def _ending(self, i: int) -> dict[str, Any]:
        """The finished episode's raw return and length, as Stable-Baselines3's Monitor tells them."""
        episode = {"r": float(self._returns[i]), "l": int(self._lengths[i]), "t": 0.0}
        self._returns[i], self._lengths[i] = 0.0, 0
        return {"episode": episode}

    def _begin(self, ended: np.ndarray) -> Any:
        """Begin new episodes in those environments, and leave the others where they are."""
        options = {"reset_mask": ended} if self.num_envs > 1 else None
        return self._env.reset(options=options)[0]

    def close(self) -> None:
        """The environment belongs to whoever made it."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        if attr_name == "render_mode":
            return [None] * self.num_envs
        raise AttributeError(f"{attr_name!r} of single environments can't be reached through a vector environment")

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise AttributeError(f"{attr_name!r} of single environments can't be set through a vector environment")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise AttributeError(f"{method_name!r} of single environments can't be called through a vector environment")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def _copied(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: np.array(value) for key, value in observation.items()}
    return np.array(observation)


def _row(batch: Any, i: int) -> Any:
    """The i-th observation of a batch, or of an array of objects (None where an episode hasn't ended)."""
    if isinstance(batch, dict):
        return {key: np.array(value[i]) for key, value in batch.items()}
    return dict(batch[i]) if isinstance(batch[i], dict) else np.array(batch[i])
