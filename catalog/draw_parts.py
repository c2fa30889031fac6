"""Drawing the train, val and test rows of a table, as far as the table does not say them itself."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog.attribute_column import FEW_ROWS, count_classes, has_separator, why_unlearnable
from catalog.cell_text import normalized_name
from catalog.data_error import DataError, quoted
from catalog.folds import group_codes
from catalog.identical_images import content_codes
from catalog.repeated_images import file_paths
from catalog.split_paths import located_paths
from catalog.split_source import PARTS, UNDECIDED, check_column
from catalog.stratify import Labels, joined_units, row_keys, stratified_parts
from catalog.table import Table

_logger = logging.getLogger(__name__)

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Together:
    """The rows that stay together.

    Attributes:
        units: unit of each row, int64 [rows].
        groups: group of each row, int64 [rows]; None without a column of groups.
        images: number of each row's image, int64 [rows].
        located: absolute path of each image; None if no image was found.
    """

    units: Rows
    groups: Rows | None
    images: Rows
    located: pa.LargeStringArray | None


def with_balanced_columns(
    table: Table, attributes: Collection[str] | None, left_out: Collection[str]
) -> tuple[Table, list[str]]:
    """Return a table with the columns to balance, and the names of those that cannot be learned, such as ids.

    Args:
        table: the table.
        attributes: columns to balance; None for all that a model can learn.
        left_out: columns that are no attributes: the groups, the split.

    Raises:
        DataError: the table lacks a column.
    """
    if attributes is not None:
        names = [normalized_name(name) for name in attributes]
        for name in names:
            check_column(table, name, "an attribute")
        return replace(table, columns={name: table.columns[name] for name in names}), []
    columns = {name: column for name, column in table.columns.items() if name not in left_out}
    odd = []
    for name, column in columns.items():
        multi_valued = name in table.lists or has_separator(column)
        classes, labeled = count_classes(column, multi_valued)
        is_text = not multi_valued and labeled >= FEW_ROWS and classes > labeled / 2
        if is_text or why_unlearnable(column, multi_valued):
            odd.append(name)
    return replace(table, columns={name: column for name, column in columns.items() if name not in odd}), odd


def rows_together(table: Table, group: str | None) -> Together:
    """Return which rows stay together: the rows of a group, and rows whose images have the same content.

    Args:
        table: the table.
        group: column of the groups, which may be blank; None for none.

    Raises:
        DataError: the table lacks the column.
    """
    groups = None
    if group is not None:
        check_column(table, group, "the groups")
        groups = group_codes(table.columns[group], len(table))
    located = located_paths(table)
    if located is None:
        _logger.warning(
            f"{table.path.name}: none of its images is found, so images are compared by their paths alone: run this "
            "where the images are, to keep copies of an image together"
        )
    images = content_codes((file_paths(table) if located is None else located).to_pylist())
    units = joined_units(len(table), *([] if groups is None else [groups]), images)
    return Together(units, groups, images, located)


def draw_parts(
    table: Table, labels: Labels, units: Rows, seed: int, shares: dict[str, float], given: Rows | None
) -> Rows:
    """Return each row's part, an index into `PARTS`, int64 [rows].

    Args:
        table: the table.
        labels: its labels.
        units: unit of each row, int64 [rows].
        seed: seed of the draw.
        shares: share of each part to draw, all above 0, together 1; the first one is train's. A single one draws
            nothing.
        given: parts that the table says; only its rows of train are drawn from.

    Raises:
        DataError: there are fewer units than parts.
    """
    parts = np.zeros(len(table), np.int64) if given is None else np.where(given == UNDECIDED, 0, given)
    if not (parts == 0).any():
        raise DataError(f"{table.path.name} has no row for train, only for val or test: correct its split column")
    if len(shares) == 1:
        return parts
    fixed = np.zeros(int(units.max(initial=-1)) + 1, bool)
    fixed[units[parts > 0]] = True  # their units hold rows of another part already
    pool = np.flatnonzero(~fixed[units])

    # the rows to draw, numbered from 0
    number = np.full(len(table), -1)
    number[pool] = np.arange(len(pool))
    inside = number[labels.rows] >= 0
    drawn = Labels(number[labels.rows[inside]], labels.classes[inside], labels.names)
    own_units = np.unique(units[pool], return_inverse=True)[1].reshape(-1)
    count = len(np.unique(own_units[drawn.rows] if len(drawn.rows) else own_units))
    if count < len(shares):
        kind = "labeled rows" if len(drawn.rows) else "rows"
        raise DataError(
            f"{table.path.name} has {count} {kind} or groups of them, fewer than the {len(shares)} tables to make: add "
            f"{kind} of other images or groups"
        )
    paths = table.image_paths.take(pool).to_pylist()
    chosen = stratified_parts(drawn, own_units, row_keys(paths, seed), list(shares.values()))
    parts[pool] = np.array([PARTS.index(name) for name in shares])[chosen]
    return parts


def divided_groups(codes: Rows, parts: Rows) -> int:
    """Return how many groups have rows in several parts."""
    pairs = np.unique(np.stack([codes, parts]), axis=1)
    return int((np.bincount(pairs[0]) > 1).sum())


def names_of(columns: Collection[str]) -> str:
    """Return names of columns for a sentence."""
    return quoted(list(columns), 5)
