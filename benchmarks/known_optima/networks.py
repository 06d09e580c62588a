"""Perceptron, MLP, CNN and segmenter: XOR, held-out digits, and the class of every pixel."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import generative
from benchmarks.known_optima import Row
from generative.coloured_shapes import ColouredShapes
from generative.networks.segmenter import Segmenter, mean_iou
from generative.recordings import Recording
from generative.sources import Digits, Source

DIGITS_MLP = {"hidden_sizes": (512, 256), "dropout": 0.2, "shift": 1}
DIGITS_CNN = {"network": "cnn", "channels": (32, 64), "hidden_sizes": (128,), "dropout": 0.5}
MINIGRID = "minigrid:MiniGrid-BlockedUnlockPickup-v0"  # 11 × 6 cells: walls, a door, a key, a ball, a box, the agent
TEST_FRAMES = 500


def xor() -> tuple[str, str, bool]:
    """Mistakes among the four points: the best a line can do is one; a hidden layer makes none."""
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    label = torch.tensor([0, 1, 1, 0])
    perceptron: Any = generative.build("perceptron", in_features=2)
    mistakes, stopped = perceptron.learn(corners, label, max_sweeps=1_000)
    torch.manual_seed(0)
    mlp: Any = generative.build("mlp", in_features=2, hidden_sizes=(4,), activation="tanh", head="bernoulli")
    data = {"x": corners, "label": label}
    for _ in generative.fit(mlp, data, steps=500, batch_size=16, learning_rate=0.05, validation=0.0, keep="last", device="cpu"):
        pass
    wrong = int((mlp.predict(corners)[:, 0].round() != label).sum())
    nats = -mlp.label_log_prob(corners, label).mean().item()
    told = f"perceptron: {mistakes:,} mistakes in 1,000 sweeps, and on; MLP: {wrong} wrong, {nats:.4f} nats"
    return told, f"{nats:.4f} nats", not stopped and wrong == 0 and nats < 0.02


def digits(config: dict[str, Any], least: float, **settings: Any) -> tuple[str, str, bool]:
    """Accuracy on the held-out fifth: mean of 5 stratified splits, with averaged weights of the last step."""
    reached = []
    for split in range(5):
        torch.manual_seed(split)
        model: Any = generative.build("classifier", shape=(8, 8, 1), levels=17, num_classes=10, **config)
        train, test = (Digits(part, levels=17, frames=True, split=split) for part in ("train", "test"))  # type: ignore[arg-type]
        for _ in generative.fit(model, train, seed=split, ema=0.99, validation=0.0, keep="last", device="cpu", **settings):
            pass
        reached.append(model.accuracy(test.everything["x"], test.everything["label"]))
    mean = sum(reached) / len(reached)
    return f"{mean:.2%} ({min(reached):.1%} to {max(reached):.1%})", f"{1 - mean:.2%}", mean >= least


def segmented(train: Source, test: Source, shape: tuple[int, int, int], num_classes: int, **settings: Any) -> float:
    """mIoU over held-out frames of a U-Net trained on `train`."""
    torch.manual_seed(0)
    model = generative.build("segmenter", shape=shape, num_classes=num_classes, channels=(16, 32, 32))
    for _ in generative.fit(model, train, validation=0.0, keep="last", device="cpu", **settings):
        pass
    assert isinstance(model, Segmenter)
    batch = test.sample(TEST_FRAMES, torch.Generator().manual_seed(1))
    with torch.no_grad():
        predicted = torch.cat([model.predict(frames) for frames in batch["x"].split(50)])
    return mean_iou(predicted, batch["label"], num_classes)


def shapes() -> tuple[str, str, bool]:
    source = ColouredShapes()
    reached = segmented(source, source, (32, 32, 3), 4, steps=800, batch_size=32, learning_rate=3e-3)
    return f"{reached:.4f}", f"{1 - reached:.4f}", reached >= 0.99


def minigrid() -> tuple[str, str, bool]:
    """On frames of episodes that weren't trained on; every episode is a layout of its own."""
    if importlib.util.find_spec("minigrid") is None:
        return "the package minigrid isn't installed", "–", None
    from mpagents.collecting import View
    from mpagents.recording import RecordingSpec, record
    from mpagents.scenes import CLASSES

    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, XDG_CACHE_HOME=folder):
        spec = RecordingSpec(MINIGRID, steps=4_000, view=View((48, 88)), settings=("max_episode_steps=10",))
        record(spec, Path(folder) / "recording", show="quiet")
        train, test = Recording(f"{folder}/recording").split(0.2, seed=0)
        reached = segmented(train, test, (48, 88, 3), len(CLASSES), steps=2_200, batch_size=4, learning_rate=2e-3)
    return f"{reached:.4f}", f"{1 - reached:.4f}", reached >= 0.99


ROWS = [
    Row("perceptron, MLP", "XOR", "0 wrong; 1 with a line", "perceptron never stops, MLP 0 wrong", xor),
    Row(
        "MLP", "digits, 8 × 8 grey, mean of 5 splits", "100 %", "≥ 97.8 %",
        lambda: digits(DIGITS_MLP, 0.978, steps=3_000, batch_size=128, learning_rate=2e-3),
    ),
    Row(
        "CNN", "digits, 8 × 8 grey, mean of 5 splits", "100 %", "≥ 98.5 %",
        lambda: digits(DIGITS_CNN, 0.985, steps=1_000, batch_size=64, learning_rate=2e-3),
    ),
    Row("U-Net segmenter", "coloured shapes, 32 × 32", "mIoU 1", "≥ 0.99", shapes),
    Row("U-Net segmenter", "rendered MiniGrid frames", "mIoU 1", "≥ 0.99", minigrid),
]  # fmt: skip
