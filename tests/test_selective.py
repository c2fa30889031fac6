"""Thresholds of abstention keep their promise on new cells, whatever the model, and refuse no good one."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from runtime.errors import UsageError
from serving.selective import (
    FAILURE,
    choose_threshold,
    fewest_cells,
    precision_bound,
    rank_grid,
    set_confidence,
)

Array = npt.NDArray[np.float64]


def precision_above(threshold: float, mass: Array, accuracy: Array) -> float:
    """Return the true precision above a threshold; the confidences are 0, 1, ... with these masses and accuracies."""
    above = np.arange(len(mass)) > threshold
    return float(mass[above] @ accuracy[above] / mass[above].sum()) if mass[above].sum() else 1.0


def broken(mass: Array, accuracy: Array, cells: int, precision: float, draws: int, seed: int, ties: bool) -> int:
    """Return in how many draws of the labeled cells the promise is broken on the whole distribution."""
    random = np.random.default_rng(seed)
    count = 0
    for _ in range(draws):
        group = random.choice(len(mass), cells, p=mass)
        right = random.random(cells) < accuracy[group]
        noise = np.zeros(cells) if ties else random.random(cells)  # without ties the confidence is a real number
        chosen = choose_threshold(group + noise, right, precision)
        if chosen.threshold == math.inf:
            continue
        if ties:
            truth = precision_above(chosen.threshold, mass, accuracy)
        else:  # part of the group that the threshold cuts is above it
            whole = max(0, math.floor(chosen.threshold)) if chosen.threshold > -math.inf else 0
            part = mass.copy()
            part[:whole] = 0
            part[whole] *= 1 - max(0.0, chosen.threshold - whole)
            truth = float(part @ accuracy / part.sum()) if part.sum() else 1.0
        count += truth < precision - 1e-12
    return count


@settings(max_examples=25)
@given(
    masses=st.lists(st.floats(0.05, 1), min_size=1, max_size=6),
    accuracies=st.lists(st.floats(0.5, 1), min_size=6, max_size=6),
    cells=st.integers(20, 600),
    precision=st.sampled_from([0.7, 0.9, 0.95, 0.99]),
    seed=st.integers(0, 1 << 30),
    ties=st.booleans(),
)
def test_the_promise_holds_in_the_stated_share_of_draws(
    masses: list[float], accuracies: list[float], cells: int, precision: float, seed: int, ties: bool
) -> None:
    mass = np.array(masses) / sum(masses)
    accuracy = np.array(accuracies[: len(mass)])  # in any order: more confident need not be more often right
    count = broken(mass, accuracy, cells, precision, 200, seed, ties)
    assert count <= binom.ppf(1 - 1e-6, 200, FAILURE)


@pytest.mark.parametrize("cells", [60, 569, 3000])
@pytest.mark.parametrize("precision", [0.9, 0.97])
def test_the_promise_holds_where_every_threshold_would_break_it_narrowly(cells: int, precision: float) -> None:
    mass, accuracy = np.full(4, 0.25), np.full(4, precision - 1e-9)  # the least favorable distribution
    count = broken(mass, accuracy, cells, precision, 1000, seed=0, ties=False)
    assert count <= binom.ppf(0.999, 1000, FAILURE)


def test_a_good_model_is_not_refused() -> None:
    random = np.random.default_rng(0)
    confidence = random.random(1000)
    right = random.random(1000) < np.where(confidence > 0.4, 0.995, 0.6)
    chosen = choose_threshold(confidence, right, 0.97)
    assert 0.5 < chosen.coverage < 0.7
    assert chosen.bound >= 0.97
    assert choose_threshold(confidence, np.ones(1000, bool), 0.97).threshold == -math.inf


def bound_by_loops(confidence: Array, right: Array, precision: float) -> float:
    """Return the threshold by the definition: SciPy's own interval for every rank of the grid."""
    grid = rank_grid(len(confidence), precision, FAILURE)
    best = math.inf
    for rank in grid:
        threshold = sorted(confidence, reverse=True)[rank] if rank < len(confidence) else -math.inf
        above = [bool(y) for c, y in zip(confidence, right, strict=True) if c > threshold]
        if above:
            test = binomtest(sum(above), len(above))
            # a two-sided interval of level 1 - 2 a has the one-sided bound of level 1 - a
            if test.proportion_ci(1 - 2 * FAILURE / len(grid), "exact").low >= precision:
                best = threshold
    return best


