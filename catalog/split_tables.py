"""Tables of repeated splits: a table's labeled rows held out in turn, the other rows to train on."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
from pyarrow import csv

from catalog.data_error import DataError
from catalog.embedded_images import is_image_file
from catalog.folds import class_counts, group_codes, stratified_folds
from catalog.image_roots import image_roots
from catalog.label_space import LabelSpace
from catalog.table import IMAGE_PATH, Table
from catalog.targets import encode_targets
from runtime.atomic_file import atomic_file

pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see

Rows = npt.NDArray[np.int64]

_FOLDS, _EIGHTHS = 5, 8
_FEWEST = 6  # groups, or rows without groups: two to hold out, one to validate on, three to train on
_APART = 1_000_003  # separates the seeds of folds, parts and halves


@dataclass(frozen=True)
class Split:
    """The rows of one split, sorted; the labels of `held_out` decide nothing in training.

    Attributes:
        held_out: rows to score; each has a label.
        validation: rows that training validates on; each has a label.
        training: rows to train on, with and without labels.
        labeled: rows among `training` with a label.
        first_half: rows among `labeled` that keep their labels when half of the labels are taken away.
        held_out_share: part of the labeled rows that is held out, 0-1.
    """

    held_out: Rows
    validation: Rows
    training: Rows
    labeled: Rows
    first_half: Rows
    held_out_share: float


def make_splits(
    table: Table, label_space: LabelSpace, group: pa.DictionaryArray | None, count: int, seed: int
) -> list[Split]:
    """Return splits that hold out a fifth of the labeled rows each; every fifth split, new folds are drawn.

    An eighth of the other labeled rows is for validation. With fewer than ten groups the parts are larger. Rows of a
    held-out or validating group without a label are in no part.

    Args:
        table: the table that is split.
        label_space: its attributes and classes.
        group: column of the groups that are not divided; None if any rows may be.
        count: number of splits.
        seed: seed of the folds.

    Raises:
        DataError: the table has too few labeled rows, or too few groups of them.
    """
    # what can be held out
    counts = class_counts(encode_targets(table, label_space, strict=True), label_space)
    labeled = counts.any(axis=1)
    groups = group_codes(group, len(table))
    units = len(np.unique(groups[labeled]))
    if units < _FEWEST:
        what = "labeled rows" if group is None else "groups of labeled rows"
        raise DataError(f"{table.path.name} has {units} {what}, fewer than the {_FEWEST} that splits need: label more")
    folds = min(_FOLDS, units // 2)

    # the splits
    assigned = {repeat: stratified_folds(counts, groups, folds, seed + repeat) for repeat in range(-(-count // folds))}
    splits = []
    for index in range(count):
        repeat, fold = divmod(index, folds)
        held_out, rest = (assigned[repeat] == fold) & labeled, assigned[repeat] != fold
        eighths = min(_EIGHTHS, len(np.unique(groups[rest & labeled])))
        parts = stratified_folds(counts * rest[:, None], groups, eighths, seed + _APART + index)
        validation, training = (parts == 0) & labeled, rest & (parts != 0)
        halves = stratified_folds(counts * training[:, None], groups, 2, seed + 2 * _APART + index)
        share = float(held_out.sum() / labeled.sum())
        masks = (held_out, validation, training, training & labeled, (halves == 0) & labeled)
        splits.append(Split(*map(np.flatnonzero, masks), share))  # type: ignore[arg-type, call-arg]  # five arrays
    return splits


def write_split(table: Table, split: Split, half: bool, folder: Path, name: str) -> None:
    """Write a split as `NAME.csv`, `NAME-validation.csv` and `NAME-held-out.csv`, with absolute image paths.

    Args:
        table: the table that is split.
        split: its rows.
        half: whether the second half of the training rows loses its labels.
        folder: where the tables are written.
        name: name of the training table, without ending.
    """
    training = table.take(split.training)
    if half:
        kept = pa.array(np.isin(split.training, split.first_half))
        training = replace(training, columns={key: _kept(column, kept) for key, column in training.columns.items()})
    write_csv(training, folder / f"{name}.csv")
    write_csv(table.take(split.validation), folder / f"{name}-validation.csv")
    write_csv(table.take(split.held_out), folder / f"{name}-held-out.csv")


def write_csv(table: Table, path: Path) -> None:
    """Write a table as CSV; image paths become absolute."""
    columns = {name: column.cast(pa.string()) for name, column in table.columns.items()}
    arrow = pa.table({IMAGE_PATH: with_absolute_paths(table).image_paths, **columns})
    with atomic_file(path) as unfinished:
        csv.write_csv(arrow, unfinished)


def with_absolute_paths(table: Table) -> Table:
    """Return a table whose image paths do not depend on its place."""
    roots = image_roots(table)
    found = [_absolute(roots, path) for path in table.image_paths.to_pylist()]
    return replace(table, image_paths=pa.array(found, pa.large_string()))


def _absolute(roots: tuple[Path, ...], path: str) -> str:
    candidates = [os.path.join(root, path) for root in roots]  # noqa: PTH118 - Path takes several times as long
    return next(filter(is_image_file, candidates), candidates[0])


def _kept(column: pa.DictionaryArray, kept: pa.BooleanArray) -> pa.DictionaryArray:
    """Return a column with the cells of other rows blank."""
    indices = pc.if_else(kept, column.indices, None)
    return pa.DictionaryArray.from_arrays(indices, column.dictionary)
