"""Frames of one coloured shape with a caption: ten classes that are equally likely and certain to be told apart.

"a red disc", … : three colours by three kinds, and "nothing". In a batch of n the best contrastive loss is known
(`clip.loss_floor(n, 10)`), and pairs of a colour and a kind can be left out of a training, to be recognised nevertheless.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from generative.coloured_shapes import inside
from generative.contrastive.text_encoder import word_numbers
from generative.model import Batch

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "yellow": (1, 1, 0)}  # which channels are bright
KINDS = ("disc", "square", "triangle")


@dataclass(frozen=True)
class CaptionedShapes:
    """x uint8 [B, side, side, 3]; label int64 [B], a class of `captions`; text int64 [B, 3], words of `vocabulary`."""

    side: int = 16  # pixels each way
    noise: int = 20  # levels by which a pixel's channels are off at most
    left_out: tuple[int, ...] = ()  # classes that are never drawn

    captions: ClassVar[tuple[str, ...]] = (*(f"a {colour} {kind}" for colour in COLOURS for kind in KINDS), "nothing")
    vocabulary: ClassVar[tuple[str, ...]] = ("", "a", "nothing", *COLOURS, *KINDS)

    def __post_init__(self) -> None:
        if self.side < 8 or not 0 <= self.noise <= 40:
            raise ValueError(f"side and noise are {self.side} and {self.noise}; expected ≥ 8 and 0…40")
        if not self._classes:
            raise ValueError(f"left_out is {self.left_out}; expected that a class remains of {len(self.captions)}")

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        device = generator.device
        classes = torch.tensor(self._classes, device=device)
        label = classes[torch.randint(len(classes), (n,), generator=generator, device=device)]
        shape = label < len(self.captions) - 1
        kind = torch.where(shape, label % len(KINDS) + 1, 0)  # 1…3, as `inside` has them
        radius = torch.randint(self.side // 4, self.side // 2 - 1, (n, 1, 1), generator=generator, device=device)
        free = self.side - 2 * radius
        places = torch.rand((2, n, 1, 1), generator=generator, device=device)
        centre = radius + (places * free).long()
        pixels = torch.arange(self.side, device=device)
        covered = shape[:, None, None] & inside(kind, (pixels[:, None] - centre[0], pixels - centre[1]), radius)
        palette = torch.tensor([*COLOURS.values(), (0, 0, 0)], device=device) * 160 + 55
        colour = palette[label // len(KINDS)]  # [B, 3]
        frames = torch.where(covered[..., None], colour[:, None, None], 60)
        noise = torch.randint(-self.noise, self.noise + 1, frames.shape, generator=generator, device=device)
        text = word_numbers(self.captions, self.vocabulary).to(device)[label]
        return {"x": (frames + noise).to(torch.uint8), "label": label, "text": text}

    @property
    def _classes(self) -> list[int]:
        return [k for k in range(len(self.captions)) if k not in self.left_out]
