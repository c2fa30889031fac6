"""Writing a table with its blank cells filled: every other cell, the order and the types of its columns stay.

For each attribute two columns are added: `<attribute>_source`, whose words are in `SOURCES`, and
`<attribute>_probability`, the calibrated probability of a filled class. A column `fill_error` with reasons is added if
images could not be read. A text table keeps the bytes of each row in which nothing is filled.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from catalog.data_error import DataError
from catalog.label_space import SEPARATOR, LabelSpace, values_of
from catalog.parquet_table import parquet_parts
from catalog.spreadsheet_text import escaped_text
from catalog.text_table import delimiter, is_text_table, raw_rows

pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see

GIVEN, FILLED, BLANK = SOURCES = ("given", "filled", "blank")
REASON = "fill_error"


@dataclass(frozen=True, eq=False)
class FilledColumn:
    """The cells of one attribute.

    Attributes:
        name: the attribute.
        spelled: the name of its column in the file; None if the table lacks it.
        given: which rows have a label in the file, bool [rows].
        cells: the class of each filled row; a multi-valued attribute's values are joined by `|`.
        probabilities: the probability of each filled row as text; several are joined by the separator.
        several: whether the attribute is multi-valued.
        separator: the text between the values of a cell in the file.
        as_list: whether cells are lists in JSON's notation.
    """

    name: str
    spelled: str | None
    given: npt.NDArray[np.bool_]
    cells: Mapping[int, str]
    probabilities: Mapping[int, str]
    several: bool = False
    separator: str = SEPARATOR
    as_list: bool = False

    def text(self, row: int) -> str:
        """Return a filled cell as text tables have it; "" for any other row."""
        cell = self.cells.get(row)
        if cell is None:
            return ""
        if self.as_list:
            return json.dumps(values_of(cell), ensure_ascii=False)
        return cell.replace(SEPARATOR, self.separator) if self.several else cell

    def source(self, row: int) -> str:
        """Return where a row's cell comes from, one of `SOURCES`."""
        return GIVEN if self.given[row] else FILLED if row in self.cells else BLANK


def added_columns(attributes: Iterable[str]) -> list[str]:
    """Return the names of the columns that filling adds for some attributes."""
    return [f"{name}_{kind}" for name in attributes for kind in ("source", "probability")]


def write_filled_table(
    source: Path,
    target: Path,
    columns: Sequence[FilledColumn],
    errors: Mapping[int, str],
    *,
    compress: bool = False,
    spreadsheet_safe: bool = False,
) -> None:
    """Write a filled table.

    Args:
        source: the table to fill, which gives the format.
        target: the file to write.
        columns: the attributes.
        errors: by row, the reason why its image could not be read.
        compress: whether text is compressed with gzip.
        spreadsheet_safe: whether classes are written into CSV so that a spreadsheet runs none of them.

    Raises:
        DataError: the source is not the table that was filled.
    """
    if is_text_table(source):
        with ExitStack() as stack:
            _write_text(source, _open_text(stack, target, compress), columns, errors, spreadsheet_safe)
    else:
        _write_parquet(source, target, columns, errors)


def check_types(path: Path, spelled: Mapping[str, str], label_space: LabelSpace) -> None:
    """Raise unless the columns of a Parquet table can hold every class of their attributes.

    Args:
        path: the table.
        spelled: the name of each attribute's column.
        label_space: the attributes and classes.

    Raises:
        DataError: a class cannot be written as the column's type.
    """
    schema = pq.read_schema(parquet_parts(path)[0])
    for attribute, name in spelled.items():
        for value in label_space.classes[attribute]:
            try:
                _merged(pa.chunked_array([pa.nulls(1, schema.field(name).type)]), [value])
            except pa.ArrowException:
                raise DataError(
                    f"{path.name} column {name!r} holds {schema.field(name).type}, and the model's class {value!r} is "
                    "none: save the column as strings"
                ) from None


def _write_text(
    source: Path, file: TextIO, columns: Sequence[FilledColumn], errors: Mapping[int, str], safe: bool
) -> None:
    """Write a text table row by row: as it is if nothing is filled in it, with the new cells at its end."""
    between = delimiter(source)
    shown = escaped_text if safe else str
    missing = [one for one in columns if one.spelled is None]
    count = len(columns[0].given) if columns else 0
    places: dict[int, FilledColumn] = {}
    row = -1  # the header
    for text, cells in raw_rows(source):
        if cells is None:
            file.write(text)
            continue
        if row < 0:
            places = {_place(cells, one): one for one in columns if one.spelled is not None}
            new = [one.name for one in missing] + added_columns(one.name for one in columns)
            new += [REASON] if errors else []
            changed = False
        else:
            new = [shown(one.text(row)) for one in missing]
            new += [part for one in columns for part in (one.source(row), one.probabilities.get(row, ""))]
            new += [errors.get(row, "")] if errors else []
            found = {place: one for place, one in places.items() if row in one.cells}
            changed = bool(found)
            for place, one in found.items():
                cells[place] = shown(one.text(row))
        body = text.rstrip("\r\n")
        start = _joined(cells, between) if changed else body
        file.write(f"{start}{between}{_joined(new, between)}{text[len(body) :]}")
        row += 1
    if row != count:
        raise DataError(f"{source.name} has changed while it was read ({row} rows, before {count}): start again")


