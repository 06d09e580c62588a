"""Acting by a policy network: drawing actions for training, and `predict` for everyone else. Agents hold an `Acting`."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpagents.deep.collection import Collector, Stored
from mpagents.deep.compiling import graph
from mpagents.deep.flat_parameters import FlatParameters
from mpagents.deep.normalisation import ObservationScale
from mpagents.deep.observations import Observation, ObservationCodec
from mpagents.deep.policies import Categorical, Gaussian, masked_logits
from mpagents.deep.policy_networks import PolicyValueNetwork, State


class Acting:
    """A policy network, the head that reads its output, and a generator for `predict` (training's noise is passed in)."""

    def __init__(
        self, codec: ObservationCodec, head: Categorical | Gaussian, flat: FlatParameters, seed: int, device: torch.device,
        scale: ObservationScale | None = None,
    ) -> None:  # fmt: skip
        self.codec, self.head, self.flat, self.device, self.scale = codec, head, flat, device, scale
        self.network: PolicyValueNetwork = flat.module  # type: ignore[assignment]
        self.rng = torch.Generator().manual_seed(seed)
        self._act: Any = self.act

    def compile(self, key: Hashable, use: bool) -> None:
        """Choose by a compiled graph if `use`; `key` tells all that distinguishes the network and the head."""
        self._act = graph(self.act, ("act", key), use)

    def act(
        self,
        parameters: Tensor,
        observation: Observation,
        first: Tensor,
        state: State,
        masks: tuple[Tensor, ...],
        noise: Tensor,
    ) -> tuple[Tensor, State]:
        """(actions [n, …], next state): what is drawn by noise [n, A] where `masks`, none or one [n, A], allow it."""
        output, state = self.flat.call(self.network.act, parameters, observation, first, state)
        return self.head.sample(masked_logits(output, *masks), noise), state

    def choose(self, collector: Collector, state: State, noise: Tensor) -> tuple[np.ndarray, State]:
        """(actions [n, …] as they are kept, next state) where the collector stands, drawn by noise [n, A]."""
        seen = self._seen(collector.obs, collector.first, collector.action_mask)
        action, state = self._act(self.flat.vector, *seen[:2], state, seen[2], noise)
        return action.cpu().numpy(), state

    def _seen(self, stored: Stored, first: np.ndarray, mask: Any) -> tuple[Observation, Tensor, tuple[Tensor, ...]]:
        """Observation, first and masks as tensors on the device."""
        scaled = stored if self.scale is None else self.scale(stored)
        observation = {name: torch.from_numpy(leaf).to(self.device) for name, leaf in scaled.items()}
        masks = () if mask is None else (torch.from_numpy(np.array(mask, np.bool_, order="C")).to(self.device),)
        return observation, torch.from_numpy(first).to(self.device), masks

    @torch.inference_mode()
    def _policy(self, observation: Any, state: Any, episode_start: Any, action_masks: Any) -> tuple[Tensor, State]:
        stored = self.codec.store(observation)
        n = len(next(iter(stored.values())))
        first = np.zeros(n, np.bool_) if episode_start is None else np.array(episode_start, np.bool_)
        before = tuple(torch.tensor(part, device=self.device) for part in state or ()) or self.network.initial_state(n)
        observation, begins, masks = self._seen(stored, first, action_masks)
        output, after = self.network.act(observation, begins, before)
        return masked_logits(output, *masks), after

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, Any]:  # fmt: skip
        """(actions [n, …] for the environment, state): an LSTM's is (h, c), arrays [n, H], forgotten where `episode_start`."""
        output, after = self._policy(observation, state, episode_start, action_masks)
        if deterministic:
            action = self.head.mode(output)
        else:
            action = self.head.sample(output, self.head.noise((len(output),), self.rng).to(self.device))
        return self.head.for_environment(action.cpu().numpy()), tuple(part.cpu().numpy() for part in after) or state

    def action_probabilities(self, observation: Any, deterministic: bool = True, action_masks: Any = None) -> np.ndarray:
        """[n, A] of a softmax policy at an episode's start; `deterministic`: 1 for the likeliest action."""
        assert isinstance(self.head, Categorical)
        output, _ = self._policy(observation, None, None, action_masks)
        if deterministic:
            return np.eye(self.head.num_actions)[self.head.mode(output).cpu().numpy()]
        return output.double().softmax(dim=-1).cpu().numpy()


def training_metrics(metrics: dict[str, Tensor], learning_rate: float | Tensor, num_steps: int) -> dict[str, Any]:
    """Named as they are logged. Raises FloatingPointError where learning has gone wrong."""
    if "loss" in metrics:
        require_finite(metrics["loss"], num_steps)
    return {f"train/{name}": value for name, value in metrics.items()} | {"train/learning_rate": float(learning_rate)}


def require_finite(loss: Tensor, num_steps: int) -> None:
    """Raise FloatingPointError where a loss is no number any more."""
    if not torch.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss.item()} at step {num_steps}: training has diverged, or a reward or an observation "
            "isn't finite; a smaller learning_rate or max_grad_norm may help"
        )
