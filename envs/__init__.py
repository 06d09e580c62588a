"""Gymnasium environments of this project; importing the package registers them: `gymnasium.make("envs:RiverSwim-v0")`.

An id's entry point is a function that returns the environment, named by a string: nothing heavy is imported before `make`.
Problems that never end carry a time limit here (`max_episode_steps`), which a study or `make` may replace.
"""

from __future__ import annotations

import gymnasium

# id: (entry point, max_episode_steps)
ENTRY_POINTS: dict[str, tuple[str, int | None]] = {
    "GridWorld-v0": ("envs.finite.gridworld:gridworld", 500),
    "SuttonGridWorld-v0": ("envs.finite.gridworld:sutton_gridworld", 200),
    "SmallGridWorld-v0": ("envs.finite.gridworld:small_gridworld", 200),
    "RiverSwim-v0": ("envs.finite.river_swim:river_swim", 200),
    "Garnet-v0": ("envs.finite.garnet:garnet", 200),
    "JacksCarRental-v0": ("envs.finite.jacks_car_rental:jacks_car_rental", 100),
    "GamblersProblem-v0": ("envs.finite.gambler:gambler", None),
    "Cliff-v0": ("envs.finite.cliff:cliff", 500),
    "Chain-v0": ("envs.finite.chain:chain", 1000),
    "Memory-v0": ("envs.memory:Memory", None),
    "TorchCartPole-v1": ("envs.classic.cartpole:single", 500),
    "LinearQuadratic-v0": ("envs.classic.linear_quadratic:single", 100),
    "WorldModel-v0": ("envs.world_model:single", 50),
    "PixelCartPole-v0": ("envs.pixels.cartpole:single", 500),
    "Catch-v0": ("envs.pixels.catch:single", None),
    "PixelGrid-v0": ("envs.pixels.grid:single", 100),
    "Sprites-v0": ("envs.pixels.sprites:single", 30),
    "MiniGrid-v0": ("envs.pixels.minigrid:single", None),
}
VECTOR_ENTRY_POINTS = {  # stepped as one batch in torch
    "TorchCartPole-v1": "envs.classic.cartpole:vector",
    "LinearQuadratic-v0": "envs.classic.linear_quadratic:vector",
    "WorldModel-v0": "envs.world_model:vector",
    "PixelCartPole-v0": "envs.pixels.cartpole:vector",
    "Catch-v0": "envs.pixels.catch:vector",
    "PixelGrid-v0": "envs.pixels.grid:vector",
    "Sprites-v0": "envs.pixels.sprites:vector",
}

for _id, (_entry_point, _limit) in ENTRY_POINTS.items():
    if _id not in gymnasium.registry:  # a second import (a reload, a copy on another path) registers nothing anew
        _vector = VECTOR_ENTRY_POINTS.get(_id)
        gymnasium.register(_id, entry_point=_entry_point, max_episode_steps=_limit, vector_entry_point=_vector)
