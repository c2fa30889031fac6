"""Which steps and epochs are watched, and what of it stands in summary.csv."""

import math

import pytest

from runtime.errors import UsageError
from simclr import PROJECTION_METRICS
from training.summary import lower_is_better, metric_names
from training.watch import (
    is_due,
    is_measured,
    named_accuracies,
    neighbors_lines,
    projections_line,
    watched_columns,
    watched_row,
    weights_line,
)

NAMES = ("color", "shape")
WEIGHTS = ["simclr_weight", "classification_weight", "color_weight", "shape_weight"]


@pytest.mark.parametrize(("steps", "measured"), [(1, 1), (7, 7), (39, 39), (40, 20), (1000, 20), (1010, 21)])
def test_about_twenty_steps_of_an_epoch_are_measured_the_first_among_them(steps: int, measured: int) -> None:
    assert sum(is_measured(step, steps) for step in range(steps)) == measured
    assert is_measured(0, steps)


def test_neighbors_are_asked_at_the_interval_and_at_the_end() -> None:
    assert [epoch for epoch in range(8) if is_due(epoch, 3, 8)] == [2, 5, 7]
    assert not any(is_due(epoch, 0, 8) for epoch in range(8))


def test_every_number_has_its_column_and_what_was_not_measured_is_blank() -> None:
    columns = watched_columns(NAMES, contrast=True, neighbors=True)
    numbers = {name: float(place) for place, name in enumerate(PROJECTION_METRICS)} | {"loss": 9.0, "color_loss": 8.0}
    row = watched_row(columns, numbers)
    assert {name: value for name, value in row.items() if value is not None} == {
        f"train_{name}": float(place) for place, name in enumerate(PROJECTION_METRICS)
    }
    asked = named_accuracies({20: [50.0, 70.0], 200: [40.0, math.nan]}, NAMES, [1.0, 3.0])
    weights = dict.fromkeys(WEIGHTS, 0.5)
    row = watched_row(columns, numbers | asked | weights | {"effective_rank_h": 7.0, "variance_h": 0.5})
    assert None not in row.values()
    assert (row["eval_knn20"], row["color_knn20"], row["shape_knn20"]) == (65, 50, 70)  # weighted
    assert (row["eval_knn200"], row["train_effective_rank_h"]) == (40, 7)


def test_columns_are_there_only_for_what_is_watched() -> None:
    assert watched_columns(NAMES, contrast=False, neighbors=False) == WEIGHTS
    of_no_attribute = ["train_effective_rank_h", "train_variance_h", *WEIGHTS[:2]]
    assert watched_columns((), contrast=False, neighbors=True) == of_no_attribute
    assert not [name for name in watched_columns(NAMES, contrast=True, neighbors=False) if "knn" in name]


def test_a_watched_column_may_choose_the_best_checkpoint() -> None:
    columns = watched_columns(NAMES, contrast=True, neighbors=True)
    names = metric_names(NAMES, ema=False, watched=columns)
    assert {*columns, "knn20", "knn200"} <= set(names)
    lower = {name for name in columns if lower_is_better(name, NAMES)}
    assert lower == {"train_alignment", "train_uniformity", "train_false_negatives"}
    with pytest.raises(UsageError, match="cannot be called 'color_knn20'"):
        metric_names(("color", "color_knn20"), ema=False, watched=watched_columns(("color", "color_knn20"), True, True))


def test_the_lines_name_every_number() -> None:
    line = projections_line({name: place + 0.5 for place, name in enumerate(PROJECTION_METRICS)})
    unknown = dict.fromkeys(PROJECTION_METRICS, 1.0) | {"false_negatives": math.nan}
    assert projections_line(unknown).endswith("Effective rank: 1.00")
    assert line == (
        "Contrastive Acc@1: 4.500  Alignment: 0.5000  Uniformity: 1.5000  Effective rank: 2.50  False negatives: 5.50%"
    )
    asked = named_accuracies({20: [50.0, 70.0], 200: [40.0, 60.0]}, NAMES, [1.0, 1.0])
    assert neighbors_lines(asked, NAMES) == [
        "k = 20: 60.000  color: 50.000  shape: 70.000",
        "k = 200: 50.000  color: 40.000  shape: 60.000",
    ]
    assert neighbors_lines({}, ()) == []
    assert weights_line({"simclr_weight": 0.1, "color_weight": 1.25}) == "simclr: 0.100  color: 1.250"
