"""What is split into train, val and test: a table, a table with a column that says the split, or folders of classes.

DATA/shoes/1.jpg, DATA/bags/2.jpg                  a folder for each class
DATA/train/shoes/1.jpg, DATA/val/bags/2.jpg        the same, with the split decided
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from catalog.cell_text import normalized_name
from catalog.data_error import DataError, did_you_mean, quoted
from catalog.embedded_images import holds_images
from catalog.image_list import list_images
from catalog.parquet_table import parquet_parts
from catalog.splits import FORMATS, find_label_table, find_split, is_table, tables_nearby
from catalog.table import IMAGE_PATH, Table, read_table
from catalog.text_table import is_text_table, read_text_columns, read_text_header

_logger = logging.getLogger(__name__)
pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see

Rows = npt.NDArray[np.int64]

PARTS = ("train", "val", "test")
ATTRIBUTE = "class"  # name of the attribute that folders of classes give
UNDECIDED = -1  # the part of a row whose split is blank
_WORDS = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("val", "valid", "validation", "dev"), 1),
    **dict.fromkeys(("test", "testing"), 2),
}
_COLUMNS = ("split", "subset", "partition", "phase")  # names of a column that says the split


@dataclass(frozen=True)
class SplitSource:
    """The rows to split.

    Attributes:
        table: the rows; for folders of classes, its path is that of a table which does not exist.
        cells: every column to write, as the file has it, in the order of the rows.
        path_column: name of the column of image paths in `cells`.
        parts: part of each row as the source says it, an index into `PARTS` or `UNDECIDED`; None if it says nothing.
        split_column: the column that says it; None for folders, or where nothing says it.
        ending: ending of the tables to write, such as ".csv".
        is_file: whether the table is a file.
    """

    table: Table
    cells: pa.Table
    path_column: str
    parts: Rows | None
    split_column: str | None
    ending: str
    is_file: bool

    @property
    def in_parts(self) -> bool:
        """Whether the table is several Parquet files."""
        return self.is_file and not self.table.path.is_file()

    @property
    def said_by(self) -> str:
        """What says the parts, for messages."""
        return "the folders" if self.split_column is None else f"the cells in column {self.split_column!r}"


def read_split_source(place: Path, split_column: str | None) -> SplitSource:
    """Read what is to be split.

    Args:
        place: a table, or a folder with `all` or `train`, with a single table, or with folders of classes.
        split_column: column that says the split; "" for none; None for one called split, subset, partition or phase
            whose cells are words for train, val and test.

    Raises:
        DataError: there is no such thing, or it cannot be read.
    """
    if place.is_dir() and not is_table(place):
        path = _table_of(place)
        if path is None:
            return _class_folders(place)
    else:
        path = place
    table = read_table(path, require_attributes=False)
    cells, path_column = _all_cells(path, table)
    name = _split_column(table, split_column)
    parts = None
    if name is not None:
        parts = _parts_of(table, name)
        cells = cells.drop_columns([one for one in cells.column_names if normalized_name(one) == name])
    endings = (end for end in sorted(FORMATS, key=len, reverse=True) if path.name.lower().endswith(end))
    ending = next(endings, ".parquet")  # a folder of parts may have any name
    return SplitSource(table, cells, path_column, parts, name, ending, is_file=True)


def _table_of(folder: Path) -> Path | None:
    """Return the table of a folder that is to be split; None if it has no table.

    Raises:
        DataError: the folder is split already, or has several tables.
    """
    absent = folder / "train.csv"
    whole = find_label_table(folder, absent)
    if whole != absent:
        return whole
    found = {part: path for part in PARTS if (path := _found(folder, part))}
    if "train" in found and len(found) > 1:
        names = ", ".join(path.name for path in found.values())
        raise DataError(
            f"{folder} is split already ({names}): join these tables into all.csv to split them anew, or name one of "
            "them to split that"
        )
    if "train" in found:
        return found["train"]
    tables = sorted(file for file in folder.iterdir() if is_table(file) and file.is_file())
    if len(tables) > 1:
        raise DataError(f"{folder} has several tables ({tables_nearby(folder)}): name the one to split")
    return tables[0] if tables else None


def _found(folder: Path, part: str) -> Path | None:
    try:
        return find_split(folder, part)
    except DataError:
        return None


def _all_cells(path: Path, table: Table) -> tuple[pa.Table, str]:
    """Return all columns of a table as its file has them, and the name of the column of image paths.

    The name is "" if the table holds the images themselves.
    """
    if not is_text_table(path):
        cells = pa.concat_tables([pq.ParquetFile(part).read() for part in parquet_parts(path)])
        name = _spelled(cells.column_names)
        return cells, name if name and not holds_images(cells.schema.field(name).type) else ""
    header = read_text_header(path)
    path_column = _spelled(header)
    if len(header) == 1:  # a blank cell is an empty line, which is no row
        return pa.table({path_column: table.image_paths}), path_column
    names = [path_column, *(name for name in header if name != path_column)]
    columns = read_text_columns(path, header, names)
    return pa.table({name: columns[name] for name in header}), path_column


def _spelled(header: Sequence[str]) -> str:
    """Return the name of the column of image paths as the file spells it; "" if it has none."""
    return next((name for name in header if normalized_name(name) == IMAGE_PATH), "")


def _split_column(table: Table, asked: str | None) -> str | None:
    """Return the column that says the split; None if there is none.

    Raises:
        DataError: the table has no such column.
    """
    if asked == "":
        return None
    if asked is not None:
        name = normalized_name(asked)
        check_column(table, name, "the split")
        return name
    for name, column in table.columns.items():
        if name.lower() in _COLUMNS and any(cell.lower() in _WORDS for cell in column.dictionary.to_pylist()):
            return name
    return None


def check_column(table: Table, name: str, purpose: str) -> None:
    """Raise a DataError unless a table has a column.

    Args:
        table: the table.
        name: the column.
        purpose: what the column is for, for the message.
    """
    if name not in table.columns:
        remedy = did_you_mean(name, table.attributes) or f"; its columns are {quoted(table.attributes, 20) or 'none'}"
        raise DataError(f"{table.path.name} has no column {name!r} for {purpose}{remedy}")


def _parts_of(table: Table, name: str) -> Rows:
    """Return each row's part as a column says it."""
    column = table.columns[name]
    codes = [_WORDS.get(cell.lower(), len(PARTS)) for cell in column.dictionary.to_pylist()]
    positions = column.indices.fill_null(len(codes)).to_numpy(zero_copy_only=False)
    parts: Rows = np.array([*codes, UNDECIDED], dtype=np.int64)[positions]
    if len(wrong := np.flatnonzero(parts == len(PARTS))):
        row = int(wrong[0])
        raise DataError(
            f"{table.place(row)}: {name} {column[row].as_py()!r} is neither train, val nor test: correct it, or "
            "ignore the column with split_column none"
        )
    return parts


