"""Recorded episodes dreamt again, the real frame beside the dreamt one: what a world model gets right, and where it drifts.

The model sees the first rows of a recorded sequence, and from there only its actions. What really followed upon them was
recorded too, so that each frame of the dream has a real one to stand beside.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mpagents.dream import in_colour, spec_of
from mpagents.torch_env import ArraySpec, State

GAP = 1  # pixels of grey between the two frames, before they are enlarged
HEIGHT = 128  # pixels that a picture has at least


class Beside:
    """A `TorchEnv` that follows the recorded actions, whatever is asked of it. An episode ends where its recording does,
    or is cut after `horizon` steps."""

    def __init__(
        self,
        model: Any,
        batch: dict[str, Tensor],
        action: ArraySpec,
        *,
        seen: int = 1,
        temperature: float = 0.0,
        horizon: int | None = None,
    ) -> None:
        """`batch` are sequences as world models are fitted to; `seen` rows are shown to the model before it dreams.

        Raises ValueError for what isn't frames, and where no sequence goes on after `seen` rows.
        """
        if batch["x"].dtype != torch.uint8:
            raise ValueError("the recording holds vectors; only frames can be shown side by side (record with --size)")
        length = batch["mask"].sum(1)
        going_on = length > seen
        if seen < 1 or not going_on.any():
            raise ValueError(f"seen is {seen}; expected at least 1 and fewer than the {int(length.max())} rows of a sequence")
        self.model, self.action, self.temperature, self.seen = model, action, temperature, seen
        self.max_episode_steps = horizon
        self.x, self.led, self.length = batch["x"][going_on], batch["action"][going_on], length[going_on]
        with torch.no_grad():
            states, _ = model.posterior({name: part[going_on, :seen] for name, part in batch.items()})
        self.starts: State = tuple(part[:, -1] for part in states)
        self.noise_shape: tuple[int, ...] = (max(1, model.num_noise),)
        self.observation = spec_of(model.observation(tuple(part[:1] for part in self.starts))[0])

    def reset(self, noise: Tensor) -> State:
        """State: the model's, then the number of the sequence and that of the row, int64 [n]."""
        sequence = (noise[:, 0] * len(self.x)).long()
        return (*(part[sequence] for part in self.starts), sequence, torch.full_like(sequence, self.seen - 1))

    def step(self, state: State, action: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        sequence, row = state[-2], state[-1] + 1
        led = self.led[sequence, row.clamp(max=self.led.shape[1] - 1)]
        after, reward, _ = self.model.imagine(state[:-2], led, noise[:, : self.model.num_noise], self.temperature)
        return (*after, sequence, row), reward, row + 1 >= self.length[sequence]

    def observe(self, state: State) -> Tensor:
        return self.model.observation(state[:-2])

    def render(self, state: State) -> Tensor:
        """Real frame, dreamt frame, uint8 [n, H, W, 3], enlarged where they are small."""
        real, dreamt = self.x[state[-2], state[-1]], self.observe(state)
        pair = torch.cat([real, F.pad(dreamt, (0, 0, GAP, 0), value=128)], dim=2)
        times = max(1, -(-HEIGHT // pair.shape[1]))
        pair = pair.repeat_interleave(times, 1).repeat_interleave(times, 2)
        return in_colour(pair)
