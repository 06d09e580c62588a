"""A user's wrapper."""

import gymnasium


class DoubleReward(gymnasium.RewardWrapper):
    def reward(self, reward):
        return 2 * reward
