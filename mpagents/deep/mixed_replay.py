"""Two replays as one: a share of each batch comes from real transitions, the rest from imagined ones (Sutton 1990; Janner et
al. 2019, Alg. 2). What is added is imagined; real transitions are added to `real`, as they were observed, and are put through
`see` whenever they are drawn, since a world model that still learns sees them anew.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from mpagents.deep.collection import Stored, Transition
from mpagents.deep.replay import Batch, Replay


class MixedReplay:
    """What an agent asks of a `Replay`. The first `share` of a batch's slots are of `real`, the others of `imagined`."""

    priorities = None

    def __init__(self, imagined: Replay, real: Replay, share: float, see: Callable[[np.ndarray], np.ndarray]) -> None:
        self.imagined, self.real, self.share, self.see = imagined, real, share, see

    def add(
        self, obs: Stored, action: np.ndarray, transition: Transition, first: np.ndarray, mask: np.ndarray | None = None
    ) -> None:
        """An imagined step."""
        self.imagined.add(obs, action, transition, first, mask)

    def draw(self, batch_size: int, rng: np.random.Generator) -> np.ndarray:
        """Slots int64 [B], each of its own replay, uniformly."""
        real = self._num_real(batch_size)
        return np.concatenate([self.real.draw(real, rng), self.imagined.draw(batch_size - real, rng)])

    def gather(self, slot: np.ndarray) -> Batch:
        """What stands at slots [B]."""
        real, parts = self._num_real(len(slot)), []
        if real:
            lived = self.real.gather(slot[:real])
            names = [name for name in lived if name.startswith(("obs.", "next_obs."))]
            parts.append(lived | {name: torch.from_numpy(self.see(lived[name].numpy())) for name in names})
        if real < len(slot):
            parts.append(self.imagined.gather(slot[real:]))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _num_real(self, batch_size: int) -> int:
        return round(self.share * batch_size)

    def state_dict(self) -> dict:
        return {"imagined": self.imagined.state_dict(), "real": self.real.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.imagined.load_state_dict(state["imagined"])
        self.real.load_state_dict(state["real"])
