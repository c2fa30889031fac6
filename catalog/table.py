"""Tables of images: one row an image, an `image_path` column, and a column for each attribute.

    table = read_table(find_split("data", "train"))
    label_space = build_label_space(table)
    targets = encode_targets(table, label_space, strict=True)

A table stays in Arrow's buffers and never becomes Python lists. A million rows load in a second or two. Forked workers
share the buffers; a list's pages would be copied, because reading it changes reference counts.
"""

import difflib
import logging
import os
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from catalog.cell_text import normalized_cells, normalized_names
from catalog.data_error import DataError, did_you_mean, quoted
from catalog.label_space import SEPARATOR
from catalog.list_text import joined_lists
from catalog.parquet_table import (
    IMAGE_PATH,
    parquet_parts,
    read_embedded_paths,
    read_parquet_columns,
    read_parquet_header,
)
from catalog.splits import is_table, tables_nearby
from catalog.spreadsheet_text import unescaped, unescaped_text
from catalog.table_size import check_lengths
from catalog.text_table import (
    header_line,
    is_text_table,
    line_of_row,
    lines_of_rows,
    no_rows,
    read_text_columns,
    read_text_header,
)
from runtime.progress import announced
from runtime.regular_file import irregular_file

_logger = logging.getLogger(__name__)
pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see

# common names of a column of image paths, in lower-case letters
_PATH_LIKE = re.compile(r"(image|img|file|picture|photo)*(path|name|file)?s?")
_ADDED = -1  # the file row of an image that is not in the file


