"""Confident learning is the paper's: per-class thresholds, the confident joint's off-diagonal, normalized margins."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.confident_learning import FEWEST, confident_suspects

Floats = npt.NDArray[np.float64]


def noisy(seed: int, rows: int, classes: int) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return probabilities, given labels with some wrong ones, and the true labels."""
    random = np.random.default_rng(seed)
    truth = random.integers(classes, size=rows)
    logits = random.normal(size=(rows, classes)) + 4 * np.eye(classes)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wrong = (truth + random.integers(1, classes, size=rows)) % classes
    return probabilities, np.where(random.random(rows) < 0.1, wrong, truth), truth


def by_loops(probabilities: Floats, given_codes: npt.NDArray[np.int64]) -> list[tuple[int, int, float]]:
    """Return row, likely class and margin of each suspect by the definitions, in float64."""
    rows, classes = probabilities.shape
    thresholds = []
    for j in range(classes):
        own = [float(probabilities[i, j]) for i in range(rows) if given_codes[i] == j]
        thresholds.append(sum(own) / len(own) if own else float("inf"))
    found = []
    for i in range(rows):
        if list(given_codes).count(given_codes[i]) < FEWEST:
            continue
        confident = [j for j in range(classes) if probabilities[i, j] >= thresholds[j]]
        likely = max(confident or range(classes), key=lambda j: probabilities[i, j])
        if likely != given_codes[i]:
            others = [float(probabilities[i, j]) for j in range(classes) if j != given_codes[i]]
            found.append((i, likely, float(probabilities[i, given_codes[i]]) - max(others)))
    return sorted(found, key=lambda one: one[2])


@settings(max_examples=20)
@given(seed=st.integers(0, 1 << 30), rows=st.integers(1, 120), classes=st.integers(2, 6))
def test_suspects_are_those_of_the_paper(seed: int, rows: int, classes: int) -> None:
    probabilities, labels, _ = noisy(seed, rows, classes)
    found = confident_suspects(probabilities, labels)
    expected = by_loops(probabilities, labels)
    assert list(zip(found.rows, found.likely, strict=True)) == [(row, likely) for row, likely, _ in expected]
    assert found.margin == pytest.approx([margin for *_, margin in expected])


def test_the_off_diagonal_is_that_of_cleanlab() -> None:
    filter_ = pytest.importorskip("cleanlab.filter")
    probabilities, labels, _ = noisy(0, 2000, 5)
    theirs = filter_.find_label_issues(labels, probabilities, filter_by="confident_learning")
    found = confident_suspects(probabilities, labels)
    ours = set(found.rows.tolist())
    assert set(np.flatnonzero(theirs).tolist()) <= ours  # ours also has those that reach no threshold


def test_planted_errors_are_found() -> None:
    probabilities, labels, truth = noisy(1, 2000, 5)
    planted = np.flatnonzero(labels != truth)
    found = confident_suspects(probabilities, labels)
    assert np.isin(planted, found.rows[: 2 * len(planted)]).mean() > 0.9


def test_a_class_that_nobody_is_sure_of_has_a_low_threshold() -> None:
    # class 1 is given at 0.4 on average, so 0.45 is confident for it, and for class 0 it is not
    probabilities = np.array([[0.9, 0.1]] * 6 + [[0.6, 0.4]] * 6 + [[0.55, 0.45]])
    labels = np.array([0] * 6 + [1] * 6 + [0])
    assert confident_suspects(probabilities, labels).rows.tolist() == [12]


def test_labels_of_a_rare_class_are_not_judged() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0]] * 20 + [[0.95, 0.05, 0.0]] * 3)
    labels = np.array([0] * 20 + [2] * 3)
    assert not len(confident_suspects(probabilities, labels).rows)
