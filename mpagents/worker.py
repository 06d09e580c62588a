"""What a worker process does: trials, trainings of generative models or encoders, one by one, telling how far they are."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpagents.shipping import use_path
from mpagents.specification import TrialSpec

TOLD_EVERY = 0.25  # seconds between messages
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

# A message: {"trial": path, "steps": …, "reward": last mean return or None, "status": the whole status once it has ended}
Message = dict[str, Any]


def _begun(values: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    """A trial's specification, or that of a training of a generative model or of a study's encoder, and its steps."""
    if values.get("job") == "encoder":
        from mpagents.encoder_specification import EncoderJob
        from mpagents.encoder_stage import encoder_steps

        job = EncoderJob.from_json(values)
        return job, encoder_steps(job, folder)
    if "model" in values:
        from mpagents.fit_specification import FitSpec
        from mpagents.fitting import fit_steps

        training = FitSpec.from_json(values)
        return training, fit_steps(training, folder)
    from mpagents.trial import trial_steps

    trial = TrialSpec.from_json(values)
    return trial, trial_steps(trial, folder, values.get("attempt"))


def limit_threads() -> None:
    """One thread a process, unless the user has said otherwise: side by side or alone, a trial does the same to the bit."""
    for name in ONE_THREAD:  # read when torch and numba are imported
        os.environ.setdefault(name, "1")


def work(
    specs: list[dict[str, Any]], folder: str, path: list[str], every: float = TOLD_EVERY
) -> Iterator[list[Message]]:  # fmt: skip
    """Run trials one after the other in this process; yields what has happened, once in `every` seconds."""
    use_path(path)
    limit_threads()  # where a cluster's worker hasn't inherited it
    messages: list[Message] = []
    told = -math.inf  # that the first trial runs is told at once
    for values in specs:
        spec, steps = _begun(values, Path(folder))
        message: Message = {"trial": spec.path, "steps": 0, "reward": None, "status": None}
        while True:
            if messages and messages[-1]["trial"] == spec.path:
                messages.pop()  # only a trial's last message matters
            messages.append(message)
            if time.monotonic() - told > every:
                yield messages
                messages, told = [], time.monotonic()
            if message["status"]:
                break
            try:
                step, figures = next(steps)
                message = {"trial": spec.path, "steps": step, "reward": figures.get("mean_reward"), "status": None}
            except StopIteration as end:
                final = end.value.get("final") or {}
                message = {"trial": spec.path, "steps": spec.steps, "reward": final.get("mean_reward"), "status": end.value}
    yield messages
