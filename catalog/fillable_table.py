"""A table whose blank cells are to be filled: its attributes, and which cells are given."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalog.cell_text import normalized_name
from catalog.data_error import DataError, did_you_mean, quoted
from catalog.filled_table import REASON, added_columns, check_types
from catalog.label_space import LabelSpace
from catalog.separated_cells import with_separator
from catalog.splits import FORMATS
from catalog.table import Table, read_header, read_table
from catalog.text_table import is_text_table

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FillableTable:
    """A table, and what can be filled in it.

    Attributes:
        table: the rows; its columns are the attributes that it has, with the values of a cell joined by `|`.
        attributes: the attributes to fill, in the order of the label space.
        spelled: the name of each attribute's column in the file; an attribute that the table lacks has none.
        as_lists: the attributes whose cells are lists in Python's or JSON's notation.
        multi_valued: the attributes with several values in a cell.
        separator: the text between the values of a cell in the file.
    """

    table: Table
    attributes: tuple[str, ...]
    spelled: dict[str, str]
    as_lists: frozenset[str]
    multi_valued: frozenset[str]
    separator: str

    def given(self, attribute: str) -> npt.NDArray[np.bool_]:
        """Return which rows have a label, bool [rows]."""
        if attribute not in self.spelled:
            return np.zeros(len(self.table), dtype=bool)
        valid: npt.NDArray[np.bool_] = self.table.columns[attribute].is_valid().to_numpy(zero_copy_only=False)
        return valid


def read_fillable_table(
    path: Path,
    label_space: LabelSpace,
    attributes: Sequence[str] | None = None,
    *,
    image_root: str | None = None,
    separator: str | None = None,
) -> FillableTable:
    """Read a table to fill.

    Args:
        path: the table.
        label_space: the attributes and classes of the model.
        attributes: the attributes to fill; None for all of the label space.
        image_root: the folder that the image paths are relative to; None for the table's or the working directory.
        separator: the text between the values of a cell; None for the label space's.

    Raises:
        DataError: the table cannot be read, has a column that filling adds, or a column cannot hold the classes.
    """
    header = read_header(path)
    chosen = _chosen(label_space, attributes)
    added = {*added_columns(chosen), REASON} - {*chosen}
    if taken := [name for name in header if name in added]:
        raise DataError(
            f"{path.name} has a column {taken[0]!r}, which filling adds: if the table was filled before, fill the "
            "table as it was; else rename the column"
        )
    if twice := [name for name in chosen if name in added_columns(chosen)]:
        raise DataError(f"the model has an attribute {twice[0]!r}, the name of a column that filling adds: rename it")
    for name in chosen:
        if name not in header:
            similar = did_you_mean(name, [one for one in header if one not in label_space.classes])
            _logger.warning(
                f"{path.name} has no column {name!r}: it is added, and blank in every row until now{similar}"
            )
    spelled = {name: header[name] for name in chosen if name in header}
    table = read_table(path, spelled, require_attributes=False, image_root=image_root)
    if not is_text_table(path):
        check_types(path, spelled, label_space)
    between = separator or label_space.separator
    as_lists = table.lists if is_text_table(path) else frozenset()
    table = with_separator(table, between, label_space.multi_valued)
    return FillableTable(table, chosen, spelled, as_lists, frozenset(label_space.multi_valued), between)


def check_output(source: Path, target: Path) -> None:
    """Raise unless a filled table can be written in the format of its source.

    Args:
        source: the table.
        target: the file to write.

    Raises:
        DataError: its ending says another format.
    """
    if _kind(source) != _kind(target):
        wanted = "a name that ends in .parquet" if _kind(source) == ".parquet" else f"one like {source.name}"
        raise DataError(
            f"output {target.name} is another format than {source.name}, whose cells are kept: give {wanted}"
        )


def default_output(source: Path) -> Path:
    """Return the default name of a filled table: beside the table, such as products-filled.csv."""
    name = source.name.replace("-*.parquet", ".parquet")
    ending = next((end for end in sorted(FORMATS, key=len, reverse=True) if name.lower().endswith(end)), "")
    stem = name[: len(name) - len(ending)] if ending else name
    return source.with_name(f"{stem}-filled{name[len(stem) :] if ending else '.parquet'}")


def _kind(path: Path) -> str:
    """Return .csv, .tsv or .parquet; anything else is a folder of Parquet files, or no table."""
    name = path.name.lower().removesuffix(".gz")
    return next((end for end in (".csv", ".tsv") if name.endswith(end)), ".parquet" if path.is_dir() else path.suffix)


def _chosen(label_space: LabelSpace, attributes: Sequence[str] | None) -> tuple[str, ...]:
    """Return the attributes to fill, in the order of the label space."""
    if attributes is None:
        return label_space.attributes
    wanted = [normalized_name(name) for name in attributes]
    if unknown := [name for name in wanted if name not in label_space.classes]:
        raise DataError(
            f"the model has no attribute {unknown[0]!r}{did_you_mean(unknown[0], label_space.attributes)} (its "
            f"attributes are {quoted(label_space.attributes, 20)})"
        )
    return tuple(name for name in label_space.attributes if name in wanted)
