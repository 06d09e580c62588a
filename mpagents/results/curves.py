"""Learning curves: what the finished seeds of one contender (an agent, with its encoder) reached at each evaluation.

A time counts only if every seed with a curve has it. Where seeds were evaluated at slightly different steps (an agent that
collects whole episodes passes a mark when it passes it), each evaluation is taken for the multiple of `evaluation.every` that
it was made for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mpagents.results.statistics import bootstrap_interval, interquartile_mean
from mpagents.results.summary import GROUP, StudyResults


@dataclass(frozen=True)
class Curve:
    """IQM over seeds with its 95 % interval; a planner's is one value, with `steps` empty."""

    contender: str  # "<agent>" or "<agent>+<encoder>"
    planner: bool
    num_seeds: int
    steps: NDArray[np.float64]  # [T] environment steps
    value: NDArray[np.float64]  # [T], of a planner [1], as the ends below
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def contender_of(agent: str, encoder: str) -> str:
    return f"{agent}+{encoder}" if encoder else agent


def contenders(results: StudyResults) -> list[str]:
    """Every contender of the study in its order: what colours are given by."""
    pairs = results.trials[["agent", "encoder"]].drop_duplicates()
    return [contender_of(agent, encoder) for agent, encoder in pairs.itertuples(index=False)]


def learning_curves(results: StudyResults, env: str, metric: str) -> list[Curve]:
    """One curve per contender of `env` that knows `metric` ("mean_reward", "regret"), over its finished seeds."""
    trials = results.trials[(results.trials["env"] == env) & (results.trials["status"] == "finished")]
    evaluations = results.evaluations[results.evaluations["env"] == env]
    every = (results.study.get("evaluation") or {}).get("every")
    curves = []
    for (_, agent, encoder), finished in trials.groupby(GROUP, sort=False):
        contender = contender_of(str(agent), str(encoder))
        if finished["planner"].any():
            scores = finished[[metric]].dropna().to_numpy(float)  # [seeds, 1]
            curves.append(_curve(contender, True, np.empty(0), scores))
        elif f"eval/{metric}" in evaluations:
            of_contender = (evaluations["agent"] == agent) & (evaluations["encoder"] == encoder)
            rows = evaluations[of_contender & evaluations["seed"].isin(finished["seed"])]
            steps, scores = common_times(rows.dropna(subset=[f"eval/{metric}"]), f"eval/{metric}", every)
            curves.append(_curve(contender, False, steps, scores))
    return [curve for curve in curves if curve.value.size]


def common_times(rows: pd.DataFrame, key: str, every: float | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps [T] at which every seed of `rows` (seed, step, `key`) was evaluated, and the figures [seeds, T] there.

    If that loses half of the evaluations, they're aligned to the last multiple of `every` that they had passed; the step of an
    aligned time is the seeds' median.
    """
    exact = rows.pivot(index="step", columns="seed", values=key)
    common = exact.dropna()
    if not every or rows.empty or len(common) >= len(rows) / exact.shape[1] / 2:
        return common.index.to_numpy(float), common.to_numpy(float).T
    marked = rows.sort_values("step").assign(mark=rows["step"] // every)
    marked = marked.drop_duplicates(["mark", "seed"], keep="last")
    aligned = marked.pivot(index="mark", columns="seed", values=key).dropna()
    steps = marked.groupby("mark")["step"].median().loc[aligned.index]
    return steps.to_numpy(float), aligned.to_numpy(float).T


def _curve(contender: str, planner: bool, steps: NDArray[np.float64], scores: NDArray[np.float64]) -> Curve:
    if scores.size == 0:
        nothing = np.empty(0)
        return Curve(contender, planner, 0, nothing, nothing, nothing, nothing)
    low, high = bootstrap_interval(scores)
    return Curve(contender, planner, len(scores), steps, interquartile_mean(scores), low, high)
