"""All rows of the tables that are audited together, with their image files and labels."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog.attribute_column import has_separator
from catalog.cell_text import normalized_name
from catalog.data_error import DataError, did_you_mean, quoted
from catalog.find_images import with_found_images
from catalog.label_space import SEPARATOR
from catalog.repeated_images import file_paths, label_codes
from catalog.separated_cells import with_separator
from catalog.split_tables import with_absolute_paths
from catalog.splits import FORMATS, MissingTable, find_label_table, find_split, is_table
from catalog.table import Table, read_table

_SPLITS = ("train", "val", "test")

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class AuditedRows:
    """The rows of all tables, one table after the other.

    Attributes:
        tables: the tables, the training table first if there is one.
        names: the name of each table's split.
        split: the table of each row, int64 [rows].
        files: the image files, absolute paths, each once.
        file: the file of each row, int64 [rows].
        columns: the attributes of any table; null is blank, also where a table lacks the attribute.
        multi_valued: the attributes whose cells hold several values.
        lacking: the attributes of another table that each table lacks.
        groups: the number of each row's group, -1 if unknown, int64 [rows]; None without a group column.
        group_names: the name of each group.
        remarks: what reading the tables warned of, by table.
    """

    tables: tuple[Table, ...]
    names: tuple[str, ...]
    split: Numbers
    files: pa.LargeStringArray
    file: Numbers
    columns: dict[str, pa.DictionaryArray]
    multi_valued: frozenset[str]
    lacking: tuple[tuple[str, ...], ...]
    groups: Numbers | None
    group_names: tuple[str, ...]
    remarks: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.split)

    def start(self, split: int) -> int:
        """Return the position of a table's first row."""
        return sum(len(table) for table in self.tables[:split])

    def image_path(self, row: int) -> str:
        """Return a row's image path as its table spells it."""
        split = int(self.split[row])
        return self.tables[split].image_path(row - self.start(split))

    def lines(self, rows: Collection[int]) -> dict[int, int]:
        """Return the line in its file of each row (for Parquet its number), with one pass through each file."""
        found: dict[int, int] = {}
        for split, table in enumerate(self.tables):
            start = self.start(split)
            own = {row - start for row in rows if self.split[row] == split}
            found |= {row + start: line for row, line in table.lines(own).items()} if own else {}
        return found

    def cell(self, row: int, attribute: str) -> str | None:
        """Return a row's cell of an attribute; None if it is blank."""
        text: str | None = self.columns[attribute][row].as_py()
        return text

    def codes(self, attribute: str) -> Numbers:
        """Return a number for each row's label, equal for sets in another order, -1 for a blank cell, int64 [rows]."""
        return label_codes(self.columns[attribute])


def find_tables(inputs: Sequence[str]) -> list[Path]:
    """Return the tables in folders, and those that are named.

    A folder gives its train, val and test; without any of them its only table.

    Args:
        inputs: folders and tables.

    Raises:
        DataError: if an input is missing or has no table, or a table is found twice.
    """
    found: list[Path] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            found += _in_folder(path)
        elif is_table(path):
            found.append(path)
        else:
            reason = f"neither a folder nor a table ({', '.join(FORMATS)})" if path.exists() else "no such folder"
            raise DataError(f"{text}: {reason}: give a folder with train.csv, or the tables themselves")
    if twice := [path for i, path in enumerate(found) if path.resolve() in {one.resolve() for one in found[:i]}]:
        raise DataError(f"{twice[0]} is named twice: name each table once")
    return found


def _in_folder(folder: Path) -> list[Path]:
    found = []
    for name in _SPLITS:
        with suppress(MissingTable):
            found.append(find_split(folder, name))
    if found:
        return found
    tables = sorted(file for file in folder.iterdir() if file.is_file() and is_table(file))
    if len(tables) != 1:
        if tables:
            raise DataError(
                f"{folder} has no table called train, val or test, but {quoted([file.name for file in tables])}: name "
                "the tables to audit"
            )
        find_split(folder, "train")  # raises, with what the folder has
    return tables


