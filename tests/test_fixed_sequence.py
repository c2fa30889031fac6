"""Thresholds that the cells to fill give, tested in a fixed order, keep their promise and fill more cells."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import beta, binom

from serving.fixed_sequence import choose_in_sequence, threshold_grid
from serving.selective import FAILURE, choose_threshold, fewest_cells

Floats = npt.NDArray[np.float64]


def draw(cells: int, seed: int, slope: float) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return confidences, uniform, and whether predictions are right: 1 - slope * (1 - confidence) are."""
    random = np.random.default_rng(seed)
    confidence = random.random(cells)
    return confidence, random.random(cells) >= slope * (1 - confidence)


@pytest.mark.parametrize(("precision", "cells", "fill"), [(0.85, 200, 1000), (0.9, 900, 30), (0.9, 900, 1000)])
def test_the_promise_and_the_interval_hold_in_the_stated_share_of_draws(
    precision: float, cells: int, fill: int
) -> None:
    draws, slope = 200, 0.4
    broken = outside = filled = 0
    for seed in range(draws):
        to_fill, _ = draw(fill, draws + seed, slope)
        found = choose_in_sequence(*draw(cells, seed, slope), to_fill, precision, FAILURE, FAILURE)
        if found.value < math.inf:
            truth = 1 - slope / 2 * (1 - max(0.0, found.value))
            filled += 1
            broken += truth < precision
            outside += not found.low <= truth <= found.high
    assert filled > draws / 4
    assert broken <= FAILURE * draws
    assert outside <= FAILURE * draws


def test_the_promise_holds_where_every_threshold_would_break_it_narrowly() -> None:
    broken = 0
    for seed in range(400):
        random = np.random.default_rng(seed)
        right = random.random(500) < 0.9 - 1e-9
        found = choose_in_sequence(random.random(500), right, random.random(400), 0.9, FAILURE, FAILURE)
        broken += found.value < math.inf
    assert broken <= binom.ppf(0.999, 400, FAILURE)


def by_loops(confidence: Floats, right: Floats, thresholds: list[float], precision: float) -> float:
    """Return the last threshold before the first whose lower bound is below the precision."""
    chosen = math.inf
    for value in thresholds:
        above = [bool(hit) for sure, hit in zip(confidence, right, strict=True) if sure > value]
        good = sum(above)
        if not good or beta.ppf(FAILURE, good, len(above) - good + 1) < precision:
            return chosen
        chosen = value
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_the_sequence_ends_at_the_first_threshold_that_is_not_warranted(seed: int) -> None:
    confidence, right = draw(600, seed, 0.4)
    to_fill, _ = draw(300, 100 + seed, 0.4)
    thresholds = threshold_grid(600, to_fill, 0.9)
    found = choose_in_sequence(confidence, right, to_fill, 0.9, FAILURE, FAILURE)
    assert found.value == by_loops(confidence, right, thresholds, 0.9)
    assert (found.above, found.right) == ((confidence > found.value).sum(), right[confidence > found.value].sum())
    share = FAILURE / 2 / len(thresholds)
    assert found.low == pytest.approx(beta.ppf(share, found.right, found.above - found.right + 1))
    assert found.high == pytest.approx(beta.ppf(1 - share, found.right + 1, found.above - found.right))
    assert found.expected == (found.right + 1) / (found.above + 2)


def test_it_fills_more_cells_than_ranks_with_a_correction() -> None:
    ours, theirs = [], []
    for seed in range(30):
        held_out, (to_fill, _) = draw(800, seed, 0.3), draw(1000, 100 + seed, 0.3)
        found = choose_in_sequence(*held_out, to_fill, 0.9, FAILURE, FAILURE)
        ours.append((to_fill > found.value).mean())
        theirs.append((to_fill > choose_threshold(*held_out, 0.9).threshold).mean())
    assert np.mean(ours) > np.mean(theirs) + 0.05


def test_the_thresholds_depend_on_the_number_of_held_out_cells_and_on_the_cells_to_fill_alone() -> None:
    to_fill = np.arange(100) / 100
    thresholds = threshold_grid(1000, to_fill, 0.9)
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[-1] == -math.inf
    for cells, multiple in ((200, 2), (1000, 4)):
        first = multiple * fewest_cells(0.9, FAILURE) / cells  # the share of cells above the first threshold
        assert (to_fill > threshold_grid(cells, to_fill, 0.9)[0]).sum() == math.floor(100 * first + 1e-6)
    assert threshold_grid(fewest_cells(0.9, FAILURE) - 1, to_fill, 0.9) == []
    assert threshold_grid(fewest_cells(0.9, FAILURE), to_fill, 0.9) == [-math.inf]
    assert threshold_grid(1000, np.empty(0), 0.9) == []


def test_cells_that_tie_are_filled_together_or_not_at_all() -> None:
    to_fill = np.repeat([0.5, 0.9], 50)
    found = choose_in_sequence(
        np.repeat([0.5, 0.9], 200), np.repeat([False, True], 200), to_fill, 0.9, FAILURE, FAILURE
    )
    assert found.value == 0.5
