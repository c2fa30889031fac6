"""The charts of a run's epochs: its losses, accuracies, nearest neighbors and contrastive health."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports.summary_file import Row, Summary
from reports.svg_chart import Chart, Line


def training_charts(run: Summary) -> list[Chart]:
    """Return the charts of a run; lines and charts without a value are left out when they are drawn."""
    rows = run.rows
    mean = "mean of the attributes" if len(run.attributes) > 1 else "accuracy"
    sets = any("eval_map" in row for row in rows)
    return [
        Chart(
            "Training losses, unweighted",
            (
                _line(rows, "SimCLR", "simclr_loss", 0),
                _line(rows, "classification", "classification_loss", 1),
                _line(rows, "soft targets", "pseudo_loss", 2),
            ),
        ),
        Chart("Validation loss", (_line(rows, "model", "eval_loss", 0), _line(rows, "EMA", "ema_loss", 1, True))),
        Chart(
            f"Validation accuracy, {mean}",
            (_line(rows, "model", "eval_top1", 0), _line(rows, "EMA", "ema_top1", 1, True)),
            percent=True,
        ),
        Chart(
            "Mean average precision of multi-valued attributes",
            (_line(rows, "model", "eval_map", 0), _line(rows, "EMA", "ema_map", 1, True)) if sets else (),
            percent=True,
        ),
        Chart(
            "Nearest neighbors in the representation h",
            (_line(rows, "20 neighbors", "eval_knn20", 2), _line(rows, "200 neighbors", "eval_knn200", 4, True)),
            percent=True,
        ),
        Chart(
            "Contrastive task",
            (
                _line(rows, "finds the other view", "train_contrastive_top1", 0),
                _line(rows, "false negatives", "train_false_negatives", 1, True),
            ),
            percent=True,
        ),
        Chart(
            "Alignment and uniformity (lower is better)",
            (_line(rows, "alignment", "train_alignment", 0), _line(rows, "uniformity", "train_uniformity", 2, True)),
        ),
        Chart(
            "Effective rank (falls when it collapses)",
            (
                _line(rows, "representation h", "train_effective_rank_h", 0),
                _line(rows, "projection z", "train_effective_rank_z", 1, True),
            ),
        ),
    ]


def attribute_chart(run: Summary, name: str) -> Chart:
    """Return the chart of one attribute's accuracies by epoch."""
    rows = run.rows
    return Chart(
        "Accuracy by epoch",
        (
            _line(rows, "model", name, 0),
            _line(rows, "EMA", f"ema_{name}", 1, True),
            _line(rows, "20 neighbors", f"{name}_knn20", 2, True),
        ),
        percent=True,
    )


def _line(rows: Sequence[Row], label: str, column: str, color: int, dashed: bool = False) -> Line:
    """Return a column as a line over the epochs that have a value."""
    points = [(row["epoch"], row[column]) for row in rows if math.isfinite(row.get(column, math.nan))]
    epochs, values = zip(*points, strict=True) if points else ((), ())
    return Line(label, epochs, values, color, dashed, marked=len(points) <= 25)
