"""Rollouts: T steps of n environments in preallocated arrays, seen as tensors without a copy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from mpagents.deep.acting import Acting
from mpagents.deep.collection import Collector, Transition
from mpagents.deep.normalisation import ObservationScale
from mpagents.deep.policy_networks import State

Batch = dict[str, Any]  # tensors [T, n, …]; "obs" and "next_obs" by leaf


class Rollout:
    """Writes transitions row by row; rows not written are not valid. `next_obs` is the true successor, before any reset."""

    def __init__(self, collector: Collector, num_steps: int, action: np.ndarray) -> None:
        """For `num_steps` steps from where the collector stands; `action` [n, …] shows the actions' shape and type."""
        n = len(collector.first)

        def empty(like: np.ndarray) -> np.ndarray:
            return np.zeros((num_steps, *like.shape), like.dtype)

        self.obs = {name: empty(value) for name, value in collector.obs.items()}
        self.next_obs = {name: empty(value) for name, value in collector.obs.items()}
        self.action = empty(action)
        self.reward = np.zeros((num_steps, n), np.float32)
        self.flags = {name: np.zeros((num_steps, n), np.bool_) for name in ("first", "terminated", "truncated", "valid")}
        self.mask = None if collector.action_mask is None else empty(collector.action_mask)

    def clear(self) -> None:
        """No row is valid any more."""
        self.flags["valid"][:] = False

    def write_observation(self, t: int, collector: Collector) -> None:
        """What the agent sees before step t."""
        for name, value in collector.obs.items():
            self.obs[name][t] = value
        self.flags["first"][t] = collector.first
        if collector.action_mask is not None:
            if self.mask is None:  # told from here on
                self.mask = np.ones((len(self.reward), *collector.action_mask.shape), np.bool_)
            self.mask[t] = collector.action_mask

    def write_transition(self, t: int, action: np.ndarray, transition: Transition) -> None:
        self.action[t] = action
        self.reward[t] = transition.reward
        for name, value in transition.next_obs.items():
            self.next_obs[name][t] = value
        flags = self.flags
        flags["terminated"][t] = transition.terminated
        flags["truncated"][t] = transition.truncated
        flags["valid"][t] = transition.valid

    def fill(self, collector: Collector, acting: Acting, state: State, noise: torch.Tensor, num_steps: int) -> State:
        """Steps by noise [T, n, A], or fewer where the collector has come to `num_steps`; the state after them."""
        self.clear()
        with torch.inference_mode():
            for t in range(len(noise)):
                if collector.num_steps >= num_steps:
                    self._pad(t, collector)
                    break
                self.write_observation(t, collector)
                action, state = acting.choose(collector, state, noise[t])
                self.write_transition(t, action, collector.step(acting.head.for_environment(action)))
        return tuple(part.clone() for part in state)  # learning can't take inference tensors

    def _pad(self, t: int, collector: Collector) -> None:
        """Observations from row t on, which networks are given though they don't count: zeros aren't in every space."""
        for name, value in collector.obs.items():
            self.obs[name][t:] = self.next_obs[name][t:] = value

    def tensors(
        self, device: torch.device | str = "cpu", length: int | None = None, scale: ObservationScale | None = None
    ) -> Batch:
        """The rollout, or its first `length` rows, observations scaled, on a device, one transfer an array."""
        obs, next_obs = (self.obs, self.next_obs) if scale is None else (scale(self.obs), scale(self.next_obs))
        arrays: Batch = {"obs": obs, "next_obs": next_obs, "action": self.action, "reward": self.reward, **self.flags}
        if self.mask is not None:
            arrays["mask"] = self.mask
        return _map(lambda array: torch.from_numpy(array[:length]).to(device), arrays)


def masks_of(batch: Batch) -> tuple[torch.Tensor, ...]:
    """The batch's masks [T, n, A], one or none."""
    return (batch["mask"],) if "mask" in batch else ()


def as_columns(batch: Batch) -> Batch:
    """[T, n, …] → [1, T·n, …]: without a state, the order of rows doesn't matter."""
    return _map(lambda x: x.flatten(0, 1).unsqueeze(0), batch)


def successors(batch: Batch, states: State) -> tuple[dict[str, torch.Tensor], torch.Tensor, State]:
    """What a network takes to value each `next_obs`: sequences of one step [1, T·n, …] after `states` [T, n, H]."""
    next_obs = {name: leaf.flatten(0, 1).unsqueeze(0) for name, leaf in batch["next_obs"].items()}
    within = torch.zeros_like(batch["first"]).reshape(1, -1)  # a successor continues its episode
    return next_obs, within, tuple(part.flatten(0, 1) for part in states)


def minibatches(batch: Batch, state: State, number: int, generator: torch.Generator) -> Iterator[tuple[Batch, State]]:
    """A random partition of the columns of a batch [T, n, …], whole in time, with the states [n, H] that they begin in."""
    if number == 1:
        yield batch, state
        return
    first = batch["first"]
    order = torch.randperm(first.shape[1], generator=generator).to(first.device)
    for index in order.tensor_split(number):
        part = _map(lambda x, index=index: x[:, index], batch)
        yield part, tuple(leaf[index] for leaf in state)


def _map(function: Any, batch: Batch) -> Batch:
    return {key: _map(function, value) if isinstance(value, dict) else function(value) for key, value in batch.items()}