def _open_text(stack: ExitStack, path: Path, compress: bool) -> TextIO:
    """Open a text file for writing."""
    if compress:
        binary = stack.enter_context(path.open("wb"))
        compressed = stack.enter_context(gzip.GzipFile("", "wb", fileobj=binary, mtime=0))
        return stack.enter_context(io.TextIOWrapper(compressed, encoding="utf-8", newline=""))
    return stack.enter_context(path.open("w", encoding="utf-8", newline=""))


def _place(header: Sequence[str], column: FilledColumn) -> int:
    assert column.spelled is not None
    return list(header).index(column.spelled)


def _joined(cells: Sequence[str], between: str) -> str:
    """Return cells as a text table has them, without a line end."""
    text = io.StringIO()
    csv.writer(text, delimiter=between).writerow(cells)
    return text.getvalue().removesuffix("\r\n")  # with another line end, the writer would not quote these characters


def _write_parquet(source: Path, target: Path, columns: Sequence[FilledColumn], errors: Mapping[int, str]) -> None:
    """Write a Parquet table group of rows by group of rows."""
    start, writer = 0, None
    with ExitStack() as stack:
        for group in _groups(source):
            part = _filled_group(group, start, columns, errors)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(target, part.schema))
            writer.write_table(part.cast(writer.schema), row_group_size=max(1, len(part)))
            start += len(part)


def _groups(source: Path) -> Iterator[pa.Table]:
    """Yield the groups of rows of all parts of a table; images inside it may take most of the memory."""
    for path in parquet_parts(source):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group)


def _filled_group(group: pa.Table, start: int, columns: Sequence[FilledColumn], errors: Mapping[int, str]) -> pa.Table:
    """Return some rows of a table with their blank cells filled and the new columns.

    Args:
        group: the rows.
        start: position of the first one in the table.
        columns: the attributes.
        errors: by row of the table, the reason why its image could not be read.
    """
    rows = range(start, start + len(group))
    metadata = group.schema.metadata
    for one in columns:
        if one.spelled is None:
            group = group.append_column(one.name, pa.array([one.text(row) or None for row in rows], pa.string()))
            continue
        position = group.schema.get_field_index(one.spelled)
        cells = [one.cells.get(row) for row in rows]
        kind = group.schema.field(position).type
        if one.as_list or (one.several and not _is_list(_plain(kind))):
            cells = [None if cell is None else one.text(row) for row, cell in zip(rows, cells, strict=True)]
        if any(cell is not None for cell in cells):
            group = group.set_column(position, group.schema.field(position), _merged(group[position], cells))
    for one in columns:
        group = group.append_column(f"{one.name}_source", pa.array([one.source(row) for row in rows], pa.string()))
        texts = pa.array([one.probabilities.get(row) for row in rows], pa.string())
        group = group.append_column(f"{one.name}_probability", texts if one.several else texts.cast(pa.float32()))
    if errors:
        group = group.append_column(REASON, pa.array([errors.get(row) for row in rows], pa.string()))
    return group.replace_schema_metadata(metadata)


def _merged(column: pa.ChunkedArray, cells: Sequence[str | None]) -> pa.Array:
    """Return a column, in its type, with those cells replaced that are not None."""
    kind = column.type
    if not pa.types.is_dictionary(kind):
        mask = pa.array([cell is not None for cell in cells])
        return pc.if_else(mask, _typed(cells, kind), column.combine_chunks())
    # categories keep their order, and new ones follow
    whole = pa.concat_arrays(column.unify_dictionaries().chunks)
    new = pa.array(list(dict.fromkeys(cell for cell in cells if cell is not None)), pa.string())
    values = _typed(new.to_pylist(), kind.value_type)
    known = pa.concat_arrays([whole.dictionary, values.filter(pc.invert(pc.is_in(values, value_set=whole.dictionary)))])
    filled = pc.index_in(_typed(cells, kind.value_type), value_set=known)
    old = whole.indices.cast(pa.int32())
    indices = pc.if_else(pa.array([cell is not None for cell in cells]), filled, old).cast(kind.index_type)
    return pa.DictionaryArray.from_arrays(indices, known, ordered=kind.ordered)


def _typed(cells: Sequence[str | None], kind: pa.DataType) -> pa.Array:
    """Return cells as values of a type; the values of a list are joined by `|`."""
    kind = _plain(kind)
    if _is_list(kind):
        lists = pa.array([None if cell is None else values_of(cell) for cell in cells], pa.list_(pa.string()))
        return lists.cast(kind)
    return pa.array(cells, pa.string()).cast(kind)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
