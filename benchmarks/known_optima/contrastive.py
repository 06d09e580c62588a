"""CLIP against the floor of its loss: ten equally likely captions, so that a batch of 64 has equal ones."""

from __future__ import annotations

from typing import Any

import torch

import generative
from benchmarks.known_optima import Row
from generative.contrastive.captioned_shapes import CaptionedShapes
from generative.contrastive.clip import loss_floor

BATCH = 64
CONFIG = {"shape": (16, 16, 3), "channels": (32, 64), "embedding": 16, "text_width": 32, "num_layers": 1}
SETTINGS = {"steps": 1_500, "batch_size": BATCH, "learning_rate": 3e-3, "ema": 0.99, "keep": "last", "validation": 0.0}


def shapes() -> tuple[str, str, bool]:
    """Loss of 500 batches and the share of 10,000 images given their own caption, none of them trained on."""
    source = CaptionedShapes()
    torch.manual_seed(0)
    words = {"vocabulary": source.vocabulary, "num_words": len(source.vocabulary)}
    model: Any = generative.build("clip", **CONFIG, **words)
    for _ in generative.fit(model, source, device="cpu", **SETTINGS):
        pass
    unseen = torch.Generator().manual_seed(1)
    with torch.no_grad():
        losses = [model.loss(source.sample(BATCH, unseen), generator=unseen)[0] for _ in range(500)]
        batch = source.sample(10_000, unseen)
        right = model.classify(batch["x"], source.captions).argmax(1) == batch["label"]
    loss, share = torch.stack(losses).mean().item(), right.double().mean().item()
    gap = loss - loss_floor(BATCH, len(source.captions))
    return f"{loss:.4f} nats, zero-shot {share:.2%}", f"{gap:+.4f} nats", loss <= 1.95 and share == 1.0


ROWS = [
    Row("clip", "10 captioned shapes, batch 64", "E ln(1 + Bin(63, 0.1)) = 1.92909 nats", "≤ 1.95; zero-shot 100 %", shapes),
]
