"""A promised precision holds for each class with enough held-out cells, and costs no more than it has to."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from serving.class_promise import OTHERS, HeldOut, Promise, ToFill, choose_promise, make_promise, own_groups
from serving.fixed_sequence import choose_in_sequence
from serving.selective import FAILURE, fewest_cells

MASS = np.array([0.45, 0.3, 0.15, 0.06, 0.04])
DRAWS = 150
Floats = npt.NDArray[np.float64]


def draw(cells: int, errors: Floats, seed: int) -> HeldOut:
    """Return cells of a known population: a class errs at its own rate, the less the more confident."""
    random = np.random.default_rng(seed)
    predicted = random.choice(len(MASS), cells, p=MASS)
    confidence = random.random(cells)
    right = random.random(cells) >= 2 * errors[predicted] * (1 - confidence)
    return HeldOut(confidence, predicted, right)


def to_fill(cells: HeldOut) -> ToFill:
    """Return the predictions of cells."""
    return ToFill(cells.confidence, cells.predicted)


def true_precision(threshold: float, codes: list[int], errors: Floats) -> float:
    """Return the precision of classes above a threshold: the confidence is uniform, whatever the class."""
    return 1 - float(MASS[codes] @ errors[codes] / MASS[codes].sum()) * (1 - max(0.0, threshold))


def truths(promise: Promise, errors: Floats) -> list[tuple[float, float, float]]:
    """Return for each group that fills anything its bounds and its true precision."""
    found = []
    for group, one in promise.groups.items():
        if one.value < math.inf:
            codes = [code for code, name in enumerate(promise.group_of) if name == group]
            found.append((one.low, true_precision(one.value, codes, errors), one.high))
    return found


@pytest.mark.parametrize(("precision", "by_class"), [(0.9, True), (0.95, False), (0.9, None)])
def test_the_promise_holds_in_the_stated_share_of_draws(precision: float, by_class: bool | None) -> None:
    errors = np.array([0.02, 0.08, 0.05, 0.3, 0.4])
    broken = outside = filled = 0
    for seed in range(DRAWS):
        table = draw(1000, errors, DRAWS + seed)
        promise = choose_promise(draw(900, errors, seed), to_fill(table), 5, precision, by_class)
        found = truths(promise, errors)
        filled += bool(found)
        broken += any(truth < precision for _, truth, _ in found)
        outside += any(not low <= truth <= high for low, truth, high in found)
    assert filled > DRAWS / 2
    assert broken <= FAILURE * DRAWS
    assert outside <= FAILURE * DRAWS


@pytest.mark.parametrize("by_class", [True, False, None])
def test_the_promise_holds_where_every_threshold_would_break_it_narrowly(by_class: bool | None) -> None:
    broken = 0
    for seed in range(DRAWS):
        random = np.random.default_rng(seed)
        predicted, confidence = random.choice(len(MASS), 900, p=MASS), random.random(900)
        cells = HeldOut(confidence, predicted, random.random(900) < 0.9 - 1e-9)  # the least favorable distribution
        promise = choose_promise(cells, to_fill(draw(700, MASS, DRAWS + seed)), 5, 0.9, by_class)
        broken += any(one.value < math.inf for one in promise.groups.values())
    assert broken <= FAILURE * DRAWS


def test_a_class_that_errs_is_not_hidden_behind_one_that_does_not() -> None:
    errors = np.array([0.0, 0.0, 0.45, 0.0, 0.0])
    cells = draw(3000, errors, 0)
    table = draw(5000, errors, 1)
    whole, grouped = (choose_promise(cells, to_fill(table), 5, 0.9, by_class) for by_class in (False, True))
    of_class = table.predicted == 2
    assert whole.warranted(table.predicted, table.confidence)[of_class].mean() > 0.9
    filled = grouped.warranted(table.predicted, table.confidence)
    assert filled[~of_class].all()
    assert filled[of_class].mean() < 0.3


def test_one_threshold_is_taken_where_groups_would_fill_far_fewer_cells() -> None:
    errors = np.full(5, 0.05)
    cells, table = draw(900, errors, 0), draw(1000, errors, 1)
    assert not choose_promise(cells, to_fill(table), 5, 0.93).by_class
    assert choose_promise(cells, to_fill(table), 5, 0.93, True).by_class
    assert choose_promise(draw(3000, np.zeros(5), 0), to_fill(table), 5, 0.9).by_class


def test_groups_depend_on_the_numbers_of_predictions_alone() -> None:
    limit = 3 * fewest_cells(0.9, FAILURE / 3)
    assert own_groups([limit + 1, 5, limit, 7], 0.9, FAILURE) == [0, 2]
    assert own_groups([10, 20], 0.9, FAILURE) == []
    assert own_groups([10**6, 10**6], 0.9, FAILURE) == [0, 1]
    cells, table = draw(2000, np.full(5, 0.3), 0), to_fill(draw(100, MASS, 1))
    right = choose_promise(HeldOut(cells.confidence, cells.predicted, np.ones(2000, bool)), table, 5, 0.9, True)
    wrong = choose_promise(HeldOut(cells.confidence, cells.predicted, np.zeros(2000, bool)), table, 5, 0.9, True)
    assert right.by_class == wrong.by_class == (0, 1, 2)
    assert right.group_of == (0, 1, 2, OTHERS, OTHERS)


def test_each_group_shares_the_failure() -> None:
    cells, table = draw(2000, np.full(5, 0.02), 0), draw(500, MASS, 1)
    promise = make_promise(cells, to_fill(table), 5, 0.9, True, FAILURE)
    rows, others = cells.predicted == 1, table.confidence[table.predicted == 1]
    share = FAILURE / 4
    assert promise.groups[1] == choose_in_sequence(cells.confidence[rows], cells.right[rows], others, 0.9, share, share)
    whole = make_promise(cells, to_fill(table), 5, 0.9, False, FAILURE)
    assert whole.groups[OTHERS] == choose_in_sequence(
        cells.confidence, cells.right, table.confidence, 0.9, FAILURE, FAILURE
    )
    assert whole.cells == promise.cells == 2000


def test_the_expected_precision_is_weighted_by_the_filled_cells() -> None:
    cells, table = draw(3000, np.array([0.0, 0.02, 0.02, 0.02, 0.02]), 0), draw(500, MASS, 1)
    promise = choose_promise(cells, to_fill(table), 5, 0.9, True)
    one, other = promise.groups[0], promise.groups[1]
    mean, low, high = promise.expected(np.array([0] * 30 + [1] * 10))
    means = [(group.right + 1) / (group.above + 2) for group in (one, other)]
    assert mean == pytest.approx(0.75 * means[0] + 0.25 * means[1])
    assert (low, high) == pytest.approx((0.75 * one.low + 0.25 * other.low, 0.75 * one.high + 0.25 * other.high))
    assert 0.9 <= low < mean < high
    assert all(map(math.isnan, promise.expected(np.array([], int))))


def test_cells_without_a_prediction_are_never_filled() -> None:
    cells = draw(500, np.zeros(5), 0)
    table = ToFill(np.array([np.nan, 0.5, 0.9]), np.array([-1, 0, 1]))
    promise = choose_promise(cells, table, 5, 0.9, False)
    assert promise.warranted(table.predicted, table.confidence).tolist() == [False, True, True]
    nothing = HeldOut(np.empty(0), np.empty(0, int), np.empty(0, bool))
    assert not choose_promise(nothing, table, 5, 0.9).warranted(table.predicted, table.confidence).any()
