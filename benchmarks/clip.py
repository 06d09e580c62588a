"""CLIP on MiniGrid: are combinations of colour and kind recognised that no caption of the training has?

    python benchmarks/clip.py                     # records, trains and judges; prints a table of docs/clip.md
    python benchmarks/clip.py --unseen primary

Frames of two objects and the agent, with their true captions ("a red key left of a blue ball"). All frames with one of the
combinations of `UNSEEN` are kept from training. An object is asked for by the frame's caption with its colour, its kind or both
replaced by every other; the other object of the caption stays, and combinations that it has are no answer.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `generative` is the package, not the file beside this

import numpy as np
import torch

import generative
from generative.recordings import Recording
from mpagents.collecting import View
from mpagents.recording import RecordingSpec, record
from mpagents.scenes import COLOURS, VOCABULARY

ENVIRONMENT = "minigrid:MiniGrid-GoToObject-6x6-N2-v0"  # two objects in a room of 4 × 4 cells
KINDS = ("key", "ball", "box")
Pairs = tuple[tuple[str, str], ...]  # of colour and kind
UNSEEN: dict[str, Pairs] = {
    "mixed": (("yellow", "key"), ("purple", "ball"), ("grey", "box")),  # colours of several channels
    "primary": (("red", "key"), ("green", "ball"), ("blue", "box")),  # of one, in which that kind is never seen alone
}
QUESTIONS = ("colour and kind", "colour", "kind")
CONFIG: dict[str, Any] = {
    "channels": (16, 32), "embedding": 24, "text_width": 64, "num_heads": 8, "num_layers": 1, "word_dropout": 0.2,
}  # fmt: skip
SETTINGS: dict[str, Any] = {"steps": 1_200, "batch_size": 128, "learning_rate": 4e-3}
JUDGED = 500  # frames

Columns = dict[str, np.ndarray]


def recorded(rows: int, seed: int) -> Columns:
    """Frames 36 × 36 and captions of two objects each; every episode of 2 steps is a layout of its own."""
    settings = ("max_episode_steps=2", "kwargs.highlight=false")
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, XDG_CACHE_HOME=folder):
        spec = RecordingSpec(ENVIRONMENT, steps=rows, view=View((36, 36)), settings=settings, seed=seed)
        record(spec, Path(folder) / "recording", show="quiet")
        columns = Recording(f"{folder}/recording").windows.columns
        two = (np.asarray(columns["text"]) > 0).sum(1) > 3  # the agent may have picked one up
        return {key: np.asarray(columns[key])[two] for key in ("x", "text")}


def objects(text: np.ndarray) -> list[int]:
    """Places of the colours of a caption's two objects; their kinds follow."""
    return [1, int((text > 0).sum()) - 2]


def named(text: np.ndarray, place: int) -> tuple[str, str]:
    return VOCABULARY[text[place]], VOCABULARY[text[place + 1]]


def has_one_of(pairs: Pairs, text: np.ndarray) -> bool:
    return any(named(text, place) in pairs for place in objects(text))


def answers(text: np.ndarray, place: int, question: str) -> tuple[list[np.ndarray], int]:
    """(captions that differ in the object at `place`, which of them is the frame's)."""
    own = named(text, place)
    other = [named(text, elsewhere) for elsewhere in objects(text) if elsewhere != place]
    colours = COLOURS if "colour" in question else own[:1]
    kinds = KINDS if "kind" in question else own[1:]
    choices = [(c, k) for c in colours for k in kinds if (c, k) == own or (c, k) not in other]
    captions = []
    for choice in choices:
        captions.append(text.copy())
        captions[-1][place : place + 2] = [VOCABULARY.index(word) for word in choice]
    return captions, choices.index(own)


@torch.no_grad()
def judged(model: Any, frames: Columns, pairs: Pairs, among: bool, question: str) -> tuple[float, float]:
    """(share of right answers, chance) about the first object of each frame that is `among` the pairs, or that isn't."""
    right, chance = [], []
    for x, text in zip(frames["x"][:JUDGED], frames["text"]):
        place = next(place for place in objects(text) if (named(text, place) in pairs) == among)
        captions, own = answers(text, place, question)
        probabilities = model.classify(torch.from_numpy(x)[None], torch.from_numpy(np.stack(captions)))
        right.append(int(probabilities.argmax()) == own)
        chance.append(1 / len(captions))
    return float(np.mean(right)), float(np.mean(chance))


def trained(frames: Columns, steps: int) -> Any:
    torch.manual_seed(0)
    shape = frames["x"].shape[1:]
    model = generative.build("clip", shape=shape, vocabulary=VOCABULARY, num_words=len(VOCABULARY), **CONFIG)
    settings = {**SETTINGS, "steps": steps, "validation": 0.0, "keep": "last", "device": "cpu"}
    for step, metrics in generative.fit(model, frames, **settings, log_every=max(1, steps // 10)):
        print(f"{step:,}: loss {metrics['loss']:.3f}, accuracy {metrics['accuracy']:.1%}", file=sys.stderr, flush=True)
    return model


def chosen(frames: Columns, pairs: Pairs, among: bool) -> Columns:
    """The frames that have an object among the pairs, or those that have none."""
    rows = [row for row, text in enumerate(frames["text"]) if has_one_of(pairs, text) == among]
    return {key: value[rows] for key, value in frames.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="frames recorded for training")
    parser.add_argument("--steps", type=int, default=SETTINGS["steps"], help="training steps")
    parser.add_argument("--unseen", choices=tuple(UNSEEN), default="mixed", help="which combinations are kept from training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pairs = UNSEEN[arguments.unseen]
    begun = time.perf_counter()
    training, test = chosen(recorded(arguments.rows, seed=0), pairs, among=False), recorded(4_000, seed=1)
    middle = time.perf_counter()
    model = trained(training, arguments.steps)
    seconds = time.perf_counter() - middle
    print(f"{len(training['x']):,} frames recorded in {middle - begun:.0f} s; {arguments.steps:,} steps in {seconds:.0f} s\n")
    print("| asked for | captions to choose from | chance | seen combinations | never seen ones |\n|---|---|---|---|---|")
    for question in QUESTIONS:
        seen, _ = judged(model, chosen(test, pairs, among=False), pairs, False, question)
        unseen, chance = judged(model, chosen(test, pairs, among=True), pairs, True, question)
        print(f"| {question} | {round(1 / chance)} | {chance:.1%} | {seen:.1%} | {unseen:.1%} |")


if __name__ == "__main__":
    main()
