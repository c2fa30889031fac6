"""Folds keep groups whole, hold out each labeled row once, and spread every class."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from catalog.folds import NOT_IN_A_FOLD, class_counts, group_codes, stratified_folds
from catalog.label_space import UNKNOWN, LabelSpace

SPACE = LabelSpace({"color": ("blue", "red"), "tags": ("a", "b")}, ["tags"])


def test_classes_and_distinct_sets_are_counted_and_blanks_are_not() -> None:
    targets = np.array([[0, 0b01], [1, UNKNOWN], [UNKNOWN, 0b11], [UNKNOWN, UNKNOWN], [1, 0b01]])
    expected = [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 1, 0]]
    assert class_counts(targets, SPACE).tolist() == expected


@given(st.integers(2, 5), st.integers(0, 99), st.integers(10, 60), st.data())
def test_each_class_is_spread_as_evenly_as_its_number_allows(
    folds: int, seed: int, rows: int, data: st.DataObject
) -> None:
    labels = np.array(data.draw(st.lists(st.integers(-1, 3), min_size=rows, max_size=rows)))
    counts = np.eye(5)[labels][:, :4]
    assigned = stratified_folds(counts, np.arange(rows), folds, seed)
    assert np.array_equal(assigned == NOT_IN_A_FOLD, labels < 0)
    for label in range(4):
        sizes = np.bincount(assigned[labels == label], minlength=folds)
        assert sizes.max() - sizes.min() <= 1  # one attribute: perfect


def test_several_attributes_are_spread_at_once() -> None:
    rng = np.random.default_rng(0)
    columns = [rng.choice(size, 600, p=np.arange(size, 0, -1) / sum(range(size + 1))) for size in (12, 5, 3)]
    counts = np.concatenate([np.eye(column.max() + 1)[column] for column in columns], axis=1)
    assigned = stratified_folds(counts, np.arange(600), 5, seed=1)
    sizes = np.stack([counts[assigned == fold].sum(axis=0) for fold in range(5)])
    assert np.abs(sizes - counts.sum(axis=0) / 5).max() <= 2
    assert not np.array_equal(assigned, stratified_folds(counts, np.arange(600), 5, seed=2))
    assert np.array_equal(assigned, stratified_folds(counts, np.arange(600), 5, seed=1))


def test_groups_stay_whole_and_the_spread_is_as_even_as_that_of_scikit_learn() -> None:
    ours, theirs = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 4, 800)
        codes = np.unique(rng.zipf(1.3, 800) % 90, return_inverse=True)[1]
        counts = np.eye(4)[labels]

        assigned = stratified_folds(counts, codes, 3, seed)
        assert all(len(set(assigned[codes == code])) == 1 for code in set(codes))
        other = np.empty(800, dtype=np.int64)
        for fold, (_, held) in enumerate(StratifiedGroupKFold(3).split(labels, labels, codes)):
            other[held] = fold
        for spreads, folds in ((ours, assigned), (theirs, other)):
            sizes = np.stack([counts[folds == fold].sum(axis=0) for fold in range(3)])
            spreads.append(float((sizes / counts.sum(axis=0)).std(axis=0).mean()))
    assert np.mean(ours) <= 1.1 * np.mean(theirs)


def test_an_unlabeled_row_follows_its_group_and_an_unlabeled_group_is_never_held_out() -> None:
    counts = np.array([[1.0], [0.0], [1.0], [0.0]])
    assigned = stratified_folds(counts, np.array([0, 0, 1, 2]), 2, seed=0)
    assert assigned[0] == assigned[1] != assigned[2] != NOT_IN_A_FOLD
    assert assigned[3] == NOT_IN_A_FOLD


@pytest.mark.parametrize("cells", [["x", None, "y", "x", None], None])
def test_a_blank_group_is_a_group_of_its_own(cells: list[str | None] | None) -> None:
    codes = group_codes(pa.array(cells).dictionary_encode() if cells else None, 5)
    assert len(set(codes.tolist())) == (4 if cells else 5)
    assert (codes[0] == codes[3]) == bool(cells)
    assert set(codes.tolist()) == set(range(len(set(codes.tolist()))))
