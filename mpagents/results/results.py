"""`Results`: what a study has found, for Python."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from mpagents.results.summary import StudyResults


class Results:
    """The results in a study's folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"Results({str(self.folder)!r})"

    @cached_property
    def _read(self) -> StudyResults:
        from mpagents.results.summary import read_study

        return read_study(self.folder)

    def frame(self) -> pd.DataFrame:
        """Every evaluation: columns env, agent, encoder, seed, step and eval/… ."""
        return self._read.evaluations

    def trials(self) -> pd.DataFrame:
        """Every trial: env, agent, encoder, seed, status, seconds and the final and best figures."""
        return self._read.trials

    def summary(self) -> pd.DataFrame:
        """One row per environment and agent: interquartile means over seeds with 95 % bootstrap intervals."""
        from mpagents.results.summary import summarise

        return summarise(self._read)

    def best(self, env: str | None = None) -> Path:
        """The folder of the trial with the highest final mean return, for `mpagents.load_agent`.

        `env` (a label) is needed where the study has several. Raises ValueError where nothing has finished.
        """
        trials = self.trials()
        finished = trials[trials["status"] == "finished"]
        labels = list(dict.fromkeys(trials["env"]))
        if env is None and len(labels) > 1:
            raise ValueError(f"returns of different environments don't compare: say best(env=…), one of {labels}")
        chosen = finished if env is None else finished[finished["env"] == env]
        if chosen.empty:
            raise ValueError(f"no trial has finished{f' on {env!r}; the environments are {labels}' if env else ''}")
        return self.folder / str(chosen["path"].iloc[int(chosen["mean_reward"].argmax())])

    def failed(self) -> pd.DataFrame:
        """The trials that raised, or whose process died."""
        trials = self.trials()
        return trials[trials["status"] == "failed"]

    def write(self) -> Path:
        """Write summary.csv, summary.json and report.html; returns the report's path."""
        from mpagents.results.report import write_report
        from mpagents.results.summary import write_summary

        write_summary(self.folder, self._read)
        return write_report(self.folder, self._read)
