"""The rows and columns of summary.csv, and the metric that chooses the best epoch."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.summary_file import read_cells
from runtime.atomic_file import atomic_file
from runtime.errors import UsageError, first_line
from simclr import PROJECTION_METRICS
from timm.task.nearest_neighbors import NEIGHBORS, Accuracies

_logger = logging.getLogger("train")

Row = dict[str, float | int | None]

_WITHIN_ATTRIBUTE = ("loss", "top5", "balanced_accuracy", "macro_f1")
_LOWER = ("train_alignment", "train_uniformity", "train_false_negatives")  # lower is better
_MULTI_VALUED = ("map", "micro_f1")  # only multi-valued attributes have them
_INDEX_METRICS = ("effective_rank_h", "variance_h")
_OVERALL = ("balanced_accuracy", "macro_f1", "exact_match")


def epoch_row(
    epoch: int,
    train: Mapping[str, float],
    evaluated: Mapping[str, Any],
    averaged: Mapping[str, Any] | None = None,
) -> Row:
    """Return an epoch's row: timm's columns, lr, the two losses, a column for each attribute, the rest.

    The column named after an attribute holds its validation top-1. The prefix `ema_` marks the averaged model.

    Args:
        epoch: index of the epoch, from 0.
        train: averages of the training losses, `top1`, and `lr`, the learning rate of the epoch's last step.
        evaluated: metrics of AttributeEvaluator, or `no_metrics` in an epoch without validation.
        averaged: metrics of the averaged model; None without one.
    """
    row: Row = {"epoch": epoch, "train_loss": train["loss"], "train_top1": train["top1"]}
    row |= {f"eval_{name}": evaluated[name] for name in ("loss", "top1", "top5")}
    row |= {name: train.get(name) for name in ("lr", "simclr_loss", "classification_loss")}
    row |= {name: values["top1"] for name, values in evaluated["attributes"].items()}
    row |= {f"eval_{name}": evaluated[name] for name in _overall(evaluated)}
    row |= _by_attribute("", evaluated)
    if averaged is not None:
        row |= {f"ema_{name}": averaged[name] for name in ("loss", "top1", "top5", *_overall(averaged))}
        row |= {f"ema_{name}": values["top1"] for name, values in averaged["attributes"].items()}
        row |= _by_attribute("ema_", averaged)
    return row


def no_metrics(attributes: Sequence[str], multi_valued: Collection[str] = ()) -> dict[str, Any]:
    """Return blank metrics, for an epoch without validation."""
    within = ("top1", *_WITHIN_ATTRIBUTE)
    blanks = {
        name: dict.fromkeys((*within, *_MULTI_VALUED) if name in multi_valued else within, None) for name in attributes
    }
    overall = ("loss", "top1", "top5", *_OVERALL, *(["map"] if multi_valued else []))
    return dict.fromkeys(overall) | {"attributes": blanks}


def metric_names(
    attributes: Sequence[str],
    ema: bool,
    contrast: bool = True,
    measured: Sequence[str] = (),
    multi_valued: Collection[str] = (),
) -> list[str]:
    """Return the names that --eval-metric takes: the columns, and validation columns also without `eval_`.

    Args:
        attributes: names of the attributes.
        ema: whether there is an averaged model.
        contrast: whether there is a contrastive loss.
        measured: columns of `measured_columns`.
        multi_valued: names of the attributes with several values per image.

    Raises:
        UsageError: an attribute has the name of another column.
    """
    blank, none = no_metrics(attributes, multi_valued), no_metrics((), multi_valued)
    train = dict.fromkeys(("loss", "top1", "lr", "simclr_loss", "classification_loss"), 0.0)
    columns = [*epoch_row(0, train, blank, blank if ema else None), *measured]
    taken = {
        *train,
        *measured,
        *epoch_row(0, train, none, none),
        *_by_attribute("", blank),
        *_by_attribute("ema_", blank),
    }
    whole = {*train, *epoch_row(0, train, none, none), "simclr_weight", "classification_weight"}
    whole |= {"pseudo_loss"} & set(measured)
    for name in attributes:
        # An attribute called "classification" would have a column classification_loss, which is taken.
        clash = [column for end in (*_WITHIN_ATTRIBUTE, "weight") if (column := f"{name}_{end}") in whole]
        if name in taken or name.startswith(("eval_", "train_", "ema_")) or clash:
            column = clash[0] if clash else "that"
            raise UsageError(
                f"an attribute cannot be called {name!r}, as {column} is a column of summary.csv: rename the attribute"
            )
    silent = ("epoch", "lr") if contrast else ("epoch", "lr", "simclr_loss")
    named = [name for name in columns if name not in silent]
    return [name.removeprefix("eval_") for name in named if name.startswith("eval_")] + named


def metric_value(row: Row, name: str) -> float | None:
    """Return a row's value of an --eval-metric; None where it is blank or NaN."""
    value = row.get(f"eval_{name}", row.get(name))
    return None if value is None or math.isnan(value) else value


def lower_is_better(metric: str, attributes: Sequence[str]) -> bool:
    """Return whether lower values of an --eval-metric are better; the column of an attribute is an accuracy."""
    plain = metric.removeprefix("eval_").removeprefix("ema_")
    return plain not in attributes and (plain == "loss" or plain.endswith("_loss") or plain in _LOWER)


