"""Intervals over splits: SciPy's t test, the correction's coverage, and power laws whose gain is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reports.split_statistics import gain_of_twice_the_labels, mean_over_splits

VALUES = st.lists(st.floats(-50, 50), min_size=2, max_size=40)


@given(VALUES)
def test_without_rows_held_out_the_interval_is_that_of_a_t_test(values: list[float]) -> None:
    estimate = mean_over_splits(values, 0.0)
    assert estimate.value == pytest.approx(np.mean(values), abs=1e-9)
    if np.std(values) > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        wider = (estimate.high - estimate.low) / (high - low)
        assert 1 - 1e-4 < wider < (1 + 1e-4 if len(values) <= 31 else 1.03)


@given(VALUES, st.floats(0.05, 0.5))
def test_held_out_rows_widen_the_interval_by_the_published_factor(values: list[float], share: float) -> None:
    plain, corrected = (mean_over_splits(values, held_out) for held_out in (0.0, share))
    factor = math.sqrt(1 + len(values) * share / (1 - share))
    assert corrected.high - corrected.low == pytest.approx(factor * (plain.high - plain.low), abs=1e-9)


def test_a_single_split_has_no_interval() -> None:
    assert mean_over_splits([3.0], 0.2) == (3.0, -math.inf, math.inf)


def test_the_interval_of_correlated_splits_covers_the_expectation() -> None:
    # Five splits of one table share the luck of the table: a correlation of 0.2, as the correction assumes.
    rng = np.random.default_rng(0)
    covered = {0.0: 0, 0.2: 0}
    for _ in range(4000):
        values = rng.normal(scale=math.sqrt(0.2)) + rng.normal(scale=math.sqrt(0.8), size=5)
        for share in covered:
            estimate = mean_over_splits(values.tolist(), share)
            covered[share] += estimate.low <= 0 <= estimate.high
    assert covered[0.2] / 4000 == pytest.approx(0.95, abs=0.012)
    assert covered[0.0] / 4000 < 0.87


@given(st.floats(1, 60), st.floats(0.01, 1.5))
def test_the_gain_of_a_power_law_is_exact(error: float, exponent: float) -> None:
    half, twice = error * 2**exponent, error * 2**-exponent
    estimate = gain_of_twice_the_labels([error] * 3, [half] * 3, 0.2, smallest=1e-6)
    assert estimate == pytest.approx((error - twice,) * 3)


def test_the_gain_has_the_interval_of_the_logarithms() -> None:
    errors, halves = [20.0, 22.0, 19.0, 21.0], [25.0, 24.0, 23.0, 27.0]
    estimate = gain_of_twice_the_labels(errors, halves, 0.2, smallest=0.01)
    logs = mean_over_splits([math.log(a / b) for a, b in zip(errors, halves, strict=True)], 0.2)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.value == pytest.approx(20.5 * (1 - math.exp(logs.value)))
    assert (estimate.low, estimate.high) == pytest.approx(
        (20.5 * (1 - math.exp(logs.high)), 20.5 * (1 - math.exp(logs.low)))
    )


def test_an_error_of_zero_and_a_single_split_leave_the_gain_finite_and_its_interval_unknown() -> None:
    estimate = gain_of_twice_the_labels([0.0], [5.0], 0.2, smallest=0.1)
    assert estimate.value == 0
    assert gain_of_twice_the_labels([4.0], [5.0], 0.2, smallest=0.1) == (
        pytest.approx(0.8),
        -math.inf,
        pytest.approx(4.0),
    )


def test_the_gain_cannot_raise_the_error_above_a_hundred() -> None:
    estimate = gain_of_twice_the_labels([20.0, 20.0], [18.0, 30.0], 0.2, smallest=0.1)
    assert estimate.low == -80
    assert estimate.high < 20