def read_audited_rows(
    paths: Sequence[Path],
    attributes: Sequence[str] | None = None,
    multi_valued: Sequence[str] | None = None,
    group: str | None = None,
    separator: str = SEPARATOR,
) -> AuditedRows:
    """Read tables as training does, without refusing columns that cannot be learned.

    Args:
        paths: the tables, the training table first.
        attributes: the columns to audit; by default all but `image_path` and the group.
        multi_valued: the attributes whose cells hold several values; by default as in training.
        group: the column that says which rows belong together, or None.
        separator: the text between the values of a cell.

    Raises:
        DataError: if a table cannot be read or none of its images exists, or a column is missing.
    """
    tables: list[Table] = []
    remarks, absolute = [], []
    group = None if group is None else normalized_name(group)
    for path in paths:
        with collected_warnings() as warnings:
            table = _read(path, attributes, group, first=not tables)
            joined = multi_valued if multi_valued is not None or not tables else tables[0].lists
            table = _with_separator(table, separator, joined, group)
            found, _ = with_found_images(table)
        tables.append(table)
        remarks.append(tuple(warnings))
        absolute.append(file_paths(with_absolute_paths(found)))
    files = pa.concat_arrays(absolute).dictionary_encode()
    names = list(dict.fromkeys(name for table in tables for name in table.attributes if name != group))
    columns = {name: _joined(tables, name) for name in names}
    groups = None if group is None else _joined(tables, group)
    return AuditedRows(
        tables=tuple(tables),
        names=_split_names(paths),
        split=np.repeat(np.arange(len(tables)), [len(table) for table in tables]),
        files=files.dictionary,
        file=files.indices.to_numpy().astype(np.int64),
        columns=columns,
        multi_valued=_multi_valued(tables[0], paths[0], names, multi_valued, separator),
        lacking=tuple(tuple(name for name in names if name not in table.columns) for table in tables),
        groups=None if groups is None else groups.indices.fill_null(-1).to_numpy().astype(np.int64),
        group_names=() if groups is None else tuple(groups.dictionary.to_pylist()),
        remarks=tuple(remarks),
    )


def _read(path: Path, attributes: Sequence[str] | None, group: str | None, first: bool) -> Table:
    """Return a table with the attributes and the group; later tables may lack an attribute."""
    chosen = None if attributes is None else [*attributes, *([group] if group else [])]
    table = read_table(path, chosen if first else None, require_attributes=False)
    if group is not None and group not in table.columns:
        similar = did_you_mean(group, table.attributes)
        raise DataError(
            f"{path.name} has no column {group!r}, which group_column names{similar} (its columns are "
            f"{quoted(table.attributes, 20) or 'image_path alone'})"
        )
    if chosen is not None and not first:
        wanted = set(map(normalized_name, chosen))
        table = replace(table, columns={name: one for name, one in table.columns.items() if name in wanted})
    return table


def _with_separator(table: Table, separator: str, names: Collection[str] | None, group: str | None) -> Table:
    """Return a table whose multi-valued cells are joined by `|`; the groups stay as they are."""
    found = with_separator(table, separator, names)
    if group is None:
        return found
    return replace(found, columns={**found.columns, group: table.columns[group]}, lists=found.lists - {group})


def _multi_valued(
    table: Table, path: Path, names: Sequence[str], chosen: Sequence[str] | None, separator: str
) -> frozenset[str]:
    """Return the multi-valued attributes: the chosen ones, else those that the table of the classes shows."""
    if chosen is not None:
        wanted = [normalized_name(name) for name in chosen]
        if unknown := [name for name in wanted if name not in names]:
            raise DataError(
                f"{path.name} has no attribute {unknown[0]!r}, which multi_valued names; it has "
                f"{quoted(names) or 'none'}"
            )
        return frozenset(wanted)
    label_path = find_label_table(path.parent, path)
    if label_path != path:
        table = with_separator(read_table(label_path, require_attributes=False), separator)
    return frozenset(
        name for name in names if name in table.columns and (name in table.lists or has_separator(table.columns[name]))
    )


def _joined(tables: Sequence[Table], name: str) -> pa.DictionaryArray:
    """Return a column of all tables as one."""
    parts = [
        table.columns[name].cast(pa.string()) if name in table.columns else pa.nulls(len(table), pa.string())
        for table in tables
    ]
    return pa.concat_arrays(parts).dictionary_encode()


def _split_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return a name for each table: the file's without its ending, or its path if two have the same."""
    stems = [
        path.name[: -len(next(end for end in sorted(FORMATS, key=len)[::-1] if path.name.lower().endswith(end)))]
        for path in paths
    ]
    return tuple(stem if stems.count(stem) == 1 else str(path) for stem, path in zip(stems, paths, strict=True))


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Yield a list that receives the warnings of this room, which are not logged meanwhile."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                messages.append(record.getMessage())

    logger, handler = logging.getLogger("catalog"), Collector()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
