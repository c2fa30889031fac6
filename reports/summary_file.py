"""A reader of a run's summary.csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import UsageError
from runtime.regular_file import irregular_file

Row = dict[str, float]  # the finite values of one epoch, by column

_LARGEST = 1 << 28  # bytes: a million epochs of 40 columns have fewer
_REQUIRED = ("epoch", "train_loss", "classification_loss", "eval_balanced_accuracy")
# An attribute is a column that has these columns beside it. So has the averaged model's, whose name has a prefix.
_ATTRIBUTE_ENDINGS = ("_loss", "_top5", "_balanced_accuracy")
_RESERVED = ("eval_", "train_", "ema_")  # no attribute's name begins with one


@dataclass(frozen=True)
class Summary:
    """The epochs and attributes that a run has logged.

    Args:
        rows: the epochs in order; blank cells, NaN and infinity are absent.
        attributes: the names of the attributes, in the order of their columns.
    """

    rows: list[Row]
    attributes: list[str]


def read_summary(path: Path) -> Summary:
    """Read a run's summary.csv.

    An epoch can occur twice, after resuming from an earlier checkpoint; then the later row counts.

    Raises:
        UsageError: if the file cannot be read, lacks a column, has a cell that is not a number, or has no epoch.
    """
    header, *lines = read_cells(path) or [[]]
    if absent := [column for column in _REQUIRED if column not in header]:
        raise UsageError(f"{path} has no column {absent[0]!r}: give the summary.csv that train.py wrote")
    rows = {}
    for number, cells in enumerate(lines, start=2):
        if any(cell.strip() for cell in cells):
            row = _parse_row(header, cells, f"{path} row {number}")
            rows[row["epoch"]] = row
    if not rows:
        raise UsageError(f"{path} has no epoch yet: try again after the first epoch")
    return Summary([rows[epoch] for epoch in sorted(rows)], attributes_in(header))


def read_cells(path: Path) -> list[list[str]]:
    """Return the rows of a summary.csv, the header first.

    Raises:
        UsageError: the file cannot be read, or is too large.
    """
    if fault := irregular_file(path):
        raise UsageError(fault)
    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(
                f"{path} has {path.stat().st_size / 1e6:,.0f} MB, too large for a summary.csv: give the file that "
                "train.py wrote"
            )
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read {path} ({reason}): give the summary.csv that train.py wrote") from error


def attributes_in(header: Sequence[str]) -> list[str]:
    """Return the attributes that a header has columns for, in the header's order."""
    columns = set(header)
    return [
        name
        for name in dict.fromkeys(header)
        if not name.startswith(_RESERVED) and all(name + ending in columns for ending in _ATTRIBUTE_ENDINGS)
    ]


def best_epoch(rows: Sequence[Row], column: str, lowest: bool = False) -> tuple[int, float] | None:
    """Return the epoch with a column's highest (or lowest) value, and the value; None if no epoch has one.

    The first of several equal epochs counts, as for a run's best checkpoint.
    """
    points = [(int(row["epoch"]), row[column]) for row in rows if column in row]
    return (min if lowest else max)(points, key=lambda point: point[1], default=None)


def _parse_row(header: Sequence[str], cells: Sequence[str], where: str) -> Row:
    row: Row = {}
    for column, cell in zip(header, cells, strict=False):  # a row that is being written may be short
        try:
            value = float(cell) if cell.strip() else math.nan
        except ValueError as error:
            raise UsageError(f"{where}: {column} {cell!r} is not a number: correct it or delete the row") from error
        if math.isfinite(value):
            row.setdefault(column, value)
    if "epoch" not in row:
        raise UsageError(f"{where} has no epoch: fill in the number of the epoch or delete the row")
    return row
