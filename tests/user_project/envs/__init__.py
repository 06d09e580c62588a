"""The user's own `envs`, which has nothing to do with mpagents'."""

import gymnasium

gymnasium.register("Corridor-v0", entry_point="envs.corridor:Corridor", max_episode_steps=50)
