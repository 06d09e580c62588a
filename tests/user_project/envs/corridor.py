"""A corridor: walk right to the end; every step costs 1. The optimum from the left end is −(length − 1)."""

import gymnasium
from gymnasium.spaces import Discrete


class Corridor(gymnasium.Env):
    def __init__(self, length: int = 5):
        self.length, self.position = length, 0
        self.observation_space, self.action_space = Discrete(length), Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = 0
        return 0, {}

    def step(self, action):
        self.position = max(0, self.position + (1 if action == 1 else -1))
        return self.position, -1.0, self.position == self.length - 1, False, {}
