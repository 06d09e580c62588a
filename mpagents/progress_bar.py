"""Progress of one piece of work on standard error: a bar on a terminal, plain lines elsewhere, or nothing; with time left."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from mpagents.progress import PLAIN_EVERY, _duration


class ProgressBar:
    """Counts `unit`s up to `total`; `show` is "auto", "plain" or "quiet"."""

    def __init__(self, total: int, unit: str, show: str = "auto", start: int = 0) -> None:
        self.console = Console(stderr=True, quiet=show == "quiet")
        self.live = show == "auto" and self.console.is_terminal
        self.total, self.unit, self.start = total, unit, start
        self.begun = self.told = time.monotonic()
        columns = [BarColumn(bar_width=12), TextColumn("{task.fields[numbers]}")]
        self.bar = Progress(*columns, console=self.console, transient=True)
        self.task = self.bar.add_task("work", total=max(1, total), numbers="starting …")

    def __enter__(self) -> ProgressBar:
        if self.live:
            self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.live:
            self.bar.stop()

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def update(self, done: int, told: str = "") -> None:
        """`done` of the total are done; `told` stands behind the numbers."""
        if not self.live and time.monotonic() - self.told < PLAIN_EVERY:
            return
        rate = (done - self.start) / max(1e-9, time.monotonic() - self.begun)
        left = f"{_duration((self.total - done) / rate)} left" if rate else "starting"
        speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        numbers = [f"{done:,}/{self.total:,} {self.unit}", f"{speed} {self.unit}/s", left, *([told] if told else [])]
        text = " · ".join(numbers)
        if self.live:
            self.bar.update(self.task, completed=done, numbers=text)
        else:
            self.told = time.monotonic()
            self.say(text)