def _class_folders(folder: Path) -> SplitSource:
    """Return the images below a folder of classes, each with its folder's name as its class."""
    try:
        images = list_images([str(folder)])[0].paths.to_pylist()
    except DataError as error:
        raise DataError(
            f"{folder} has no table (train.csv, all.csv) and no folder of images for each class ({error}): add either"
        ) from None
    paths = [os.path.relpath(image, folder) for image in images]
    places = [Path(path).parts[:-1] for path in paths]
    while len({place[:1] for place in places}) == 1 and all(len(place) > 1 for place in places):
        places = [place[1:] for place in places]  # a single folder around the classes' folders

    # the split, if the outer folders say it
    outer = dict.fromkeys(place[0] if place else "" for place in places)
    parts = None
    if any(_WORDS.get(name.lower()) == 0 for name in outer):
        if wrong := [name for name in outer if name.lower() not in _WORDS]:
            what, that = (
                (f"a folder {wrong[0]!r}", repr(wrong[0])) if wrong[0] else ("images beside these", "the images")
            )
            raise DataError(
                f"{folder} has folders for the split, such as train, but also {what}: move {that} into one of these "
                "folders"
            )
        parts = np.array([_WORDS[place[0].lower()] for place in places], dtype=np.int64)
        places = [place[1:] for place in places]

    # the classes
    names = [place[0] if place else None for place in places]
    classes: Collection[str] = {name for name in names if name is not None}
    if len(classes) < 2:
        found = f"one folder only, {next(iter(classes))}" if classes else "no folders of classes"
        raise DataError(
            f"{folder} has no table (train.csv, all.csv), and its images lie in {found}: make a folder for each class, "
            "or a table with a column image_path and one for each attribute"
        )
    if loose := names.count(None):
        _logger.warning(f"{folder}: {loose} images lie in no folder of a class: they are unlabeled")
    column = pa.array(names, pa.string())
    cells = pa.table({IMAGE_PATH: pa.array(paths, pa.large_string()), ATTRIBUTE: column})
    _logger.info(f"{folder}: {len(paths)} images in {len(classes)} folders of classes")
    table = Table(folder / "all.csv", cells[IMAGE_PATH].combine_chunks(), {ATTRIBUTE: column.dictionary_encode()})
    return SplitSource(table, cells, IMAGE_PATH, parts, None, ".csv", is_file=False)
