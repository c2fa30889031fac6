"""Scores of each class, confusion matrices, and their pictures."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from reports.per_class import OUTSIDE, class_scores, draw_confusion, file_stems, write_per_class

Ints = npt.NDArray[np.int64]


def random_labels(classes: int = 7, rows: int = 200) -> tuple[Ints, Ints, Ints]:
    """Return labels, predictions and their matrix; the last class has no label, the first is never predicted."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, classes - 1, rows)
    predictions = np.where(rng.random(rows) < 0.5, np.maximum(labels, 1), rng.integers(1, classes, rows))
    matrix = np.zeros((classes + 1, classes), dtype=np.int64)
    np.add.at(matrix, (labels, predictions), 1)
    return labels, predictions, matrix


def test_scores_equal_those_from_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, predictions, matrix = random_labels()
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predictions, labels=range(7), zero_division=np.nan
    )
    scores = class_scores(matrix)
    np.testing.assert_allclose(scores["precision"], 100 * precision)
    np.testing.assert_allclose(scores["recall"], 100 * recall)
    np.testing.assert_allclose(scores["f1"], 100 * f1)
    np.testing.assert_array_equal(scores["support"], support)


def test_labels_outside_the_label_space_lower_precision_but_not_recall() -> None:
    scores = class_scores(np.array([[3, 0], [0, 4], [1, 0]]))
    assert scores["precision"].tolist() == [75.0, 100.0]
    assert scores["recall"].tolist() == [100.0, 100.0]


def test_the_tables_have_the_classes_in_the_order_of_the_label_space(tmp_path: Path) -> None:
    matrix = np.array([[2, 1], [0, 0], [0, 0]])
    table, confusion, picture = write_per_class(tmp_path / "new", {"color": matrix}, {"color": ("red", "blue")})
    assert read(table) == [
        ["class", "precision", "recall", "f1", "support"],
        ["red", "100.0000", "66.6667", "80.0000", "3"],
        ["blue", "0.0000", "", "0.0000", "0"],
    ]
    assert read(confusion) == [["label \\ prediction", "red", "blue"], ["red", "2", "1"], ["blue", "0", "0"]]
    assert picture.name == "color-confusion.png"
    assert min(picture_size(picture)) > 300


def test_labels_outside_the_label_space_fill_the_last_row(tmp_path: Path) -> None:
    matrix = np.array([[2, 1], [0, 0], [5, 6]])
    _, confusion, _ = write_per_class(tmp_path, {"color": matrix}, {"color": ("red", "blue")})
    assert read(confusion)[-1] == [OUTSIDE, "5", "6"]


def test_attributes_with_any_name_get_different_files(tmp_path: Path) -> None:
    names = ["a/b", "a\\b", "A/B", "gender", "gender-confusion", "..", "", "色", "x" * 300, "色" * 300, "con: $x_1$"]
    stems = file_stems(names)
    assert stems[:5] == ["a_b", "a_b-2", "A_B-3", "gender", "gender-confusion-2"]
    files = [stem + end for stem in stems for end in (".csv", "-confusion.csv", "-confusion.png")]
    assert len({file.casefold() for file in files}) == 3 * len(names)
    for file in files:
        (tmp_path / file).touch()
    assert len(list(tmp_path.iterdir())) == 3 * len(names)


@pytest.mark.parametrize("classes", [2, 5, 40, 41, 141])
def test_a_picture_fits_any_number_of_classes(tmp_path: Path, classes: int) -> None:
    names = [f"Class number {i} with a rather long name" for i in range(classes)]
    matrix = np.random.default_rng(0).integers(0, 9, (classes + 1, classes))
    figure = draw_confusion("article", names, matrix, "a run")
    figure.savefig(tmp_path / "p.png")
    width, height = picture_size(tmp_path / "p.png")
    assert 300 < width < 2400
    assert 300 < height < 2400
    written = {label.get_text() for label in figure.axes[0].get_yticklabels()}
    assert any("Class number" in text for text in written) == (classes <= 40)


def test_a_picture_shows_percents_of_rows_and_leaves_empty_rows_gray() -> None:
    figure = draw_confusion("color", ["red", "blue"], np.array([[3, 1], [0, 0], [0, 0]]))
    shown: Any = figure.axes[0].images[0].get_array()
    assert shown[0].tolist() == [75.0, 25.0]
    assert shown.mask[1].all()
    assert figure.axes[0].get_title(loc="left") == "color: 75.0% of 4 right"


def test_names_with_formulas_underscores_and_other_scripts_are_drawn_as_they_are(tmp_path: Path) -> None:
    names = ["$x_1$", "_hidden", "红色", "100 % \\frac{", "two\nlines"]
    figure = draw_confusion("$a$ 色", names, np.eye(6, 5, dtype=np.int64))
    figure.savefig(tmp_path / "p.png")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[:2] == ["$x_1$", "_hidden"]
    assert labels[4] == "two lines"


def test_an_attribute_without_labels_gets_all_files(tmp_path: Path) -> None:
    paths = write_per_class(tmp_path, {"a": np.zeros((3, 2), dtype=np.int64)}, {"a": ("x", "y")})
    assert all(path.exists() for path in paths)


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def picture_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size
