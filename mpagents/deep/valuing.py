"""Acting by a network of action values for everyone but its own training. Agents hold a `Valuing`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Discrete
from torch import Tensor

from mpagents.deep.collection import Stored
from mpagents.deep.exploration import epsilon_greedy, epsilon_greedy_probabilities
from mpagents.deep.flat_parameters import FlatParameters
from mpagents.deep.observations import ObservationCodec
from mpagents.seeding import generator


class Valuing:
    """A Q network, the present ε, and a generator for `predict`."""

    def __init__(
        self, codec: ObservationCodec, flat: FlatParameters, action: Discrete, seed: int, device: torch.device
    ) -> None:
        self.codec, self.flat, self.device = codec, flat, device
        self.num_actions, self.first_action = int(action.n), int(action.start)
        self.rng = generator(seed, "predict")
        self.epsilon = 1.0

    def tensors(self, stored: Stored) -> dict[str, Tensor]:
        return {name: torch.from_numpy(leaf).to(self.device) for name, leaf in stored.items()}

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:  # fmt: skip
        """Greedy actions [n]; not `deterministic`: ε-greedy ones with the current ε."""
        q, mask = self.judge(observation, action_masks)
        noise = np.ones((2, len(q))) if deterministic else self.rng.random((2, len(q)))
        return epsilon_greedy(q, self.epsilon, noise, self.num_actions, mask) + self.first_action, state

    def action_probabilities(self, observation: Any, deterministic: bool = True, action_masks: Any = None) -> np.ndarray:
        """[n, A]: 1 for the greedy action; not `deterministic`: of the ε-greedy policy with the current ε."""
        q, mask = self.judge(observation, action_masks)
        return epsilon_greedy_probabilities(q, 0.0 if deterministic else self.epsilon, mask)

    def judge(self, observation: Any, action_masks: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """(Q [n, A], masks [n, A] or None)."""
        with torch.inference_mode():
            q = self.flat(self.flat.vector, self.tensors(self.codec.store(observation))).cpu().numpy()
        return q, None if action_masks is None else np.asarray(action_masks).astype(np.bool_).reshape(q.shape)
