"""summary.csv: its columns, which of them may choose the best checkpoint, and the rows of a resumed run."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import UsageError
from simclr import PROJECTION_METRICS
from timm.utils import trim_summary
from training.summary import (
    drop_rows,
    epoch_row,
    is_due,
    lower_is_better,
    measured_columns,
    measured_row,
    metric_interval,
    metric_names,
    metric_value,
    named_accuracies,
    no_metrics,
    ranked,
    soft_columns,
    soft_row,
    write_summary,
)

TRAIN = {"loss": 1.5, "top1": 60.0, "lr": 0.1, "simclr_loss": 3.0, "classification_loss": 1.2}
NAMES = ("color", "gloss")
ATTRIBUTES = ("color", "shape")
WEIGHTS = ["simclr_weight", "classification_weight", "color_weight", "shape_weight"]


def metrics(first: float = 0.0) -> dict[str, Any]:
    """Return metrics of two attributes, all different."""
    overall = ("loss", "top1", "top5", "balanced_accuracy", "macro_f1", "exact_match")
    within = ("loss", "top1", "top5", "balanced_accuracy", "macro_f1")
    return {name: first + float(place) for place, name in enumerate(overall)} | {
        "attributes": {
            attribute: {name: first + 10 * (index + 1) + place for place, name in enumerate(within)}
            for index, attribute in enumerate(NAMES)
        }
    }


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_columns_are_timms_then_the_losses_then_the_attributes_then_the_rest() -> None:
    row = epoch_row(3, TRAIN, metrics())
    assert list(row)[:11] == [
        *("epoch", "train_loss", "train_top1", "eval_loss", "eval_top1", "eval_top5", "lr"),
        *("simclr_loss", "classification_loss", "color", "gloss"),
    ]
    assert (row["epoch"], row["train_loss"], row["lr"]) == (3, 1.5, 0.1)
    assert (row["eval_loss"], row["eval_top1"], row["color"], row["gloss"]) == (0, 1, 11, 21)
    assert (row["color_loss"], row["gloss_macro_f1"], row["eval_exact_match"]) == (10, 24, 5)


def test_the_averages_columns_stand_beside_the_models_own() -> None:
    row = epoch_row(0, TRAIN, metrics(), metrics(100))
    assert (row["eval_top1"], row["ema_top1"]) == (1, 101)
    assert (row["color"], row["ema_color"]) == (11, 111)
    assert {name for name in row if name.startswith("ema_")} == {
        *(f"ema_{name}" for name in ("loss", "top1", "top5", "balanced_accuracy", "macro_f1", "exact_match", *NAMES)),
        *(f"ema_{a}_{name}" for a in NAMES for name in ("loss", "top5", "balanced_accuracy", "macro_f1")),
    }


def test_an_epoch_without_validation_has_the_same_columns_blank() -> None:
    blank = no_metrics(NAMES)
    row = epoch_row(0, TRAIN, blank, blank)
    assert list(row) == list(epoch_row(0, TRAIN, metrics(), metrics()))
    assert row["eval_top1"] is row["color"] is row["ema_loss"] is None
    assert row["train_loss"] == 1.5


def test_every_logged_metric_may_choose_the_best_checkpoint() -> None:
    row = epoch_row(0, TRAIN, metrics(), metrics(100))
    names = metric_names(NAMES, ema=True)
    assert set(row) - {"epoch", "lr"} <= set(names)
    assert all(metric_value(row, name) is not None for name in names)
    assert metric_value(row, "top1") == metric_value(row, "eval_top1") == 1
    assert metric_value(row, "exact_match") == 5
    assert not any(name.startswith("ema_") for name in metric_names(NAMES, ema=False))
    assert "simclr_loss" not in metric_names(NAMES, ema=False, contrast=False)


@pytest.mark.parametrize(
    "name",
    [
        "epoch",
        "lr",
        "loss",
        "top1",
        "simclr_loss",
        "train_loss",
        "eval_top1",
        "ema_x",
        "classification",
        "simclr",
        "eval",
        "train",
        "ema",
    ],
)
def test_an_attribute_with_a_columns_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"an attribute cannot be called '{name}'"):
        metric_names((name, "color"), ema=False)


def test_an_attribute_that_another_ones_metric_is_called_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be called 'color_loss'"):
        metric_names(("color", "color_loss"), ema=False)


@pytest.mark.parametrize("name", ["loss", "eval_loss", "ema_loss", "train_loss", "simclr_loss", "color_loss"])
def test_a_lower_loss_is_better(name: str) -> None:
    assert lower_is_better(name, NAMES)


@pytest.mark.parametrize("name", ["top1", "color", "gloss", "ema_gloss", "exact_match"])
def test_a_higher_accuracy_is_better_whatever_an_attribute_is_called(name: str) -> None:
    assert not lower_is_better(name, NAMES)


def test_the_best_row_is_last_and_rows_without_a_value_are_left_out() -> None:
    rows = [{"eval_top1": 50.0, "eval_loss": 1.0}, {"eval_top1": None, "eval_loss": math.nan}]
    rows += [{"eval_top1": 70.0, "eval_loss": 0.5}, {"eval_top1": 60.0, "eval_loss": 2.0}]
    assert [row["eval_top1"] for row in ranked(rows, "top1", NAMES)] == [50, 60, 70]
    assert [row["eval_loss"] for row in ranked(rows, "loss", NAMES)] == [2, 1, 0.5]


def test_rows_are_appended_and_what_is_not_a_number_is_blank(tmp_path: Path) -> None:
    path = tmp_path / "summary.csv"
    write_summary(path, epoch_row(0, TRAIN | {"simclr_loss": math.nan}, metrics()))
    write_summary(path, epoch_row(1, TRAIN, no_metrics(NAMES)))
    first, second = read(path)
    assert (first["simclr_loss"], first["color"]) == ("", "11.0")
    assert (second["epoch"], second["color"]) == ("1", "")
    assert [file.name for file in tmp_path.iterdir()] == ["summary.csv"]


def test_columns_that_an_older_row_lacks_go_behind_its_own(tmp_path: Path) -> None:
    path = tmp_path / "summary.csv"
    write_summary(path, epoch_row(0, TRAIN, metrics()))
    write_summary(path, epoch_row(1, TRAIN, metrics(), metrics(100.0)))
    first, second = read(path)
    assert list(first) == list(second)
    assert (first["ema_top1"], second["ema_top1"]) == ("", "101.0")


def test_epochs_that_are_done_again_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "summary.csv"
    for epoch in range(4):
        write_summary(path, epoch_row(epoch, TRAIN, metrics(epoch)))
    trim_summary(str(path), 2)
    assert [row["epoch"] for row in read(path)] == ["0", "1"]


def test_a_measurement_is_due_at_the_interval_and_at_the_end() -> None:
    assert [epoch for epoch in range(8) if is_due(epoch, 3, 8)] == [2, 5, 7]
    assert not any(is_due(epoch, 0, 8) for epoch in range(8))


def test_every_measurement_has_its_column_and_is_blank_where_missing() -> None:
    columns = measured_columns(ATTRIBUTES, contrast=True, neighbors=True)
    numbers = {name: float(place) for place, name in enumerate(PROJECTION_METRICS)} | {"loss": 9.0, "color_loss": 8.0}
    row = measured_row(columns, numbers)
    assert {name: value for name, value in row.items() if value is not None} == {
        f"train_{name}": float(place) for place, name in enumerate(PROJECTION_METRICS)
    }
    searched = named_accuracies({20: [50.0, 70.0], 200: [40.0, math.nan]}, ATTRIBUTES, [1.0, 3.0])
    weights = dict.fromkeys(WEIGHTS, 0.5)
    row = measured_row(columns, numbers | searched | weights | {"effective_rank_h": 7.0, "variance_h": 0.5})
    assert None not in row.values()
    assert (row["eval_knn20"], row["color_knn20"], row["shape_knn20"]) == (65, 50, 70)  # weighted
    assert (row["eval_knn200"], row["train_effective_rank_h"]) == (40, 7)


def test_only_what_is_measured_has_columns() -> None:
    assert measured_columns(ATTRIBUTES, contrast=False, neighbors=False) == WEIGHTS
    without_attributes = ["train_effective_rank_h", "train_variance_h", *WEIGHTS[:2]]
    assert measured_columns((), contrast=False, neighbors=True) == without_attributes
    assert not [name for name in measured_columns(ATTRIBUTES, contrast=True, neighbors=False) if "knn" in name]


def test_a_measured_column_may_choose_the_best_checkpoint() -> None:
    columns = measured_columns(ATTRIBUTES, contrast=True, neighbors=True)
    names = metric_names(ATTRIBUTES, ema=False, measured=columns)
    assert {*columns, "knn20", "knn200"} <= set(names)
    lower = {name for name in columns if lower_is_better(name, ATTRIBUTES)}
    assert lower == {"train_alignment", "train_uniformity", "train_false_negatives"}
    with pytest.raises(UsageError, match="cannot be called 'color_knn20'"):
        metric_names(
            ("color", "color_knn20"), ema=False, measured=measured_columns(("color", "color_knn20"), True, True)
        )


@pytest.mark.parametrize(
    ("metric", "interval"),
    [
        ("top1", 3), ("color", 3), ("eval_loss", 3), ("color_loss", 3), ("ema_top1", 3),
        ("knn20", 5), ("eval_knn200", 5), ("color_knn20", 5), ("train_variance_h", 5),
        ("train_loss", 1), ("simclr_loss", 1), ("train_alignment", 1), ("color_weight", 1),
    ],
)  # fmt: skip
def test_a_metric_has_the_interval_at_which_it_is_measured(metric: str, interval: int) -> None:
    assert metric_interval(metric, ATTRIBUTES, val_interval=3, knn_interval=5) == interval


def test_without_neighbors_their_names_are_free_for_attributes() -> None:
    assert metric_interval("color_knn20", ("color", "color_knn20"), val_interval=3, knn_interval=0) == 3


def test_a_run_with_soft_targets_has_their_columns_and_others_do_not() -> None:
    numbers = {"pseudo_loss": 0.5, "color_pseudo_used": 70.0, "color_pseudo_agreement": 90.0, "pseudo_left_out": 3.0}
    assert soft_row(ATTRIBUTES, numbers | {"loss": 1.0}) == numbers
    assert soft_row(ATTRIBUTES, TRAIN) == {}
    measured = soft_columns(ATTRIBUTES)
    assert metric_names(ATTRIBUTES, False, measured=measured)[-len(measured) :] == measured
    assert "pseudo_loss" not in metric_names(ATTRIBUTES, False)
    assert metric_interval("pseudo_loss", ATTRIBUTES, 5, 10) == 1
    assert lower_is_better("pseudo_loss", ATTRIBUTES)
    assert "pseudo" in metric_names(["pseudo"], False)
    with pytest.raises(UsageError, match="'pseudo', as pseudo_loss is a column"):
        metric_names(["pseudo"], False, measured=soft_columns(["pseudo"]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"epoch,loss\nx,1\n", "has an epoch that is no number"),
        (b"epoch,loss\ninf,1\n", "has an epoch that is no number"),
        (b"epoch,loss\n\xff,1\n", "cannot read"),
        (b'epoch,loss\n0,"' + b"x" * 200_000, "cannot read"),
    ],
)
def test_a_damaged_summary_is_one_sentence_when_a_run_resumes(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "summary.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=reason) as error:
        drop_rows(path, 1)
    assert str(path) in str(error.value)
    assert path.read_bytes() == content


def test_a_row_with_too_many_cells_stays_without_them(tmp_path: Path) -> None:
    path = tmp_path / "summary.csv"
    path.write_text("epoch,loss\n0,1,7,7\n")
    write_summary(path, {"epoch": 1, "loss": 2.0})
    assert path.read_text().split() == ["epoch,loss", "0,1", "1,2.0"]
