"""The table that choose.py splits: its attributes, its groups and its splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalog.build_label_space import build_label_space
from catalog.data_error import DataError, did_you_mean, quoted
from catalog.label_space import SEPARATOR, LabelSpace
from catalog.parquet_table import parquet_parts
from catalog.repeated_images import warn_of_repeated_images
from catalog.separated_cells import with_separator
from catalog.split_tables import Split, make_splits
from catalog.splits import find_label_table
from catalog.table import Table, read_table
from catalog.targets import encode_targets
from training.find_tables import find_train_table

_READ = 1 << 24  # bytes that are hashed at a time


@dataclass(frozen=True)
class ChoiceData:
    """A training table with its splits.

    Attributes:
        table: the table, without the column of the groups.
        label_table: the table that defines the classes: all.csv, or the table itself.
        label_space: the attributes and their classes.
        targets: int64 [rows, C].
        splits: the splits.
        digest: hash of the table's file.
    """

    table: Table
    label_table: Table
    label_space: LabelSpace
    targets: npt.NDArray[np.int64]
    splits: list[Split]
    digest: str

    @property
    def labeled(self) -> npt.NDArray[np.int64]:
        """The rows with a label, sorted."""
        return np.flatnonzero((self.targets >= 0).any(axis=1))

    @property
    def has_blanks(self) -> bool:
        """Whether any cell is blank."""
        return bool((self.targets < 0).any())

    @property
    def columns(self) -> dict[str, list[str]]:
        """The columns to learn, as flags."""
        several = [name for name in self.label_space.attributes if name in self.label_space.multi_valued]
        return {"attributes": list(self.label_space.attributes), "multi-valued": several}


def read_choice_data(
    data_dir: str,
    train_split: str,
    attributes: Sequence[str] | None,
    multi_valued: Sequence[str] | None,
    group: str | None,
    splits: int,
    seed: int,
    separator: str | None = None,
    image_root: str | None = None,
) -> ChoiceData:
    """Read the training table and split it.

    Args:
        data_dir: folder of the tables.
        train_split: name of the training table.
        attributes: columns to learn; None for all but the column of the groups.
        multi_valued: attributes that have several values; None for those with the separator in a cell.
        separator: text between the values of a cell; None for `|`.
        image_root: folder that image paths are relative to; None for the table's or the working directory.
        group: column whose values may not be divided between the parts of a split; None for none.
        splits: number of splits.
        seed: seed of the splits.

    Raises:
        DataError: there is no such table or column, or it cannot be learned or split.
    """
    # the training table
    joint = separator or SEPARATOR
    path = find_train_table(data_dir, train_split)
    named = attributes and [*attributes, *([group] if group else [])]
    table = read_table(path, named, image_root=image_root)
    groups = table.columns.get(group) if group else None
    check_group(path, group, table.attributes)
    columns = {name: column for name, column in table.columns.items() if name != group}
    if not columns:
        raise DataError(
            f"{path.name} has no attribute besides the column {group!r} of the groups: add a column of labels"
        )
    table = with_separator(replace(table, columns=columns, chosen=attributes is not None), joint, multi_valued)

    # the classes
    label_path = find_label_table(data_dir, path)
    label_table = table
    if label_path != path:
        label_table = with_separator(read_table(label_path, table.attributes), joint, multi_valued)
    label_space = build_label_space(replace(label_table, chosen=table.chosen), multi_valued)
    table = with_separator(table, label_space.separator, label_space.multi_valued)
    targets = encode_targets(table, label_space, strict=True)
    warn_of_repeated_images(table, label_space.attributes)
    made = make_splits(table, label_space, groups, splits, seed)
    return ChoiceData(table, label_table, label_space, targets, made, _digest(path))


def check_group(path: Path, group: str | None, columns: Sequence[str]) -> None:
    """Raise if a table lacks the column of the groups.

    Args:
        path: the table, for messages.
        group: the column; None for none.
        columns: the table's columns besides the images.

    Raises:
        DataError: the column, and the one that was probably meant.
    """
    if group and group not in columns:
        remedy = did_you_mean(group, columns) or f"; its columns are {quoted(columns, 20)}"
        raise DataError(f"{path.name} has no column {group!r} for the groups{remedy}")


def _digest(path: Path) -> str:
    """Return a hash of a table's files."""
    digest = hashlib.sha256()
    for part in parquet_parts(path):
        with part.open("rb") as file:
            while content := file.read(_READ):
                digest.update(content)
    return digest.hexdigest()[:16]
