"""Live progress of a study: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from mpagents.encoder_specification import EncoderJob
from mpagents.specification import Expansion, TrialSpec

PLAIN_EVERY = 10.0  # seconds between plain lines


class Display:
    """Shows trials done, running and failed, environment steps per second, time left and the best return so far."""

    def __init__(
        self, show: str, expansion: Expansion, todo: list[TrialSpec], folder: Path, jobs: Sequence[EncoderJob] = ()
    ) -> None:
        """`jobs`: encoders that are made before trials which see by them."""
        self.console = Console(stderr=True, quiet=show == "quiet")
        self.live = show == "auto" and self.console.is_terminal
        self.expansion, self.folder = expansion, folder
        self.already = len(expansion.trials) - len(todo)
        self.num_jobs, self.total = len(jobs), len(todo) + len(jobs)
        self.steps_of = {spec.path: spec.steps for spec in todo} | {job.path: job.steps for job in jobs}
        self.steps_total = sum(self.steps_of.values())
        self.running: dict[str, int] = {}
        self.done = self.failed = self.steps_done = 0
        self.best: dict[str, float] = {}
        self.start = self.told = time.monotonic()
        columns = [BarColumn(bar_width=12), TextColumn("{task.fields[numbers]}")]
        self.bar = Progress(*columns, console=self.console, transient=True)
        self.task = self.bar.add_task("trials", total=max(1, self.steps_total), numbers="starting …")

    def __enter__(self) -> Display:
        found = f" ({self.already} finished earlier)" if self.already else ""
        encoders = f"{self.num_jobs} encoder{'s' * (self.num_jobs > 1)}, then " if self.num_jobs else ""
        num_trials = self.total - self.num_jobs
        trials = f"{encoders}{num_trials} trial{'s' * (num_trials != 1)}{found}"
        self.console.print(f"{trials} → [cyan]{escape(str(self.folder))}[/]", highlight=False, soft_wrap=True)
        for pair in self.expansion.skipped:
            self.console.print(
                f"  left out: {pair.agent} on {pair.env}: {pair.reason}", highlight=False, style="dim", markup=False
            )
        if self.live:
            self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.live:
            self.bar.stop()

    def warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)

    def update(self, message: dict[str, Any]) -> None:
        """Take in what a worker tells of a trial."""
        path, status = message["trial"], message["status"]
        env = path.split("/")[0]
        if message["reward"] is not None:
            self.best[env] = max(message["reward"], self.best.get(env, message["reward"]))
        if status is None:
            self.running[path] = message["steps"]
        else:
            self.running.pop(path, None)
            self.done += 1
            self.steps_done += self.steps_of[path]
            for text in status.get("warnings", ()):
                self.warn(f"{path}: {text}")
            if status["status"] == "failed":
                self.failed += 1
                self.console.print(f"failed: {path}: {status['error']['message']}", style="red", markup=False, soft_wrap=True)
        self._show()

    def finishing(self) -> None:
        """All trials have ended; the report is being written."""
        self.told = 0.0
        self._show("writing the report")

    def _show(self, what: str | None = None) -> None:
        steps = self.steps_done + sum(min(done, self.steps_of[path]) for path, done in self.running.items())
        elapsed = time.monotonic() - self.start
        rate = steps / max(elapsed, 1e-9)
        left = (self.steps_total - steps) / rate if steps else None
        numbers = [f"{self.done}/{self.total} done", f"{len(self.running)} running"]
        numbers += [f"{self.failed} failed"] if self.failed else []
        numbers += [f"{rate:,.0f} steps/s", what or (f"{_duration(left)} left" if left is not None else "starting")]
        numbers += ["best " + ", ".join(f"{env} {best:.4g}" for env, best in list(self.best.items())[:3])] if self.best else []
        text = " · ".join(numbers)
        if self.live:
            self.bar.update(self.task, completed=steps, numbers=text)
        elif self.total and time.monotonic() - self.told > PLAIN_EVERY:
            self.told = time.monotonic()
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
