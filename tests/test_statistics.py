"""IQM, bootstrap intervals and probability of improvement against numbers worked out by hand and against scipy."""

import numpy as np
import pytest
import scipy.stats

from mpagents.results.statistics import (
    bootstrap_interval,
    interquartile_mean,
    probability_of_improvement,
    stratified_interval,
)


@pytest.mark.parametrize(
    ("x", "iqm"),
    [
        ([7.0], 7.0),
        ([0.0, 1.0, 5.0], 2.0),  # below 4 seeds nothing is cut
        ([1.0, 2.0, 3.0, 100.0], 2.5),  # from 4 on, ⌊n/4⌋ at each end
        ([100.0, 1.0, 3.0, 2.0, 4.0], 3.0),
        ([8.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0], 4.5),
    ],
)
def test_interquartile_mean_by_hand(x, iqm):
    assert interquartile_mean(x) == iqm


def test_interquartile_mean_is_scipys_trimmed_mean_at_every_number_of_seeds():
    rng = np.random.default_rng(0)
    for num_seeds in range(1, 30):
        x = rng.normal(size=(num_seeds, 3))
        np.testing.assert_allclose(interquartile_mean(x), scipy.stats.trim_mean(x, 0.25, axis=0), rtol=1e-12)


def test_interquartile_mean_does_not_trim_a_nan_away():
    np.testing.assert_array_equal(interquartile_mean([[1.0, 1], [np.nan, 2], [3, 3], [4, 4]]), [np.nan, 2.5])


def test_interquartile_mean_refuses_no_seeds():
    with pytest.raises(ValueError, match="at least one seed"):
        interquartile_mean([])


def test_bootstrap_interval_by_hand():
    # 27 equally likely resamples of [0, 1, 5]: the mean is 0 in one and 5 in one, 3.7 % each, which is more than 2.5 %.
    assert bootstrap_interval([0.0, 1.0, 5.0]) == (0.0, 5.0)
    # At 90 %, 5 % are cut: the next means are 1/3 (3 of 27) and 11/3 (3 of 27).
    np.testing.assert_allclose(bootstrap_interval([0.0, 1.0, 5.0], confidence=0.9), (1 / 3, 11 / 3))


def test_bootstrap_interval_agrees_with_scipy():
    x = np.random.default_rng(1).gamma(2.0, size=20)
    expected = scipy.stats.bootstrap(
        (x,), lambda x, axis: scipy.stats.trim_mean(x, 0.25, axis=axis), n_resamples=20_000, method="percentile", rng=2
    ).confidence_interval
    np.testing.assert_allclose(bootstrap_interval(x, resamples=20_000), expected, atol=0.02)


def test_bootstrap_interval_at_each_time_is_that_of_the_time_alone(monkeypatch):
    curves = np.random.default_rng(3).normal(size=(6, 11))
    monkeypatch.setattr("mpagents.results.statistics.MAX_ELEMENTS", 4 * 2000 * 6)  # blocks of 4 times
    low, high = bootstrap_interval(curves, seed=5)
    for time in range(11):
        assert bootstrap_interval(curves[:, time], seed=5) == (low[time], high[time])


def test_bootstrap_interval_of_one_seed_is_unknown():
    assert np.isnan(bootstrap_interval([3.0])).all()
    assert np.isnan(bootstrap_interval(np.ones((1, 4)))).all()


def test_stratified_interval_of_one_task_is_the_bootstrap_interval():
    x = np.random.default_rng(4).normal(size=9)
    assert stratified_interval([x], seed=7) == bootstrap_interval(x, seed=7)


def test_stratified_interval_keeps_every_task_in_its_share():
    # Seeds agree within each task, so that no resample differs; an unstratified one would mix 0s and 1s in other shares.
    assert stratified_interval([[0.0] * 4, [1.0] * 4]) == (0.5, 0.5)
    assert bootstrap_interval([0.0] * 4 + [1.0] * 4) != (0.5, 0.5)


def test_probability_of_improvement_by_hand():
    # 1 beats 0; 2 beats 0 and ties twice; 3 beats all: (1 + 2 + 3) / 9.
    assert probability_of_improvement([1.0, 2.0, 3.0], [2.0, 2.0, 0.0]).value == pytest.approx(6 / 9)
    assert probability_of_improvement([3.0, 4.0], [1.0, 2.0]) == (1.0, 1.0, 1.0)
    assert probability_of_improvement([1.0, 1.0], [1.0, 1.0]) == (0.5, 0.5, 0.5)


def test_probability_of_improvement_is_mann_whitneys_u_and_its_complement_when_swapped():
    rng = np.random.default_rng(6)
    x, y = rng.integers(0, 8, 15).astype(float), rng.integers(1, 9, 12).astype(float)
    estimate, swapped = probability_of_improvement(x, y), probability_of_improvement(y, x)
    assert estimate.value == pytest.approx(scipy.stats.mannwhitneyu(x, y).statistic / (15 * 12))
    assert swapped.value == pytest.approx(1 - estimate.value)
    assert estimate.low < estimate.value < estimate.high


def test_probability_of_improvement_interval_agrees_with_scipy():
    rng = np.random.default_rng(8)
    x, y = rng.normal(0.5, 1, 12), rng.normal(0, 1, 10)

    def statistic(x, y, axis):
        return (x[..., :, None] > y[..., None, :]).mean(axis=(-1, -2))

    expected = scipy.stats.bootstrap((x, y), statistic, n_resamples=20_000, method="percentile", rng=9).confidence_interval
    estimate = probability_of_improvement(x, y, resamples=20_000)
    np.testing.assert_allclose((estimate.low, estimate.high), expected, atol=0.02)


def test_probability_of_improvement_has_no_interval_of_one_seed_and_no_value_with_nan():
    value, low, high = probability_of_improvement([2.0], [1.0, 3.0])
    assert value == 0.5 and np.isnan(low) and np.isnan(high)
    assert np.isnan(probability_of_improvement([np.nan, 1.0], [0.0, 0.0])).all()


def test_intervals_are_the_same_at_every_call():
    x, y = np.random.default_rng(10).normal(size=(2, 8))
    assert bootstrap_interval(x) == bootstrap_interval(x)
    assert probability_of_improvement(x, y) == probability_of_improvement(x, y)
    assert bootstrap_interval(x, seed=1) != bootstrap_interval(x, seed=2)
