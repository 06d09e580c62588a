"""Statistics over seeds: interquartile mean, bootstrap intervals, probability of improvement.

Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", arXiv:2108.13264. A seed is one
replicate: only seeds are resampled, never episodes or time points.

    IQM(x)   = mean of what is left when ⌊n/4⌋ values are cut from each end            (§4.3; scipy's trim_mean(x, 0.25))
    P(X > Y) = 1/(nm) Σᵢ Σⱼ ( 1[xᵢ > yⱼ] + ½ 1[xᵢ = yⱼ] ), the Mann–Whitney statistic   (§4.3, eq. 1)

Intervals are percentile bootstrap intervals. Three consequences of few seeds are not hidden: below 4 seeds the IQM cuts nothing
and is the mean; of a single seed there is no interval (NaN); below about 10 seeds the intervals are narrower than they say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_ELEMENTS = 4_000_000  # of one block of resampled scores: 32 MB


class Estimate(NamedTuple):
    """A figure with the ends of its interval, which are NaN where there is none."""

    value: float
    low: float
    high: float


def interquartile_mean(x: ArrayLike, axis: int = 0) -> NDArray[np.float64]:
    """Mean of the middle half of `x` along `axis`, the seeds: the plain mean of fewer than 4. NaN where any value is NaN."""
    x = np.moveaxis(_scores(x), axis, 0)
    cut, n = len(x) // 4, len(x)
    middle = np.partition(x, (cut, n - cut - 1), axis=0)[cut : n - cut]
    return np.where(np.isnan(x).any(axis=0), np.nan, middle.mean(axis=0))


def bootstrap_interval(
    scores: ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Low and high end of the percentile interval of the IQM over seeds.

    `scores` is [seeds] or [seeds, times]; the ends have the shape [] or [times]. Whole seeds are resampled, with the same draws
    at every time. Of one seed both ends are NaN.

    Raises: ValueError on no seeds, or on a confidence outside (0, 1).
    """
    scores = _scores(scores)
    if len(scores) == 1:
        nothing = np.full(scores.shape[1:], np.nan)
        return nothing, nothing.copy()
    draws = np.random.default_rng(seed).integers(len(scores), size=(resamples, len(scores)))
    columns = scores.reshape(len(scores), -1)
    width = max(1, MAX_ELEMENTS // draws.size)
    blocks = [columns[:, start : start + width] for start in range(0, columns.shape[1], width)]
    ends = [_ends(interquartile_mean(block[draws], axis=1), confidence) for block in blocks]  # of [resamples, width]
    low, high = np.concatenate(ends, axis=1) if ends else np.empty((2, 0))
    return low.reshape(scores.shape[1:]), high.reshape(scores.shape[1:])


def stratified_interval(
    tasks: Sequence[ArrayLike], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the IQM of all scores of several tasks, each [seeds] and on one comparable (normalised) scale.

    Seeds are resampled within each task (stratified, §4.2), so that every resample holds every task in its share.
    """
    rng = np.random.default_rng(seed)
    strata = [_scores(task) for task in tasks]
    if max((len(stratum) for stratum in strata), default=1) == 1:
        return float("nan"), float("nan")
    resampled = [stratum[rng.integers(len(stratum), size=(resamples, len(stratum)))] for stratum in strata]
    low, high = _ends(interquartile_mean(np.concatenate(resampled, axis=1), axis=1), confidence)
    return float(low), float(high)


def probability_of_improvement(
    x: ArrayLike, y: ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """P(X > Y) for scores x [n] and y [m], ties counted ½, with its percentile interval (both samples resampled).

    Swapping x and y gives 1 − P. The interval is NaN where a side has one seed; all is NaN where a score is.
    """
    x, y = _scores(x), _scores(y)
    if np.isnan(x).any() or np.isnan(y).any():
        return Estimate(float("nan"), float("nan"), float("nan"))
    wins = (x[:, None] > y) + 0.5 * (x[:, None] == y)  # [n, m]
    if min(len(x), len(y)) == 1:
        return Estimate(float(wins.mean()), float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    counts_x, counts_y = _draw_counts(len(x), resamples, rng), _draw_counts(len(y), resamples, rng)
    low, high = _ends(np.sum((counts_x @ wins) * counts_y, axis=1) / wins.size, confidence)
    return Estimate(float(wins.mean()), float(low), float(high))


def _scores(x: ArrayLike) -> NDArray[np.float64]:
    """`x` as floats, refused without seeds."""
    scores = np.asarray(x, dtype=np.float64)
    if scores.ndim == 0 or len(scores) == 0:
        raise ValueError(f"got scores of shape {scores.shape}, expected at least one seed: [seeds] or [seeds, times]")
    return scores


def _draw_counts(n: int, resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How often each of n seeds is drawn in each resample: [resamples, n], whose rows sum to n."""
    draws = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(draws.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def _ends(resampled: NDArray[np.float64], confidence: float) -> NDArray[np.float64]:
    """The two percentiles [2, …] of the resampled figures [resamples, …] that hold the share `confidence` between them."""
    if not 0 < confidence < 1:
        raise ValueError(f"got confidence={confidence}, expected a share between 0 and 1 such as 0.95")
    return np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