@dataclass(frozen=True, eq=False)
class Table:
    """A table of images, read and checked.

    Args:
        path: the file it was read from.
        image_paths: Arrow strings, one a row, none blank.
        columns: the attributes in the header's order, each a dictionary-encoded Arrow array; null is blank.
        chosen: whether the user named the attributes; otherwise the header did.
        lists: the attributes whose cells are lists in the file, or have another separator there; here joined by `|`.
        file_rows: each row's index in the file, -1 for an image that `with_images` added. None if the table has the
            file's rows in their order.
        separator: the text between the values of a cell, in the file.
        names: Arrow strings, what messages and predictions call the images inside a Parquet table; None without such
            images. Their paths are FILE#ROW.
        image_root: the folder that the image paths are relative to; None for the table's or the working directory.
    """

    path: Path
    image_paths: pa.LargeStringArray
    columns: dict[str, pa.DictionaryArray]
    chosen: bool = False
    lists: frozenset[str] = frozenset()
    file_rows: npt.NDArray[np.int64] | None = None
    separator: str = SEPARATOR
    image_root: Path | None = None
    names: pa.LargeStringArray | None = None

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the attribute columns, in the header's order."""
        return tuple(self.columns)

    def looks_multi_valued(self, attribute: str) -> bool:
        """Return whether an attribute's cells hold several values: lists, or a cell has the separator."""
        if attribute in self.lists or self.separator != SEPARATOR:
            return attribute in self.lists
        return bool(pc.any(pc.match_substring(self.columns[attribute].dictionary, SEPARATOR)).as_py())

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that image paths may be relative to, absolute: the table's own and the working directory."""
        if self.names is not None:
            return (self.path.parent.resolve(),)
        if self.image_root is not None:
            return (self.image_root.resolve(),)
        return tuple(dict.fromkeys((self.path.parent.resolve(), Path.cwd())))

    @property
    def added(self) -> npt.NDArray[np.bool_]:
        """Which rows `with_images` added, bool [rows]."""
        is_added: npt.NDArray[np.bool_] = self._indices() == _ADDED
        return is_added

    def __len__(self) -> int:
        return len(self.image_paths)

    def image_path(self, row: int) -> str:
        """Return a row's image path as the table has it."""
        return str(self.image_paths[row].as_py())

    def image_name(self, row: int) -> str:
        """Return what messages call a row's image: its path, or the one that a Parquet table saves with its bytes."""
        return self.image_path(row) if self.names is None else str(self.names[row].as_py())

    def take(self, rows: npt.NDArray[np.int64]) -> "Table":
        """Return a table with the given rows in the given order; messages still name their lines in the file."""
        columns = {name: _without_unused(column.take(pa.array(rows))) for name, column in self.columns.items()}
        image_paths = self.image_paths.take(pa.array(rows))
        names = None if self.names is None else self.names.take(pa.array(rows))
        return replace(self, image_paths=image_paths, columns=columns, file_rows=self._indices()[rows], names=names)

    def with_images(self, image_paths: pa.LargeStringArray) -> "Table":
        """Return a table with these images added at its end; all their cells are blank."""

        def extended(column: pa.DictionaryArray) -> pa.DictionaryArray:
            blanks = pa.nulls(len(image_paths), column.type.index_type)
            return pa.concat_arrays([column, pa.DictionaryArray.from_arrays(blanks, column.dictionary)])

        return replace(
            self,
            image_paths=pa.concat_arrays([self.image_paths, image_paths]),
            columns={name: extended(column) for name, column in self.columns.items()},
            file_rows=np.concatenate([self._indices(), np.full(len(image_paths), _ADDED)]),
            names=None if self.names is None else pa.concat_arrays([self.names, image_paths]),
        )

    def line(self, row: int) -> int:
        """Return the line of the file on which a row starts, from 1; for Parquet return the row's number, from 1.

        This reads the file again, so use it only for messages.

        Raises:
            ValueError: if the row was added and is not in the file.
        """
        return self.lines([row])[row]

    def place(self, row: int) -> str:
        """Return a row's place for a message: "train.csv line 7", or the path of an image that was added."""
        return self.places([row])[row]

    def places(self, rows: Collection[int]) -> dict[int, str]:
        """Return several rows' places for a message, by row, with one pass through the file."""
        added = {row for row in rows if self.file_rows is not None and self.file_rows[row] == _ADDED}
        kind = "line" if is_text_table(self.path) else "row"
        lines = self.lines({*rows} - added)
        return {row: f"{self.path.name} {kind} {lines[row]}" if row in lines else self.image_name(row) for row in rows}

    def lines(self, rows: Collection[int]) -> dict[int, int]:
        """Return the lines of several rows, as `line` does, by row, with one pass through the file."""
        file_rows = {row: row if self.file_rows is None else int(self.file_rows[row]) for row in rows}
        if added := [row for row, file_row in file_rows.items() if file_row == _ADDED]:
            raise ValueError(f"row {added[0]} was added to the table and has no line in {self.path.name}")
        if not (is_text_table(self.path) and rows):
            return {row: file_row + 1 for row, file_row in file_rows.items()}
        lines = lines_of_rows(self.path, set(file_rows.values()))
        return {row: lines[file_row] for row, file_row in file_rows.items()}

    def _indices(self) -> npt.NDArray[np.int64]:
        return np.arange(len(self)) if self.file_rows is None else self.file_rows


def read_table(
    path: str | os.PathLike[str],
    attributes: Collection[str] | None = None,
    require_attributes: bool = True,
    image_root: str | os.PathLike[str] | None = None,
) -> Table:
    """Read a .csv, .tsv or .parquet table, one that ends in .csv.gz or .tsv.gz, or a folder of Parquet files.

    Cells lose what nobody sees (`normalized_cells`), and in CSV the apostrophe of `catalog.spreadsheet_text`; image
    paths are only stripped. An empty cell and Parquet's null are blank; every other text is a class name, even "NA" and
    "null". Empty lines are ignored. Parquet's cells become the text that CSV has: the whole number 3 is "3", even in a
    floating-point column, and booleans are "True" and "False". Lists of names are joined by `|`, also lists in Python's
    or JSON's notation; an empty list is a lone `|`.

    Args:
        path: the file; its extension gives the format.
        attributes: the columns to read as attributes; by default every column but `image_path`.
        require_attributes: whether a table without attributes is an error; pretraining and inference need none. If
            false, columns that hold no names are left out with a warning, unless `attributes` names them.
        image_root: the folder that the image paths are relative to; by default the table's or the working directory.

    Raises:
        DataError: if the file is missing or is no such table, or a row has no image path.
    """
    path = Path(path)
    _check_file(path)
    with announced(f"Reading {path.name}", _logger.info):
        return _read_table(path, attributes, require_attributes, image_root)


