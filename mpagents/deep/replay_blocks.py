"""A replay's arrays for a checkpoint: where they are large, in blocks that the next checkpoint needn't write again.

What only the write head changes (observations, actions, rewards, ends) is cut along the rings. A block's name counts what was
written into it, so it is the same where nothing was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mpagents.results.state_tree import Block

BLOCK_BYTES = 2**26  # of a block; a smaller replay is written whole
CHANGING = "follows", "priority"  # change anywhere


def in_blocks(arrays: Mapping[str, np.ndarray], written: np.ndarray, length: int) -> tuple[dict[str, np.ndarray], list[Block]]:
    """(arrays [n, filled, …] to be written each time, the others in blocks) of n rings of `length` slots.

    `written` int64 [n]: slots before each ring's head, ever.
    """
    steady = {name: array for name, array in arrays.items() if name not in CHANGING}
    total, filled = sum(array.nbytes for array in steady.values()), arrays["action"].shape[1]
    if total <= BLOCK_BYTES:
        return dict(arrays), []
    width = max(1, BLOCK_BYTES * filled // total)
    blocks = []
    for begin in range(0, filled, width):
        name = f"{begin}.{_version(begin, min(begin + width, length), written, length)}"
        blocks.append(Block(name, {key: array[:, begin : begin + width] for key, array in steady.items()}))
    return {name: array for name, array in arrays.items() if name in CHANGING}, blocks


def _version(begin: int, end: int, written: np.ndarray, length: int) -> str:
    """Another one whenever the head has written into slots [begin, end): how many it closed, ever, and whether one is open."""
    rounds, head = np.divmod(written, length)
    closed = rounds * (end - begin) + np.clip(head - begin, 0, end - begin)
    inside = (head >= begin) & (head < end)
    return hashlib.sha256(np.stack([closed, inside]).astype(np.int64).tobytes()).hexdigest()[:16]


def parts_of(state: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
    """(first slot, arrays [n, …] from there on) of what `in_blocks` made, one part at a time."""
    begin = 0
    for block in state.get("blocks", ()):
        arrays = block.read()
        yield begin, arrays
        begin += arrays["action"].shape[1]
    yield 0, state["arrays"]
