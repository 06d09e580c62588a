"""Environments and agents seen through a frozen encoder: codes take the place of observations.

    env = EncodeObservation(gymnasium.make("my_project:MyEnv-v0"), "vae.safetensors")      # or of a vector environment

One batched call of the encoder a step, whatever the number of environments; where episodes end, their true last observations
(`infos["final_obs"]`) are part of it. A recurrent encoder's state is kept for each environment and forgotten where an episode
begins, in both autoreset modes. Of a Dict the entry `key` becomes its code, the others stay.

`EncodedAgent` is the other half: an agent that was trained on codes, as one that is given observations.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from mpagents.tabular.simulation import autoreset_mode


class EncodeObservation(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """One environment, or a vector environment (then what is made is an `EncodeVectorObservation`).

    `encoder`: an `Encoder` or the path of one. Raises ValueError where it can't see this environment's observations.
    """

    def __new__(cls, env: Any, encoder: Any) -> Any:
        return EncodeVectorObservation(env, encoder) if isinstance(env, VectorEnv) else super().__new__(cls)

    def __init__(self, env: gym.Env, encoder: Any) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, _disable_deepcopy=True, encoder=encoder)  # so that `env.spec` makes it
        gym.Wrapper.__init__(self, env)
        self.encoder = frozen(encoder)
        self.observation_space = self.encoder.space(env.observation_space)
        self.memory: Any = None  # the recurrent encoder's state

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self.memory = None
        return self._encoded(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, *rest = self.env.step(action)
        return self._encoded(observation), *rest

    def _encoded(self, observation: Any) -> Any:
        leaf = np.asarray(_leaf(self.encoder, observation))[None]
        codes, self.memory = encode_leaf(self.encoder, leaf, self.memory)
        return _beside(self.encoder, observation, codes[0])


class EncodeVectorObservation(VectorWrapper):
    """A vector environment in either autoreset mode."""

    def __init__(self, env: VectorEnv, encoder: Any) -> None:
        super().__init__(env)
        self.encoder = frozen(encoder)
        self.same_step = autoreset_mode(env) == "SameStep"
        self.single_observation_space = self.encoder.space(env.single_observation_space)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self.memory: Any = None  # the recurrent encoder's state of each environment
        self.ended = np.zeros(env.num_envs, np.bool_)  # NEXT_STEP: whose next step only resets
        self.codes: Any = None  # the last ones
        self.seen: Any = None  # what they are of

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        begun = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_)))  # Gymnasium takes it out
        observation, infos = self.env.reset(seed=seed, options=options)
        before, kept = self.memory, self.codes
        self.seen = observation
        self.codes, self.memory = encode(self.encoder, observation, before, begun)
        if not begun.all():  # the others stay where they are: their observation isn't a new one
            self.codes = _mixed(begun, self.codes, kept)
            self.memory = before if before is None else tuple(_mixed(begun, *parts) for parts in zip(self.memory, before))
        self.ended = np.where(begun, False, self.ended)
        return self.codes, infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        observation, reward, terminated, truncated, infos = self.env.step(actions)
        ended = np.asarray(terminated | truncated, np.bool_)
        self.seen = observation
        if self.same_step and ended.any():
            self.codes, infos = self._with_final(observation, ended, infos)
        else:
            self.codes, self.memory = encode(self.encoder, observation, self.memory, self.ended)
        self.ended = np.zeros_like(ended) if self.same_step else ended & ~self.ended
        return self.codes, reward, terminated, truncated, infos

    def _with_final(self, observation: Any, ended: np.ndarray, infos: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Encode what is seen now and, behind it in the same batch, the last observations of episodes that have ended."""
        places, final = np.flatnonzero(ended), infos["final_obs"]
        rows, n = [_row(final, int(i)) for i in places], self.num_envs
        both = np.concatenate([_leaf(self.encoder, observation), np.stack([_leaf(self.encoder, row) for row in rows])])
        memory = self.memory
        if memory is not None:
            index = np.concatenate([np.arange(n), places])
            memory = tuple(part[index] for part in memory)
        first = np.concatenate([ended, np.zeros(len(places), np.bool_)])
        codes, after = encode_leaf(self.encoder, both, memory, first)
        self.memory = None if after is None else tuple(part[:n] for part in after)
        last = np.full(n, None, object)
        for place, i in enumerate(places):
            last[i] = _beside(self.encoder, rows[place], codes[n + place])
        return _beside(self.encoder, observation, codes[:n]), {**infos, "final_obs": last, "_final_obs": ended}

    def progress(self) -> dict[str, Any]:
        """What this wrapper keeps between steps, for a checkpoint."""
        memory = None if self.memory is None else list(self.memory)
        return {"memory": memory, "ended": self.ended.copy(), "codes": self.codes}

    def restore_progress(self, saved: dict[str, Any]) -> None:
        """Stand where `progress` was taken."""
        memory = saved["memory"]
        device = self.encoder.mean.device
        self.memory = None if memory is None else tuple(part.to(device) for part in memory)
        self.ended, self.codes = saved["ended"], saved["codes"]