def read_header(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the normalized name of each column of a table, in order, with its spelling in the file.

    A column of images is called `image_path`.

    Raises:
        DataError: if the file is missing or is no table of images.
    """
    path = Path(path)
    _check_file(path)
    if is_text_table(path):
        return _check_header(path, read_text_header(path))
    raw, images = read_parquet_header(path)
    header = _check_header(path, [IMAGE_PATH if name == images else name for name in raw])
    return header if images is None else header | {IMAGE_PATH: images}


def choose_attributes(path: Path, header: list[str], wanted: Collection[str] | None, required: bool) -> list[str]:
    """Return the columns to read as attributes, in the header's order.

    Args:
        path: the table, for messages.
        header: its columns.
        wanted: the columns that were named; None for every one but `image_path`.
        required: whether a table without attributes is an error.

    Raises:
        DataError: a named column does not exist, or there is no attribute although one is required.
    """
    columns = [name for name in header if name != IMAGE_PATH]
    wanted = None if wanted is None else dict.fromkeys(normalized_names(list(wanted)))
    known = set(columns)
    for name in wanted or ():
        if name not in known:
            raise DataError(
                f"{path.name} has no attribute {name!r}{did_you_mean(name, columns)}"
                f" (its attributes are {quoted(columns, 20) or 'none'})"
            )
    chosen = columns if wanted is None else [name for name in columns if name in wanted]
    if required and not chosen:
        raise DataError(f"{path.name} has no attribute to learn, only {IMAGE_PATH}: add a column of labels")
    return chosen


def _read_table(
    path: Path,
    attributes: Collection[str] | None,
    require_attributes: bool,
    image_root: str | os.PathLike[str] | None,
) -> Table:
    """Read a table that exists, as `read_table` does."""
    # header
    is_text = is_text_table(path)
    raw_header, images = (read_text_header(path), None) if is_text else read_parquet_header(path)
    header = _check_header(path, [IMAGE_PATH if name == images else name for name in raw_header])
    names = choose_attributes(path, list(header), attributes, require_attributes)

    # cells
    raw_names = [header[name] for name in (IMAGE_PATH, *names)]
    lists: frozenset[str] = frozenset()
    lenient = attributes is None and not require_attributes
    if is_text:
        cells = read_text_columns(path, raw_header, raw_names)
    else:
        cells, lists = read_parquet_columns(path, raw_names[images is not None :], lenient)

    # image paths
    shown = None
    if images is not None:
        cells[IMAGE_PATH], shown = read_embedded_paths(path, images)
    image_paths = pc.utf8_trim_whitespace(cells[raw_names[0]]).cast(pa.large_string())
    image_paths = pc.fill_null(_combined(image_paths), "")
    image_paths = unescaped(image_paths) if is_text else image_paths
    blank = pc.equal(image_paths, "")
    if is_text and len(header) == 1:
        image_paths = image_paths.filter(pc.invert(blank))  # with a single column, a blank cell is an empty line
    elif (row := pc.index(blank, True).as_py()) >= 0:
        place = f"line {line_of_row(path, row)}" if is_text else f"row {row + 1}"
        raise DataError(f"{path.name} {place}: {IMAGE_PATH} is blank: fill it in or delete the row")
    if not len(image_paths):
        raise no_rows(path)

    # attributes
    columns = {name: _encode(cells[header[name]], is_text) for name in names if header[name] in cells}
    check_lengths(path, IMAGE_PATH, image_paths)
    for name, column in list(columns.items()):
        try:
            check_lengths(path, name, column.dictionary)
        except DataError as error:
            if not lenient:
                raise
            _logger.warning(f"{str(error).rpartition(': ')[0]}: left out")
            del columns[name]
    joined = {name for name in columns if header[name] in lists}
    for name, column in columns.items():
        sets = joined_lists(path, name, column.dictionary)
        if sets is not None and name not in joined:
            columns[name] = _encode(pa.DictionaryArray.from_arrays(column.indices, sets))
            joined.add(name)
            _logger.info(f"{path.name} column {name!r}: its cells are lists, which are read as several values")
    root = None if image_root is None else Path(image_root)
    names_of = None if shown is None or shown is cells[IMAGE_PATH] else shown
    return Table(path, image_paths, columns, attributes is not None, frozenset(joined), image_root=root, names=names_of)


def _check_file(path: Path) -> None:
    """Raise a DataError unless the path is a file with content, in a format that we read."""
    parts = parquet_parts(path)
    if path.is_dir() and not parts:
        raise DataError(f"{path} is a folder, not a table: {tables_nearby(path)}")
    for part in parts or [path]:
        if fault := irregular_file(part):
            raise DataError(fault)
        if not part.is_file():
            raise DataError(f"no such table: {path} ({tables_nearby(path.parent)})")
        if not is_table(part):
            raise DataError(f"{path.name} is not a table we read: save it as .csv, .tsv or .parquet")
        try:
            with part.open("rb"):
                pass
        except OSError as error:
            raise DataError(f"{part} cannot be read ({error.strerror}): allow this user to read it") from None
        if not part.stat().st_size:
            raise DataError(f"{part.name} is empty: its first line must be a header with {IMAGE_PATH}")


def _check_header(path: Path, raw_header: list[str]) -> dict[str, str]:
    """Return a dict from each column's normalized name to its spelling in the file, or raise a DataError."""
    is_text = is_text_table(path)
    names = normalized_names([unescaped_text(name) for name in raw_header] if is_text else raw_header)
    where = f"{path.name} line {header_line(path)}" if is_text else path.name
    if IMAGE_PATH not in names:
        raise DataError(
            f"{where} has no column {IMAGE_PATH}: {_renaming(names, raw_header)} (found {quoted(names, 20)})"
        )
    if "" in names:
        raise DataError(
            f"{where}: column {names.index('') + 1} has no name: name this column or delete it "
            "(with pandas, save the table with index=False)"
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{where}: column {twice[0]!r} is there twice: rename or delete one")
    return dict(zip(names, raw_header, strict=True))


def _renaming(names: list[str], raw_header: list[str]) -> str:
    """Return the remedy for a header without a column of image paths."""
    if len(names) == 1 and (delimiter := next((d for d in ";\t|," if d in raw_header[0]), None)):
        between = "tabs" if delimiter == "\t" else repr(delimiter)
        return f"its cells seem to be separated by {between}: separate .csv with commas and .tsv with tabs"
    similar = [name for name in names if name and _PATH_LIKE.fullmatch(re.sub(r"[^a-z]", "", name.lower()))]
    similar += difflib.get_close_matches(IMAGE_PATH, names, 1)
    return f"rename {similar[0]!r} to it" if similar else "add one, with each image's path"


def _combined(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    return texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts


def _without_unused(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """Return a column without the dictionary entries that no row uses."""
    used = column.indices.unique().drop_null()
    return pa.DictionaryArray.from_arrays(pc.index_in(column.indices, value_set=used), column.dictionary.take(used))


def _encode(column: pa.ChunkedArray | pa.DictionaryArray, is_text: bool = False) -> pa.DictionaryArray:
    """Return a dictionary-encoded column with normalized cells, in CSV unescaped; empty cells become null."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    names = encoded.dictionary.cast(pa.string())
    names = normalized_cells(unescaped(names) if is_text else names)
    # Normalizing can make two entries equal. Only the few names are encoded again; the many rows' indices map to them.
    names = pc.if_else(pc.equal(names, ""), None, names).dictionary_encode()
    return pa.DictionaryArray.from_arrays(names.indices.take(encoded.indices), names.dictionary)
