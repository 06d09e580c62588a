"""Acting by a policy network: drawing actions for training, and `predict` for everyone else. Agents hold an `Acting`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpagents.deep.collection import Collector
from mpagents.deep.observations import ObservationCodec
from mpagents.deep.policies import Categorical, Gaussian, masked_logits
from mpagents.deep.policy_networks import PolicyValueNetwork, State


class Acting:
    """A network, the head that reads its output, and a generator for `predict` (training's noise is passed in)."""

    def __init__(
        self,
        codec: ObservationCodec,
        head: Categorical | Gaussian,
        network: PolicyValueNetwork,
        seed: int,
        device: torch.device,
    ) -> None:
        self.codec, self.head, self.network, self.device = codec, head, network, device
        self.rng = torch.Generator().manual_seed(seed)

    def choose(self, collector: Collector, state: State, noise: Tensor) -> tuple[np.ndarray, State]:
        """(actions [n, …] as they are kept, next state) where the collector stands, drawn by noise [n, A]."""
        output, state = self._output(collector.obs, collector.first, state, collector.action_mask)
        return self.head.sample(output, noise).cpu().numpy(), state

    def _output(self, stored: dict[str, np.ndarray], first: np.ndarray, state: State, mask: Any) -> tuple[Tensor, State]:
        observation = {name: torch.from_numpy(leaf).to(self.device) for name, leaf in stored.items()}
        output, state = self.network.act(observation, torch.from_numpy(first).to(self.device), state)
        if mask is None:
            return output, state
        return masked_logits(output, torch.from_numpy(np.array(mask, np.bool_)).to(self.device)), state

    @torch.inference_mode()
    def _policy(self, observation: Any, state: Any, episode_start: Any, action_masks: Any) -> tuple[Tensor, State]:
        stored = self.codec.store(observation)
        n = len(next(iter(stored.values())))
        first = np.zeros(n, np.bool_) if episode_start is None else np.array(episode_start, np.bool_)
        before = tuple(torch.tensor(part, device=self.device) for part in state or ()) or self.network.initial_state(n)
        return self._output(stored, first, before, action_masks)

    def predict(
        self, observation: Any, state: Any, episode_start: Any, deterministic: bool, action_masks: Any
    ) -> tuple[np.ndarray, Any]:
        """(actions [n, …] for the environment, state): an LSTM's is (h, c), arrays [n, H], forgotten where `episode_start`."""
        output, after = self._policy(observation, state, episode_start, action_masks)
        if deterministic:
            action = self.head.mode(output)
        else:
            action = self.head.sample(output, self.head.noise((len(output),), self.rng).to(self.device))
        return self.head.for_environment(action.cpu().numpy()), tuple(part.cpu().numpy() for part in after) or state

    def action_probabilities(self, observation: Any, deterministic: bool, action_masks: Any) -> np.ndarray:
        """[n, A] of a softmax policy at an episode's start; `deterministic`: 1 for the likeliest action."""
        assert isinstance(self.head, Categorical)
        output, _ = self._policy(observation, None, None, action_masks)
        if deterministic:
            return np.eye(self.head.num_actions)[self.head.mode(output).cpu().numpy()]
        return output.double().softmax(dim=-1).cpu().numpy()


def training_metrics(metrics: dict[str, Tensor], learning_rate: float, num_steps: int) -> dict[str, Any]:
    """Named as they are logged. Raises FloatingPointError where learning has gone wrong."""
    if "loss" in metrics:
        require_finite(metrics["loss"], num_steps)
    return {f"train/{name}": value for name, value in metrics.items()} | {"train/learning_rate": learning_rate}


def require_finite(loss: Tensor, num_steps: int) -> None:
    """Raise FloatingPointError where a loss is no number any more."""
    if not torch.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss.item()} at step {num_steps}: training has diverged, or a reward or an observation "
            "isn't finite; a smaller learning_rate or max_grad_norm may help"
        )