class EncodedAgent:
    """An agent of codes behind its encoder: `predict` takes observations as the environment gives them.

    `state` is (the recurrent encoder's, the agent's).
    """

    def __init__(self, agent: Any, encoder: Any) -> None:
        self.agent, self.encoder = agent, encoder
        self.config, self.recurrent = agent.config, True  # of a policy with memory no table can be made

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:  # fmt: skip
        memory, own = state if state is not None else (None, None)
        codes, memory = encode(self.encoder, observation, memory, episode_start)
        action, own = self.agent.predict(codes, own, episode_start, deterministic=deterministic, action_masks=action_masks)
        return action, (memory, own)


def player(agent: Any, encoder: Any) -> Any:
    """Who plays by observations as the environment gives them: the agent, behind its encoder where that is frozen."""
    return EncodedAgent(agent, encoder) if encoder is not None and encoder.mode == "frozen" else agent


def frozen(encoder: Any) -> Any:
    """The encoder, or the one in a file. Raises ValueError for one that learns with an agent."""
    from mpagents.encoders import as_encoder

    found = as_encoder(encoder)
    if found.mode != "frozen":
        raise ValueError(
            f"mode is {found.mode!r}: such an encoder is part of an agent's network, make_agent(…, encoder=encoder); around an "
            "environment expected 'frozen'"
        )
    return found


def encode(encoder: Any, observation: Any, memory: Any = None, first: Any = None) -> tuple[Any, Any]:
    """(codes float32 [n, F], in a Dict beside its other entries, state after them) of a batch of observations."""
    codes, memory = encode_leaf(encoder, _leaf(encoder, observation), memory, first)
    return _beside(encoder, observation, codes), memory


def encode_leaf(encoder: Any, leaf: Any, memory: Any = None, first: Any = None) -> tuple[np.ndarray, Any]:
    """The same of a batch of the part that is encoded alone."""
    import torch

    device = encoder.mean.device
    begins = None if first is None else torch.as_tensor(np.asarray(first, np.bool_), device=device)
    with torch.no_grad():
        codes, memory = encoder(torch.from_numpy(np.array(leaf)).to(device), memory, begins)
    return codes.cpu().numpy(), memory


def _leaf(encoder: Any, observation: Any) -> Any:
    return observation if encoder.settings.key is None else observation[encoder.settings.key]


def _beside(encoder: Any, observation: Any, codes: np.ndarray) -> Any:
    """Codes in the place of what they are of."""
    return codes if encoder.settings.key is None else {**observation, encoder.settings.key: codes}


def _row(batch: Any, i: int) -> Any:
    """The i-th of a batch, also where each is an object of its own."""
    return {key: value[i] for key, value in batch.items()} if isinstance(batch, dict) else batch[i]


def _mixed(mask: np.ndarray, new: Any, old: Any) -> Any:
    """Rows of `new` where the mask is true, of `old` elsewhere; arrays or tensors."""
    if isinstance(new, dict):
        return {key: _mixed(mask, new[key], old[key]) for key in new}
    mixed = new.copy() if isinstance(new, np.ndarray) else new.clone()
    mixed[~mask] = old[~mask]
    return mixed