@settings(max_examples=25)
@given(seed=st.integers(0, 1 << 30), cells=st.integers(1, 300), levels=st.sampled_from([3, 1000]))
def test_the_threshold_is_the_definitions(seed: int, cells: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    confidence = random.integers(0, levels, cells) / levels
    right = random.random(cells) < 0.8 + 0.2 * confidence
    assert choose_threshold(confidence, right, 0.85).threshold == bound_by_loops(confidence, right, 0.85)


@given(seed=st.integers(0, 1 << 30), shift=st.floats(0.1, 3))
def test_only_the_order_of_confidences_counts(seed: int, shift: float) -> None:
    random = np.random.default_rng(seed)
    confidence, right = random.random(200), random.random(200) < 0.97
    one, other = choose_threshold(confidence, right, 0.9), choose_threshold(np.exp(confidence * shift), right, 0.9)
    assert (one.coverage, one.bound) == pytest.approx((other.coverage, other.bound), nan_ok=True)
    order = random.permutation(200)
    assert choose_threshold(confidence[order], right[order], 0.9) == one


@given(cells=st.integers(0, 5000), precision=st.floats(0.5, 0.999), failure=st.floats(0.001, 0.3))
def test_the_grid_tests_only_ranks_that_can_pass(cells: int, precision: float, failure: float) -> None:
    grid = rank_grid(cells, precision, failure)
    assert bool(grid) == (cells >= fewest_cells(precision, failure))
    assert grid == sorted(set(grid))
    assume(grid)
    assert precision_bound(grid[0], grid[0], failure / len(grid)) >= precision - 1e-9
    assert grid[-1] == cells or len(grid) == 1


def test_few_cells_warrant_nothing() -> None:
    assert fewest_cells(0.97, 0.05) == 99
    none = choose_threshold(np.arange(98.0), np.ones(98, bool), 0.97)
    assert none.threshold == math.inf
    assert (none.cells, none.coverage, none.fewest) == (98, 0, 99)
    assert math.isnan(none.precision)
    assert choose_threshold(np.arange(99.0), np.ones(99, bool), 0.97).coverage == 1
    assert choose_threshold(np.empty(0), np.empty(0, bool), 0.97).threshold == math.inf


def test_confidences_that_are_no_number_are_the_lowest() -> None:
    confidence = np.concatenate([np.full(50, np.nan), np.ones(100) + np.arange(100) / 100])
    right = np.concatenate([np.zeros(50, bool), np.ones(100, bool)])
    chosen = choose_threshold(confidence, right, 0.9)
    assert chosen.coverage <= 2 / 3
    assert chosen.precision == 1


def test_a_sets_confidence_is_the_mean_probability_of_its_decisions() -> None:
    probabilities = np.array([[0.9, 0.2, 0.6], [1.0, 0.0, 0.0]], np.float32)
    predicted = np.array([[True, False, False], [True, False, True]])
    expected = [(0.9 * 0.8 * 0.4) ** (1 / 3), 0.0]
    assert set_confidence(probabilities, predicted) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("precision", [0, 1, 97, -0.1, 1.5, math.nan, "0.97", None])
def test_a_precision_that_is_no_share_is_refused(precision: float) -> None:
    with pytest.raises(UsageError, match=r"give a share between 0 and 1, such as 0\.97"):
        choose_threshold(np.ones(3), np.ones(3, bool), precision)
    with pytest.raises(UsageError, match=r"for 97% write 0\.97"):
        choose_threshold(np.ones(3), np.ones(3, bool), 97)
