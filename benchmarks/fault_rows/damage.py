"""Files truncated, or with a bit flipped."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

from benchmarks.fault_rows.outcome import Outcome, trial


def damage(times: int, folder: Path, rng: random.Random) -> Outcome:
    """A file of the newest checkpoint, or of a stored model, truncated or with a bit flipped."""
    import generative
    from mpagents.results.checkpoint import load_latest
    from mpagents.trial import run_trial

    spec = trial()
    run_trial(spec, folder)
    kept = folder / spec.path / "checkpoint"
    sound = sorted(kept.glob("step=*"), key=lambda path: int(path.name[5:]))
    newest, before = sound[-1], int(sound[-2].name[5:])
    model = folder / "model.safetensors"
    generative.save(generative.build("mlp", in_features=3, out_features=2), model)
    outcome = Outcome(times, {}, {"not detected": 0, "not named": 0, "the one before not used": 0})
    for number in range(times):
        files = [model] if number % 5 == 4 else sorted(newest.iterdir())
        file = rng.choice(files)
        content = file.read_bytes()
        file.write_bytes(damaged(content, rng))
        told: list[str] = []
        if file == model:
            with contextlib.suppress(ValueError):
                generative.load(model)
                outcome.faults["not detected"] += 1
        else:
            step = (load_latest(kept, told.append) or (0, {}))[0]
            outcome.faults["not detected"] += not told
            outcome.faults["not named"] += bool(told) and str(newest) not in told[0]
            outcome.faults["the one before not used"] += step != before
        file.write_bytes(content)
    return outcome


def damaged(content: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return content[: rng.randrange(len(content))]
    flipped = bytearray(content)
    flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(flipped)
