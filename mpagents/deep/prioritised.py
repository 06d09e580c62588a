"""Prioritised replay (Schaul et al. 2016, arXiv:1511.05952): slots drawn with probability P(i) = p_i^α / Σ_k p_k^α.

p_i = |δ_i| + ε, the TD error when the slot was last learned from; a new slot gets the largest p seen, so that it is learned
from soon. Importance weights w_i = (N P(i))^−β / max_k w_k undo the bias as β goes to 1 (the maximum is over the batch).
The sums are kept in a binary tree: node i is the sum of nodes 2i and 2i + 1, leaves are p^α.
"""

from __future__ import annotations

import numpy as np

from mpagents.tabular.compiled import jit


@jit
def set_leaves(tree, slots, values):
    """Put `values` at the leaves `slots` and renew the sums above them."""
    first = tree.size // 2
    for k in range(slots.size):
        node = first + slots[k]
        tree[node] = values[k]
        node //= 2
        while node >= 1:
            tree[node] = tree[2 * node] + tree[2 * node + 1]
            node //= 2


@jit
def find_leaves(tree, masses, slots):
    """For each mass in [0, total): the slot at which the running sum of leaves passes it. Written to `slots`."""
    first = tree.size // 2
    for k in range(masses.size):
        node, mass = 1, masses[k]
        while node < first:
            node *= 2
            if mass >= tree[node] and tree[node + 1] > 0.0:
                mass -= tree[node]
                node += 1
            elif tree[node] <= 0.0:
                node += 1
        slots[k] = node - first


class Priorities:
    """The priorities of a replay's slots; 0 for those that can't be drawn."""

    SMALLEST = 1e-6  # ε, so that nothing is forgotten for good

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self.tree = np.zeros(0)
        self.num_slots = 0
        self.count = 0  # slots that can be drawn
        self.largest = 1.0  # p^α

    def allocate(self, slots: int) -> None:
        self.num_slots, self.count = slots, 0
        self.tree = np.zeros(2 * 2 ** max(1, int(np.ceil(np.log2(slots)))))

    @property
    def leaves(self) -> np.ndarray:
        """p^α by slot, [slots]; a view."""
        first = self.tree.size // 2
        return self.tree[first : first + self.num_slots]

    def add(self, slot: np.ndarray) -> None:
        """New slots [k] at the largest priority."""
        self.count += int((self.leaves[slot] == 0).sum())
        set_leaves(self.tree, slot, np.full(len(slot), self.largest))

    def remove(self, slot: np.ndarray) -> None:
        held = slot[self.leaves[slot] > 0]
        if held.size:
            self.count -= held.size
            set_leaves(self.tree, held, np.zeros(held.size))

    def draw(self, batch_size: int, beta: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(slots int64 [B], importance weights float32 [B]), one from each of B equal parts of the total."""
        total = self.tree[1]
        masses = (np.arange(batch_size) + rng.random(batch_size)) / batch_size * total
        slot = np.empty(batch_size, np.int64)
        find_leaves(self.tree, masses, slot)
        weight = (self.count * self.leaves[slot] / total) ** -beta
        return slot, (weight / weight.max()).astype(np.float32)

    def update(self, slot: np.ndarray, td_error: np.ndarray) -> None:
        """p = |δ| + ε at slots [B]."""
        value = (np.abs(td_error).astype(np.float64) + self.SMALLEST) ** self.alpha
        self.largest = max(self.largest, float(value.max()))
        set_leaves(self.tree, slot, value)

    def state_dict(self) -> dict:
        return {"largest": self.largest, "count": self.count}

    def load_state_dict(self, state: dict) -> None:
        """After the leaves were put back."""
        self.largest, self.count = state["largest"], state["count"]
        first = self.tree.size // 2
        for level_end in (first >> k for k in range(first.bit_length() - 1)):
            below = self.tree[level_end : 2 * level_end]
            self.tree[level_end // 2 : level_end] = below[0::2] + below[1::2]
