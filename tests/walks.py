"""A world small enough to know by heart, for world models: a mark that goes left or right, as the action says."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from generative.model import Batch

CELLS = 8


@dataclass(frozen=True)
class Walk:
    """Sequences of a mark at p of 0 … 7: action 0 leads to p − 1, 1 to p + 1. The reward is p/7, and an end at 0 and at 7.

    Seen as the frame [8, 8, 1] whose column p is white, or as the vector (p − 3.5)/2. Sequences begin in 2 … 5, and are padded
    from the step after an end on. With `late`, the first step of each is within an episode already.
    """

    num_steps: int = 6
    frames: bool = True
    late: bool = False

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        device = generator.device
        start = torch.randint(2, 6, (n, 1), generator=generator, device=device)
        action = torch.randint(0, 2, (n, self.num_steps), generator=generator, device=device)
        moves = (2 * action - 1).clone()
        moves[:, 0] = 0
        place = start + moves.cumsum(1)
        terminated = (place <= 0) | (place >= CELLS - 1)
        ended = torch.cat([torch.zeros_like(terminated[:, :1]), terminated.cummax(1).values[:, :-1]], 1)
        place = place.clamp(0, CELLS - 1)
        first = torch.zeros_like(terminated)
        first[:, 0] = not self.late
        one_hot = torch.nn.functional.one_hot(action, 2).float()
        return {
            "x": seen(place, self.frames), "action": one_hot, "reward": place / (CELLS - 1),
            "terminated": terminated, "first": first, "mask": ~ended,
        }  # fmt: skip


def seen(place: torch.Tensor, frames: bool = True) -> torch.Tensor:
    """Frames [..., 8, 8, 1] or vectors [..., 1] of places [...]."""
    if not frames:
        return (place[..., None] - 3.5) / 2
    columns = (torch.arange(CELLS, device=place.device) == place[..., None]).to(torch.uint8) * 255  # [..., 8]
    return columns[..., None, :, None].expand(*place.shape, CELLS, CELLS, 1).contiguous()


def told(x: torch.Tensor) -> torch.Tensor:
    """The place that a frame [..., 8, 8, 1] or vector [..., 1] shows."""
    return x[..., 0] * 2 + 3.5 if x.is_floating_point() else x[..., 0].float().mean(-2).argmax(-1)
