"""Experience replay (Lin 1992; Mnih et al. 2015; notes §10.3): rings of observations, one for each environment.

A slot holds an observation and, if a step was taken from it, the action, the reward and whether that terminated; the next slot
then holds the successor. So every observation is stored once, at the price of one slot an episode for its last one. Of stacked
frames [C, H, W], where each observation repeats C − 1 frames of the one before, a slot holds the newest frame only; an
episode's first C − 1 frames take slots of their own, so that the first stacks come back as they were, however padded.

n-step targets are put together when sampling, with the γᵐ of their actual length m: they stop at an episode's end and at the
write head. Slots are numbered env · length + position; `written` counts all that were ever written, so that a checkpoint can
tell which are new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpagents.deep.collection import Stored, Transition
from mpagents.deep.observations import ObservationCodec
from mpagents.deep.prioritised import Priorities
from mpagents.deep.replay_blocks import in_blocks, parts_of
from mpagents.deep.replay_memory import check_room, stack_size
from mpagents.tabular.compiled import jit

Batch = dict[str, Tensor]


def leaves_of(batch: Batch, prefix: str) -> Batch:
    """The observation in a batch whose leaves are named with a prefix."""
    return {name.removeprefix(prefix): tensor for name, tensor in batch.items() if name.startswith(prefix)}


@jit
def accept_slots(noise, follows, filled, length, num_envs, slots, found):
    """Turn uniform numbers into slots among the first `filled` of each ring, and keep those that a step was taken from.

    Fills `slots` from the place `found` on; returns how many there are then.
    """
    for u in noise:
        if found == slots.size:
            break
        index = int(u * (filled * num_envs))
        slot = index // filled * length + index % filled
        if follows[slot]:
            slots[found] = slot
            found += 1
    return found


@jit
def look_ahead(slots, follows, reward, terminated, length, powers, sums, discounts, after):
    """Σ_{k<m} γᵏ r_k, γᵐ (0 where the last step terminated) and the slot then reached, for m ≤ n steps that follow another."""
    for i in range(slots.size):
        slot, last, m, total = slots[i], slots[i], 0, 0.0
        begin = slot // length * length
        while m < powers.size - 1 and follows[slot]:
            total += powers[m] * reward[slot]
            last, m = slot, m + 1
            slot = begin + (slot + 1 - begin) % length
        sums[i], after[i] = total, slot
        discounts[i] = 0.0 if terminated[last] else powers[m]


class Replay:
    """`size` slots shared evenly among the environments; sampled uniformly, or by priority where `priorities` are given."""

    def __init__(
        self, codec: ObservationCodec, size: int, discount: float, n_step: int = 1, *, frame_stack: bool = True,
        priorities: Priorities | None = None,
    ) -> None:  # fmt: skip
        self.size, self.n_step = size, n_step
        self.stack = {name: stack_size(leaf) if frame_stack else 1 for name, leaf in codec.leaves.items()}
        self.lead = max(self.stack.values()) - 1  # slots before an observation's own that it is read from
        self.powers = discount ** np.arange(n_step + 1)  # γᵏ
        self.priorities = priorities
        self.length = 0  # slots of each environment; 0 before anything was stored
        self.rings: Stored = {}  # by leaf, [size, …]
        self._slots = np.zeros(0, np.int64)  # the slots after those of the last batch

    def allocate(self, obs: Mapping[str, np.ndarray], mask: np.ndarray | None) -> None:
        """Make room for observations like these of n environments. Pages of memory are taken when they are written."""
        n = len(next(iter(obs.values())))
        self.length, self._slots = self.size // n, np.zeros(0, np.int64)
        check_room(self.size, n, self.lead, self.n_step)
        slots = n * self.length
        for name, value in obs.items():
            shape = value.shape[2:] if self.stack[name] > 1 else value.shape[1:]
            self.rings[name] = np.zeros((slots, *shape), value.dtype)
        self.mask = None if mask is None else np.zeros((slots, mask.shape[1]), np.bool_)
        self.action, self.reward = np.zeros(slots, np.int64), np.zeros(slots, np.float32)
        self.terminated, self.follows = np.zeros(slots, np.bool_), np.zeros(slots, np.bool_)  # follows: a step was taken
        self.base = np.arange(n) * self.length
        self.written = np.zeros(n, np.int64)  # slots before the head, ever
        self.open = np.zeros(n, np.bool_)  # the head holds what is observed now
        if self.priorities is not None:
            self.priorities.allocate(slots)

    def add(
        self, obs: Stored, action: np.ndarray, transition: Transition, first: np.ndarray, mask: np.ndarray | None = None
    ) -> None:
        """Store a step of n environments from `obs`, where episodes begin at `first` [n]; resets are left out."""
        if not self.length:
            self.allocate(obs, transition.next_mask if mask is None else mask)  # some tell it from the first step on
        valid = transition.valid
        envs = np.flatnonzero(valid) if not valid.all() else np.arange(len(valid))
        begins = first[envs] | ~self.open[envs]
        if begins.any():
            self._begin(envs[begins], obs, mask)
        slot = self._head(envs)
        self.action[slot], self.reward[slot] = action[envs], transition.reward[envs]
        self.terminated[slot] = transition.terminated[envs]
        self.follows[slot] = True
        if self.priorities is not None:
            self.priorities.add(slot)
        self._check_stacks(envs, obs, transition.next_obs)
        self.written[envs] += 1
        self._write(envs, transition.next_obs, transition.next_mask, -1)
        ended = envs[transition.terminated[envs] | transition.truncated[envs]]
        if ended.size:
            self.written[ended] += 1
            self.open[ended] = False

    def _begin(self, envs: np.ndarray, obs: Stored, mask: np.ndarray | None) -> None:
        self.written[envs[self.open[envs]]] += 1  # an episode that was dropped: its last observation stays, and ends it
        self.open[envs] = True
        for age in range(self.lead, 0, -1):
            self._write(envs, obs, mask, -1 - age)
            self.written[envs] += 1
        self._write(envs, obs, mask, -1)

    def _write(self, envs: np.ndarray, obs: Stored, mask: np.ndarray | None, frame: int) -> None:
        """Put an observation (of stacked frames the one numbered `frame`) at the head, from which no step was taken yet."""
        slot = self._head(envs)
        for name, ring in self.rings.items():
            stack = self.stack[name]
            ring[slot] = obs[name][envs, max(frame, -stack)] if stack > 1 else obs[name][envs]
        if self.mask is not None:
            self.mask[slot] = True if mask is None else mask[envs]
        for ahead in range(self.lead + 1):  # the oldest ones lose the frames that they are read from
            self._forget(self._successor(slot, ahead) if ahead else slot)

    def _forget(self, slot: np.ndarray) -> None:
        self.follows[slot] = False
        if self.priorities is not None:
            self.priorities.remove(slot)

    def _check_stacks(self, envs: np.ndarray, obs: Stored, next_obs: Stored) -> None:
        for name, stack in self.stack.items():
            if stack > 1 and not np.array_equal(obs[name][envs, 1:], next_obs[name][envs, :-1]):
                raise ValueError(
                    f"observations {name!r} [{stack}, H, W] aren't the last {stack} frames, each step dropping the oldest; "
                    "set frame_stack: false to store them whole"
                )

    def _head(self, envs: np.ndarray) -> np.ndarray:
        return self.base[envs] + self.written[envs] % self.length

    def _successor(self, slot: np.ndarray, steps: Any) -> np.ndarray:
        """The slots that many steps later in the same environment's ring; earlier, if negative."""
        position = slot % self.length
        return slot - position + (position + steps) % self.length

    def draw(self, batch_size: int, rng: np.random.Generator) -> np.ndarray:
        """Slots int64 [B] that a step was taken from, uniformly with replacement."""
        slot = np.empty(batch_size, np.int64)
        filled = min(int(self.written.max()), self.length)
        found = 0
        while found < batch_size:
            noise = rng.random(batch_size + 32)
            found = accept_slots(noise, self.follows, filled, self.length, len(self.base), slot, found)
        return slot

    def gather(self, slot: np.ndarray) -> Batch:
        """What stands at slots [B]: obs, action, reward Σ γᵏ r, discount γᵐ (0 after termination), next_obs, next_mask.

        The tensors are the same ones at each call, overwritten.
        """
        if self._slots.shape != slot.shape:
            self._make_batch(slot)
        arrays, after = self._batch, self._slots
        steps = self.follows, self.reward, self.terminated
        look_ahead(slot, *steps, self.length, self.powers, arrays["reward"], arrays["discount"], after)
        np.take(self.action, slot, out=arrays["action"], mode="clip")
        for name, ring in self.rings.items():
            for prefix, at in (("obs.", slot), ("next_obs.", after)):
                np.take(ring, self._frames(name, at), axis=0, out=arrays[prefix + name], mode="clip")
        if self.mask is not None:
            np.take(self.mask, after, axis=0, out=arrays["next_mask"], mode="clip")
        return dict(self._tensors)

    def _make_batch(self, slot: np.ndarray) -> None:
        self._slots = slot.copy()
        read = {name: ring[self._frames(name, slot)] for name, ring in self.rings.items()}
        batch = {"obs." + name: value for name, value in read.items()}
        batch |= {"action": self.action[slot], "reward": self.reward[slot], "discount": self.reward[slot]}
        batch |= {"next_obs." + name: value.copy() for name, value in read.items()}
        if self.mask is not None:
            batch["next_mask"] = self.mask[slot]
        self._batch, self._tensors = batch, {name: torch.from_numpy(value) for name, value in batch.items()}

    def _frames(self, name: str, slot: np.ndarray) -> np.ndarray:
        """The slots that an observation's leaf is read from: [B], or [B, C] of stacked frames."""
        stack = self.stack[name]
        return slot if stack == 1 else self._successor(slot[:, None], np.arange(1 - stack, 1))

    def _arrays(self) -> dict[str, np.ndarray]:
        """Everything that a checkpoint needs of the slots in use, as views [n, filled, …]."""
        arrays = {"ring." + name: ring for name, ring in self.rings.items()}
        arrays |= {name: getattr(self, name) for name in ("action", "reward", "terminated", "follows")}
        if self.mask is not None:
            arrays["mask"] = self.mask
        if self.priorities is not None:
            arrays["priority"] = self.priorities.leaves
        filled = min(int(self.written.max()) + 1, self.length)
        return {
            name: value.reshape(len(self.base), self.length, *value.shape[1:])[:, :filled] for name, value in arrays.items()
        }

    def state_dict(self) -> dict:
        if not self.length:
            return {}
        priorities = None if self.priorities is None else self.priorities.state_dict()
        arrays, blocks = in_blocks(self._arrays(), self.written, self.length)
        told = {"written": self.written.copy(), "open": self.open.copy(), "priorities": priorities}
        return {"arrays": arrays, "blocks": blocks, **told}

    def load_state_dict(self, state: dict) -> None:
        self.length, self.rings = 0, {}
        if not state:
            return
        _, first = next(parts_of(state))
        obs = {name: first["ring." + name][:, 0] for name in self.stack}
        obs = {
            name: np.stack([value] * self.stack[name], axis=1) if self.stack[name] > 1 else value for name, value in obs.items()
        }
        self.allocate(obs, first["mask"][:, 0] if "mask" in first else None)
        self.written, self.open = state["written"].copy(), state["open"].copy()
        views = self._arrays()
        for begin, arrays in parts_of(state):
            for name, value in arrays.items():
                views[name][:, begin : begin + value.shape[1]] = value
        if self.priorities is not None:
            self.priorities.load_state_dict(state["priorities"])
