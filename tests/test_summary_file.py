"""Reading of a run's summary.csv: its attributes, rows, and best epochs."""

import csv
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from summary_files import write_summary

from reports.summary_file import attributes_in, best_epoch, read_summary
from runtime.errors import UsageError
from training.summary import epoch_row, measured_columns, metric_names, no_metrics

NAMES = st.sampled_from(
    [
        *("color", "color_loss", "color_top5", "color_knn20", "color_weight", "ema_color", "eval_color", "gloss"),
        *("loss", "top1", "top5", "knn20", "balanced_accuracy", "map", "weight"),
        *("epoch", "train", "eval", "ema", "simclr"),
    ]
)


@given(st.lists(NAMES, unique=True, max_size=5), st.booleans(), st.booleans(), st.randoms(use_true_random=False))
def test_the_attributes_of_any_run_are_found_in_any_order_of_columns(names, ema, neighbors, random) -> None:
    measured = measured_columns(names, True, neighbors)
    multi_valued = names[:1]
    try:
        metric_names(names, ema, True, measured, multi_valued)
    except UsageError:
        assume(False)
    metrics = no_metrics(names, multi_valued)
    train = dict.fromkeys(("loss", "top1", "lr", "simclr_loss", "classification_loss"), 0.0)
    header = [*epoch_row(0, train, metrics, metrics if ema else None), *measured]
    assert attributes_in(header) == names
    random.shuffle(header)
    assert attributes_in(header) == [column for column in header if column in names]


def test_columns_that_a_resumed_run_appended_do_not_hide_the_attributes(tmp_path: Path) -> None:
    path = write_summary(tmp_path / "summary.csv", attributes=("color",))
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = sorted(rows[0])  # balanced accuracy and losses no longer enclose the attributes
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    assert read_summary(path).attributes == ["color"]


def test_attributes_with_odd_names_are_found(tmp_path: Path) -> None:
    names = ("$x^$", "_hidden", "颜色", "größe\\", "two words")
    assert read_summary(write_summary(tmp_path / "summary.csv", attributes=names)).attributes == list(names)


def test_blank_nan_and_infinite_cells_are_left_out(tmp_path: Path) -> None:
    path = write_summary(tmp_path / "summary.csv", eval_loss="", eval_top1="nan", train_loss="inf", simclr_loss="")
    first, second, _ = read_summary(path).rows
    assert "eval_top1" in first
    assert not {"eval_loss", "eval_top1", "train_loss", "simclr_loss"} & set(second)


def test_the_later_row_of_an_epoch_counts(tmp_path: Path) -> None:
    run = read_summary(write_summary(tmp_path / "summary.csv", rows=2, epoch="0", eval_top1="7"))
    assert [row["eval_top1"] for row in run.rows] == [7]


def test_a_row_that_is_still_being_written_may_be_short(tmp_path: Path) -> None:
    path = write_summary(tmp_path / "summary.csv")
    path.write_text(path.read_text() + "3,2.5\n")
    assert read_summary(path).rows[-1] == {"epoch": 3.0, "train_loss": 2.5}


def test_the_best_epoch_is_the_first_of_the_best_values() -> None:
    rows = [{"epoch": 0.0, "a": 2.0}, {"epoch": 3.0, "a": 5.0}, {"epoch": 4.0}, {"epoch": 6.0, "a": 5.0}]
    rows.append({"epoch": 7.0, "a": 1.0})
    assert best_epoch(rows, "a") == (3, 5.0)
    assert best_epoch(rows, "a", lowest=True) == (7, 1.0)
    assert best_epoch(rows, "b") is None


@pytest.mark.parametrize(
    ("cells", "rows", "sentence"),
    [
        ({"classification_loss": "drop"}, 2, "has no column 'classification_loss': give the summary.csv"),
        ({"eval_top1": "high"}, 2, "row 3: eval_top1 'high' is not a number"),
        ({"epoch": ""}, 2, "row 3 has no epoch"),
        ({}, 0, "has no epoch yet"),
    ],
)
def test_a_broken_summary_is_refused_in_one_sentence(
    tmp_path: Path, cells: dict[str, str], rows: int, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        read_summary(write_summary(tmp_path / "summary.csv", rows=rows, **cells))
