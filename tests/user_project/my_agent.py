"""A user's agent: always the same action."""

from dataclasses import dataclass

import numpy as np


class Constant:
    """Takes one action for ever."""

    @dataclass(frozen=True)
    class Config:
        action: int = 1

    @classmethod
    def check(cls, config, spaces):
        if not 0 <= config.action < spaces.action.n:
            raise ValueError(f"action is {config.action}; expected 0 … {spaces.action.n - 1}")

    def __init__(self, config, spaces, *, seed, encoder=None, device="cpu"):
        self.config = config

    def predict(self, observation, state=None, episode_start=None, deterministic=False, action_masks=None):
        return np.full(len(observation), self.config.action), state

    def train(self, env, num_steps):
        yield num_steps, {}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass
