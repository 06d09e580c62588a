"""Stable-Baselines3's algorithms (Raffin et al. 2021, JMLR 22(268)) as agents of a study, beside ours.

Same environments, seeds, discount, evaluation, tags and report; what an algorithm computes is Stable-Baselines3's own: its
`learn` is driven step by step here (`collect_rollouts`, `train`), with schedules over the whole budget, and gives the same
weights to the bit (tested). A budget that isn't a multiple of a rollout is overshot by part of one, as by `learn` itself.

Deviations: global random generators are swapped for the agent's own while it learns, so nothing else's draws change a
run. Resume is `approximate`: networks, optimisers, counts and generators are saved, the replay buffer isn't. After a resume
off-policy algorithms collect as much again as they did before learning, and episodes begin anew. Masks are ignored. An
`encoder` in mode finetune becomes the policy's features extractor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from gymnasium import spaces as gym_spaces

from mpagents.agents.agent import Metrics, Spaces
from mpagents.configuration import PositiveInt
from mpagents.seeding import derive, generator_state, restore_generator

ACTIONS: dict[str, tuple[type[gym_spaces.Space], ...]] = {
    **dict.fromkeys(("A2C", "PPO"), (gym_spaces.Box, gym_spaces.Discrete, gym_spaces.MultiDiscrete, gym_spaces.MultiBinary)),
    **dict.fromkeys(("DDPG", "SAC", "TD3"), (gym_spaces.Box,)),
    "DQN": (gym_spaces.Discrete,),
}
OBSERVATIONS = (gym_spaces.Box, gym_spaces.Discrete, gym_spaces.MultiDiscrete, gym_spaces.MultiBinary)
COUNTS = ("num_timesteps", "_n_updates", "_n_calls", "_episode_num", "_current_progress_remaining", "exploration_rate")


class StableBaselines3:
    """An algorithm of Stable-Baselines3 (A2C, DDPG, DQN, PPO, SAC, TD3) under the same conditions as ours."""

    resume = "approximate"
    autoreset = "SameStep"
    encoder_modes = ("finetune",)

    @dataclass(frozen=True)
    class Config:
        algorithm: Literal["A2C", "DDPG", "DQN", "PPO", "SAC", "TD3"] = "PPO"
        policy: Literal["auto", "MlpPolicy", "CnnPolicy", "MultiInputPolicy"] = "auto"  # auto: as the observations need
        num_envs: PositiveInt = 1
        settings: dict[str, Any] = field(default_factory=dict)  # the algorithm's own keywords, e.g. {n_steps: 128}
        log_every: PositiveInt = 1_000  # environment steps
        device: Literal["auto", "cpu", "cuda"] = "auto"

        def __post_init__(self) -> None:
            from mpagents.deep.sb3_settings import check_keywords

            check_keywords(self.algorithm, self.settings)

    @classmethod
    def check(cls, config: Config, spaces: Spaces) -> None:
        from mpagents.deep.global_randomness import GlobalRandomness

        _check_spaces(config.algorithm, spaces)
        try:
            _build(config, spaces, GlobalRandomness(0), 0, "cpu", trial=True)
        except (AssertionError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"Stable-Baselines3's {config.algorithm} refuses these settings or spaces: {error}") from error

    def __init__(self, config: Config, spaces: Spaces, *, seed: int, encoder: Any = None, device: str = "cpu") -> None:
        from mpagents.deep.global_randomness import GlobalRandomness

        self.config, self.spaces, self._seed = config, spaces, seed
        self._randomness, self._predict_randomness = GlobalRandomness(seed), GlobalRandomness(derive(seed, "predict"))
        self.model, self._env = _build(config, spaces, self._randomness, derive(seed, "sb3"), device, encoder=encoder)
        self._learn_from = 0  # environment steps: after a resume, when the replay buffer is filled again

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:  # fmt: skip
        """As Stable-Baselines3's; its algorithms were trained without masks, and act without them."""
        if deterministic:
            return self.model.predict(observation, state, episode_start, deterministic=True)
        with self._predict_randomness:
            return self.model.predict(observation, state, episode_start, deterministic=False)

    def train(self, env: Any, num_steps: int) -> Iterator[tuple[int, Metrics]]:
        model = self.model
        if model.num_timesteps >= num_steps:
            return
        if self._env.attach(env, self._reset_seed(env)):
            model._last_obs = None
        with self._randomness:
            fresh = model.num_timesteps == 0
            _, callback = model._setup_learn(num_steps - model.num_timesteps, reset_num_timesteps=fresh)
            callback.on_training_start({}, {})
        while model.num_timesteps < num_steps:
            mark = min(num_steps, (model.num_timesteps // self.config.log_every + 1) * self.config.log_every)
            with self._randomness:
                while model.num_timesteps < mark:
                    self._iterate(callback, num_steps)
            yield model.num_timesteps, self._metrics()

    def _reset_seed(self, env: Any) -> int | None:
        """The trial's at first; later episodes of a restored environment go on, and others have a seed of their own."""
        if self.model.num_timesteps == 0:
            return self._seed
        return None if getattr(env, "restored", False) else derive(self._seed, "resume", self.model.num_timesteps)

    def _iterate(self, callback: Any, num_steps: int) -> None:
        """One iteration of Stable-Baselines3's `learn`: collect, then update."""
        model = self.model
        if hasattr(model, "rollout_buffer"):
            model.collect_rollouts(model.env, callback, model.rollout_buffer, n_rollout_steps=model.n_steps)
            model._update_current_progress_remaining(model.num_timesteps, num_steps)
            model.train()
            return
        rollout = model.collect_rollouts(
            model.env, callback, model.train_freq, model.replay_buffer, action_noise=model.action_noise,
            learning_starts=model.learning_starts, log_interval=None,
        )  # fmt: skip
        if model.num_timesteps > max(model.learning_starts, self._learn_from):
            updates = model.gradient_steps if model.gradient_steps >= 0 else rollout.episode_timesteps
            if updates > 0:
                model.train(batch_size=model.batch_size, gradient_steps=updates)

    def _metrics(self) -> dict[str, float]:
        """What Stable-Baselines3 has recorded, and its means over the last episodes."""
        recorded, episodes = self.model.logger.name_to_value, self.model.ep_info_buffer
        metrics = {name: value for name, value in recorded.items() if name.startswith(("train/", "rollout/"))}
        recorded.clear()
        if not np.isfinite(metrics.get("train/explained_variance", 0.0)):
            del metrics["train/explained_variance"]  # of constant returns, where it means nothing
        if episodes:
            metrics["rollout/ep_rew_mean"] = float(np.mean([episode["r"] for episode in episodes]))
            metrics["rollout/ep_len_mean"] = float(np.mean([episode["l"] for episode in episodes]))
        return metrics

    def state_dict(self) -> dict:
        model = self.model
        episodes = [[episode["r"], episode["l"]] for episode in model.ep_info_buffer or ()]
        return {
            "parameters": _portable(model.get_parameters()),
            "variables": _portable({name: getattr(model, name) for name in model._get_torch_save_params()[1]}),
            "counts": {name: getattr(model, name) for name in COUNTS if hasattr(model, name)},
            "episodes": episodes,
            "randomness": self._randomness.state_dict(),
            "actions": generator_state(model.action_space.np_random),
        }

    def load_state_dict(self, state: dict) -> None:
        model = self.model
        model.set_parameters(_with_numbers(state["parameters"]), device=model.device)
        for name, value in state["variables"].items():
            getattr(model, name).data.copy_(value)
        for name, value in state["counts"].items():
            setattr(model, name, value)
        episodes = [{"r": r, "l": length, "t": 0.0} for r, length in state["episodes"]]
        model.ep_info_buffer = deque(episodes, maxlen=model._stats_window_size)
        model.ep_success_buffer = deque(maxlen=model._stats_window_size)
        model._last_obs = None
        self._learn_from = model.num_timesteps + min(getattr(model, "learning_starts", 0), model.num_timesteps)
        self._randomness.load_state_dict(state["randomness"])
        restore_generator(model.action_space.np_random, state["actions"])


def _check_spaces(algorithm: str, spaces: Spaces) -> None:
    if not isinstance(spaces.action, ACTIONS[algorithm]):
        wanted = " or ".join(kind.__name__ for kind in ACTIONS[algorithm])
        raise ValueError(f"action space is {spaces.action}; Stable-Baselines3's {algorithm} needs {wanted}")
    observation = spaces.observation
    parts = list(observation.spaces.values()) if isinstance(observation, gym_spaces.Dict) else [observation]
    if not all(isinstance(part, OBSERVATIONS) for part in parts):
        wanted = ", ".join(kind.__name__ for kind in OBSERVATIONS)
        raise ValueError(f"observation space is {observation}; Stable-Baselines3 needs {wanted}, or a flat Dict of them")
    if any(np.any(getattr(part, "start", 0)) for part in (*parts, spaces.action)):
        raise ValueError(f"spaces are {observation} and {spaces.action}; Stable-Baselines3 needs numbers from 0 (no `start`)")


def _build(
    config: StableBaselines3.Config, spaces: Spaces, randomness: Any, seed: int, device: str, trial: bool = False,
    encoder: Any = None,
) -> tuple[Any, Any]:  # fmt: skip
    """(model, the environment that it steps); a `trial` one has no replay buffer to speak of."""
    import stable_baselines3

    from mpagents.deep.sb3_env import SameStepVecEnv
    from mpagents.deep.sb3_settings import keywords, policy_for

    arguments = keywords(config.settings, spaces.action)
    if trial and config.algorithm not in ("A2C", "PPO"):
        arguments["buffer_size"] = config.num_envs
    if encoder is not None:
        from mpagents.sb3_extractor import EncoderExtractor

        extractor = {"features_extractor_class": EncoderExtractor, "features_extractor_kwargs": {"encoder": encoder}}
        arguments["policy_kwargs"] = {**arguments.get("policy_kwargs", {}), **extractor}
    policy = policy_for(spaces.observation) if config.policy == "auto" else config.policy
    env = SameStepVecEnv(spaces, config.num_envs)
    algorithm = getattr(stable_baselines3, config.algorithm)
    with randomness:
        model = algorithm(policy, env, seed=seed, device=device, gamma=spaces.discount, verbose=0, **arguments)
    return model, env


def _portable(value: Any) -> Any:
    """Copies, under keys of text, of what optimisers and networks call their state."""
    if isinstance(value, dict):
        return {str(key): _portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_portable(item) for item in value)
    return value.detach().clone() if hasattr(value, "detach") else value


def _with_numbers(parameters: dict) -> dict:
    """Optimisers number their parameters: the keys under `state` as numbers again."""
    numbered = {}
    for name, values in parameters.items():
        numbered[name] = dict(values)
        if name.endswith("optimizer"):
            numbered[name]["state"] = {int(key): dict(item) for key, item in values["state"].items()}
    return numbered
