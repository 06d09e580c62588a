"""`Planner`: what the planning agents share. They differ in their sweeps alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mpagents.seeding import generator, generator_state, restore_generator
from mpagents.tabular.bellman import action_values
from mpagents.tabular.exploration import epsilon_greedy_probabilities, sample_actions
from mpagents.tabular.planning import Sweep


class Planner:
    """Plans on `spaces.mdp`, acts greedily with ties averaged; its training counts sweeps, not environment steps."""

    planner = True

    @classmethod
    def check(cls, config: Any, spaces: Any) -> None:
        if spaces.mdp is None:
            raise ValueError(
                "a planner needs the environment's transition table (`P`, numbered states, no wrapper but a time limit); "
                "use a learning agent here"
            )

    def __init__(self, config: Any, spaces: Any, *, seed: int, encoder: Any = None, device: str = "cpu") -> None:
        self.config, self.mdp = config, spaces.mdp
        self.q = np.zeros((self.mdp.num_states, self.mdp.num_actions))
        self.num_sweeps = 0
        self.predict_rng = generator(seed, "predict")

    def sweeps(self) -> Iterator[Sweep]:
        """The planner's own sweeps, to the end."""
        raise NotImplementedError

    def state_values(self) -> np.ndarray:
        """max_a q(s, a), [S]."""
        return self.q.max(axis=1)

    def action_probabilities(self, observation: Any, deterministic: bool = True, action_masks: Any = None) -> np.ndarray:
        """The greedy policy [B, A], uniform over ties."""
        return epsilon_greedy_probabilities(self.q[np.asarray(observation, np.int64)], 0.0, action_masks)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:  # fmt: skip
        probabilities = self.action_probabilities(observation, deterministic, action_masks)
        return sample_actions(probabilities, self.predict_rng), state

    def train(self, env: Any, num_steps: int) -> Iterator[tuple[int, dict[str, float]]]:
        """Plan to the end, whatever `num_steps`; yields (sweeps so far, planning/…), ever more rarely."""
        if self.num_sweeps:
            return
        told = 0
        for sweep in self.sweeps():
            if sweep.number > 1.05 * told:
                told = sweep.number
                yield sweep.number, self._metrics(sweep)
        self.q = action_values(self.mdp, sweep.values)
        self.num_sweeps = sweep.number
        yield sweep.number, self._metrics(sweep)

    def _metrics(self, sweep: Sweep) -> dict[str, float]:
        metrics = {"planning/residual": sweep.residual, "planning/value": float(self.mdp.initial @ sweep.values)}
        return metrics | ({"planning/bound": sweep.bound} if np.isfinite(sweep.bound) else {})

    def state_dict(self) -> dict:
        return {"q": self.q, "num_sweeps": self.num_sweeps, "predict_rng": generator_state(self.predict_rng)}

    def load_state_dict(self, state: dict) -> None:
        self.q, self.num_sweeps = state["q"].copy(), state["num_sweeps"]
        restore_generator(self.predict_rng, state["predict_rng"])
