"""What a run leaves behind: its folder, summary.csv, and the curves drawn from it."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.errors import UsageError
from timm.utils import trim_summary

Row = dict[str, float | int | None]

_WITHIN_ATTRIBUTE = ("loss", "top5", "balanced_accuracy", "macro_f1")
_LOWER = ("train_alignment", "train_uniformity", "train_false_negatives")  # less is better
_OF_SETS = ("map", "micro_f1")  # only multi-valued attributes have them
_OVERALL = ("balanced_accuracy", "macro_f1", "exact_match")


def epoch_row(
    epoch: int,
    train: Mapping[str, float],
    evaluated: Mapping[str, Any],
    averaged: Mapping[str, Any] | None = None,
) -> Row:
    """Return an epoch's row of summary.csv: timm's columns, lr, the two losses, a column an attribute, the rest.

    An attribute's own column is its validation top-1; names that begin with `ema_` are the averaged model's.

    Args:
        epoch: from 0.
        train: averages of the training losses, `top1`, and `lr`, the learning rate of the epoch's last step.
        evaluated: metrics of AttributeEvaluator, or `no_metrics` in an epoch without validation.
        averaged: the same of the EMA model, None without one.
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
    """Return what stands for the metrics of an epoch without validation: blanks."""
    within = ("top1", *_WITHIN_ATTRIBUTE)
    blanks = {
        name: dict.fromkeys((*within, *_OF_SETS) if name in multi_valued else within, None) for name in attributes
    }
    overall = ("loss", "top1", "top5", *_OVERALL, *(["map"] if multi_valued else []))
    return dict.fromkeys(overall) | {"attributes": blanks}


def metric_names(
    attributes: Sequence[str],
    ema: bool,
    contrast: bool = True,
    watched: Sequence[str] = (),
    multi_valued: Collection[str] = (),
) -> list[str]:
    """Return what --eval-metric takes: the columns of summary.csv, those of the validation also without `eval_`.

    Args:
        attributes: their names.
        ema: whether there is an averaged model.
        contrast: whether there is a contrastive loss.
        watched: the columns behind those of `epoch_row`.
        multi_valued: the attributes with several values an image.

    Raises:
        UsageError: an attribute has the name of another column.
    """
    blank, none = no_metrics(attributes, multi_valued), no_metrics((), multi_valued)
    train = dict.fromkeys(("loss", "top1", "lr", "simclr_loss", "classification_loss"), 0.0)
    columns = [*epoch_row(0, train, blank, blank if ema else None), *watched]
    taken = {
        *train,
        *watched,
        *epoch_row(0, train, none, none),
        *_by_attribute("", blank),
        *_by_attribute("ema_", blank),
    }
    whole = {*train, *epoch_row(0, train, none, none), "simclr_weight", "classification_weight"}
    for name in attributes:
        # Neither may its own columns be those of the whole: "classification" would have a classification_loss too.
        clash = [column for end in (*_WITHIN_ATTRIBUTE, "weight") if (column := f"{name}_{end}") in whole]
        if name in taken or name.startswith(("eval_", "train_", "ema_")) or clash:
            column = clash[0] if clash else "that"
            raise UsageError(
                f"an attribute cannot be called {name!r}, as {column} is a column of summary.csv: rename it"
            )
    silent = ("epoch", "lr") if contrast else ("epoch", "lr", "simclr_loss")
    named = [name for name in columns if name not in silent]
    return [name.removeprefix("eval_") for name in named if name.startswith("eval_")] + named


def metric_value(row: Row, name: str) -> float | None:
    """Return a row's value of an --eval-metric, None where it is blank or not a number."""
    value = row.get(f"eval_{name}", row.get(name))
    return None if value is None or math.isnan(value) else value


def lower_is_better(metric: str, attributes: Sequence[str]) -> bool:
    """Whether less of an --eval-metric is better; an attribute's own column is an accuracy, whatever it is called."""
    plain = metric.removeprefix("eval_").removeprefix("ema_")
    return plain not in attributes and (plain == "loss" or plain.endswith("_loss") or plain in _LOWER)


def ranked(rows: Sequence[Row], metric: str, attributes: Sequence[str]) -> list[Row]:
    """Return the rows that have a value of an --eval-metric, the best last."""
    scored = [row for row in rows if metric_value(row, metric) is not None]
    return sorted(scored, key=lambda row: metric_value(row, metric) or 0.0, reverse=lower_is_better(metric, attributes))


def write_summary(path: Path, row: Row) -> None:
    """Append an epoch's row to summary.csv; columns that an older header lacks go behind it."""
    rows: list[dict[str, Any]] = []
    header: list[str] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            header = list(reader.fieldnames or [])
    rows.append({name: "" if value is None or math.isnan(value) else value for name, value in row.items()})
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*header, *(name for name in row if name not in header)], restval="")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def forget_epochs(path: Path, start: int) -> None:
    """Drop the rows of epochs that a resumed run will do again."""
    trim_summary(str(path), start)


def _by_attribute(prefix: str, metrics: Mapping[str, Any]) -> Row:
    return {
        f"{prefix}{name}_{metric}": values[metric]
        for name, values in metrics["attributes"].items()
        for metric in (*_WITHIN_ATTRIBUTE, *_OF_SETS)
        if metric in values
    }


def _overall(metrics: Mapping[str, Any]) -> list[str]:
    return [*_OVERALL, *(["map"] if "map" in metrics else [])]