def metric_interval(metric: str, attributes: Sequence[str], val_interval: int, knn_interval: int) -> int:
    """Return the number of epochs between values of an --eval-metric.

    Args:
        metric: a name of `metric_names`.
        attributes: names of the attributes.
        val_interval: epochs between validations.
        knn_interval: epochs between k-NN scorings; 0 for none.
    """
    weights = measured_columns(attributes, contrast=False, neighbors=False)
    searched = set(measured_columns(attributes, contrast=False, neighbors=knn_interval > 0)) - set(weights)
    if metric in searched or f"eval_{metric}" in searched:
        return knn_interval
    trained = metric.startswith("train_") or metric in (
        "simclr_loss", "classification_loss", *soft_columns(attributes), *weights
    )  # fmt: skip
    return 1 if trained else val_interval


def ranked(rows: Sequence[Row], metric: str, attributes: Sequence[str]) -> list[Row]:
    """Return the rows that have a value of an --eval-metric, the best row last."""
    scored = [row for row in rows if metric_value(row, metric) is not None]
    return sorted(scored, key=lambda row: metric_value(row, metric) or 0.0, reverse=lower_is_better(metric, attributes))


def write_summary(path: Path, row: Row) -> None:
    """Append an epoch's row to summary.csv; columns that an older header lacks are added at its end."""
    rows: list[dict[str, Any]] = []
    header: list[str] = []
    if path.exists():
        header, *lines = [row for row in read_cells(path) if row] or [[]]
        rows = [dict(zip(header, cells, strict=False)) for cells in lines]
    rows.append({name: "" if value is None or math.isnan(value) else value for name, value in row.items()})
    with atomic_file(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*header, *(name for name in row if name not in header)], restval="")
        writer.writeheader()
        writer.writerows(rows)


def drop_rows(path: Path, epoch: int) -> None:
    """Drop the rows of an epoch and of all later ones from summary.csv; without any row left, delete the file.

    Raises:
        UsageError: the file is damaged.
    """
    if not path.exists():
        return
    header, *rows = [row for row in read_cells(path) if row] or [[]]
    try:
        kept = [row for row in rows if int(float(row[0])) < epoch]
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{path} has an epoch that is no number ({first_line(error)}): correct it or delete the file"
        ) from error
    if not kept:
        path.unlink()
    elif len(kept) < len(rows):
        _logger.info(f"{path}: {len(rows) - len(kept)} rows from epoch {epoch} on are dropped, as they are repeated")
        with atomic_file(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *kept])


def is_due(epoch: int, interval: int, epochs: int) -> bool:
    """Return whether something is measured after an epoch: each `interval`-th and the last; never with 0."""
    return interval > 0 and ((epoch + 1) % interval == 0 or epoch + 1 == epochs)


def measured_columns(attributes: Sequence[str], contrast: bool, neighbors: bool) -> list[str]:
    """Return the columns of `measured_row`.

    Args:
        attributes: names of the attributes.
        contrast: whether there are projections.
        neighbors: whether the representation is scored by its nearest neighbors.
    """
    columns = [f"train_{name}" for name in PROJECTION_METRICS] if contrast else []
    if neighbors:
        columns += [f"train_{name}" for name in _INDEX_METRICS]
        for k in NEIGHBORS if attributes else ():
            columns += [f"eval_knn{k}", *(f"{name}_knn{k}" for name in attributes)]
    return columns + [f"{name}_weight" for name in ("simclr", "classification", *attributes)]


def soft_columns(attributes: Sequence[str]) -> list[str]:
    """Return the columns of the loss on soft targets and of the teacher that gives them, in `soft_row`."""
    by_attribute = [f"{name}_pseudo_{measured}" for name in attributes for measured in ("used", "agreement")]
    return ["pseudo_loss", "pseudo_left_out", *by_attribute]


def soft_row(attributes: Sequence[str], numbers: Mapping[str, float]) -> Row:
    """Return an epoch's cells about soft targets; no cells in a run without them.

    Args:
        attributes: names of the attributes.
        numbers: measurements of the epoch by name, with others among them.
    """
    return {column: numbers[column] for column in soft_columns(attributes) if column in numbers}


def measured_row(columns: Sequence[str], numbers: Mapping[str, float]) -> Row:
    """Return an epoch's cells besides losses and accuracies; None where nothing was measured.

    Args:
        columns: columns of `measured_columns`.
        numbers: measurements by name, from `ProjectionMeter`, the index, `named_accuracies` and the weights.
    """
    return {column: numbers.get(column.removeprefix("train_")) for column in columns}


def named_accuracies(accuracies: Accuracies, attributes: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    """Return the neighbors' accuracies by column, `<attribute>_knn20`, and their means, `eval_knn20`.

    Args:
        accuracies: accuracies of `neighbor_metrics`, percent 0-100.
        attributes: names of the attributes.
        weights: weight of each attribute in the means, which skip attributes without a value.
    """
    named: dict[str, float] = {}
    for k, values in accuracies.items():
        known = [(value, weight) for value, weight in zip(values, weights, strict=True) if not math.isnan(value)]
        total = sum(weight for _, weight in known)
        named[f"eval_knn{k}"] = sum(value * weight for value, weight in known) / total if total else math.nan
        named |= {f"{name}_knn{k}": value for name, value in zip(attributes, values, strict=True)}
    return named


def _by_attribute(prefix: str, metrics: Mapping[str, Any]) -> Row:
    return {
        f"{prefix}{name}_{metric}": values[metric]
        for name, values in metrics["attributes"].items()
        for metric in (*_WITHIN_ATTRIBUTE, *_MULTI_VALUED)
        if metric in values
    }


def _overall(metrics: Mapping[str, Any]) -> list[str]:
    return [*_OVERALL, *(["map"] if "map" in metrics else [])]
