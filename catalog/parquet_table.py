"""A reader of Parquet tables, which returns each cell as the text that a CSV file would have."""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from catalog.data_error import DataError
from catalog.label_space import SEPARATOR
from catalog.table_size import check_bytes, check_cells, max_table_bytes
from runtime.errors import first_line

_BATCH = 1 << 16  # rows that are read at a time
_EXACT = 2.0**53  # below it, each whole number is a float64 of its own

_logger = logging.getLogger(__name__)
pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see


def read_parquet_header(path: Path) -> list[str]:
    """Return the names of a Parquet table's columns, without pandas' index.

    Raises:
        DataError: if the file is not a Parquet table.
    """
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError):
        raise DataError(f"{path.name} is not a Parquet file, or is damaged: write it again, or as .csv") from None
    return [name for name in names if not re.fullmatch(r"__index_level_\d+__", name)]


def read_parquet_columns(
    path: Path, names: list[str], lenient: bool
) -> tuple[dict[str, pa.ChunkedArray], frozenset[str]]:
    """Read columns of a Parquet table as strings.

    Args:
        path: the table.
        names: the columns to read, as the file spells them; the first holds the image paths.
        lenient: whether a column that holds no names is left out with a warning; otherwise it is an error.

    Returns:
        The columns by name, and the names of those whose cells are lists, here joined by `|`.

    Raises:
        DataError: if the file is damaged, or a column holds no names.
    """
    # the file
    try:
        # ParquetFile, because read_table would make columns of folders called "a=b".
        cells = _read(path, names)
    except (pa.ArrowException, OSError) as error:
        if int(pa.__version__.split(".")[0]) < 26 and "Expected all lists to be of size" in str(error):
            raise DataError(
                f"{path.name} has lists of a fixed length and cells without one, which pyarrow {pa.__version__} cannot "
                "read: pip install 'pyarrow>=26', or write lists of any length"
            ) from None
        raise DataError(f"{path.name} is damaged ({first_line(error)}): write it again, or as .csv") from None

    # the columns as strings
    columns = {}
    for name in names:
        try:
            columns[name] = _as_strings(path, name, cells[name])
            if name == names[0]:
                columns[name] = _plain(path, columns[name])
        except DataError as error:
            if not lenient or name == names[0]:
                raise
            _logger.warning(f"{str(error).rpartition(': ')[0]}: left out")
    return columns, frozenset(name for name in columns if _is_list(cells[name].type))


def _read(path: Path, names: list[str]) -> pa.Table:
    """Return columns of a table in memory, strings as dictionaries, while they stay below the bound.

    A column of few distinct values takes almost nothing in the file, whatever number of rows it has.
    """
    strings = [field.name for field in pq.read_schema(path) if field.name in names and _is_text(field.type)]
    file = pq.ParquetFile(path, read_dictionary=strings)
    check_cells(path, file.metadata.num_rows, len(names))
    limit, before = max_table_bytes(), pa.total_allocated_bytes()
    batches = []
    rows = max(1, min(_BATCH, limit // _largest_list(file.metadata, names)))
    for batch in file.iter_batches(batch_size=rows, columns=names):
        batches.append(batch)
        check_bytes(path, pa.total_allocated_bytes() - before, "bytes of cells in memory")
    return pa.Table.from_batches(batches) if batches else file.read(columns=names)


def _largest_list(metadata: Any, names: list[str]) -> int:
    """Return the bytes that a row with a list may take: what a column of lists takes in a group of rows."""
    largest = 1
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            root, dot, _ = column.path_in_schema.partition(".")
            if dot and root in names:
                largest = max(largest, column.total_uncompressed_size)
    return largest


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _as_strings(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cast a Parquet column to the strings that CSV would have; a dictionary stays one."""
    if pa.types.is_dictionary(column.type):
        cells = pa.concat_arrays(column.unify_dictionaries().chunks) if column.num_chunks else column.combine_chunks()
        used = cells.indices.unique().drop_null()  # pandas' categories need not have a row
        values = _as_strings(path, name, pa.chunked_array([cells.dictionary.take(used)])).combine_chunks()
        indices = pc.index_in(cells.indices, value_set=used)
        return pa.chunked_array([pa.DictionaryArray.from_arrays(indices, values)])
    try:
        if pa.types.is_boolean(column.type):
            return pc.if_else(column, "True", "False")
        if pa.types.is_floating(column.type):
            floats = column.cast(pa.float64())
            return _numbers(pc.if_else(pc.is_nan(floats), None, floats), column.type)
        if _is_list(column.type) and _can_name(column.type.value_type):
            return _joined(path, name, column.combine_chunks())
        if not pa.types.is_nested(column.type):
            return column.cast(pa.string())
    except pa.ArrowException:
        pass
    raise DataError(f"{path.name} column {name!r} holds {column.type}, not names: choose other columns as attributes")


def _plain(path: Path, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of strings without a dictionary, if they stay below the bound."""
    if not pa.types.is_dictionary(column.type):
        return column
    cells = column.combine_chunks()
    cells = cells.chunk(0) if isinstance(cells, pa.ChunkedArray) else cells
    lengths = pc.cast(pc.binary_length(cells.dictionary), pa.int64()).take(cells.indices)
    check_bytes(path, pc.sum(lengths).as_py() or 0, "bytes of image paths")
    return column.cast(pa.large_string())


def _numbers(floats: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return numbers as text, the whole ones without a fraction or an exponent, whatever the other rows have."""
    whole = pc.and_(pc.equal(floats, pc.floor(floats)), pc.less(pc.abs(floats), _EXACT))
    integers = pc.if_else(whole, floats, None).cast(pa.int64()).cast(pa.string())
    return pc.if_else(whole, integers, floats.cast(kind).cast(pa.string()))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _can_name(kind: pa.DataType) -> bool:
    """Return whether a list's values can be names; a list of floats is a vector, not a set."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind))


def _joined(path: Path, name: str, lists: pa.Array) -> pa.ChunkedArray:
    """Join each list of names by `|`, as in CSV; nulls in a list are skipped, and an empty list becomes `|`."""
    values = pc.list_flatten(lists)
    values = (values.dictionary_decode() if pa.types.is_dictionary(values.type) else values).cast(pa.string())
    rows = pc.list_parent_indices(lists)
    if (wrong := pc.index(pc.match_substring(values, SEPARATOR), True).as_py()) >= 0:
        raise DataError(
            f"{path.name} row {rows[wrong].as_py() + 1}: {name} has a value {values[wrong].as_py()!r}, and "
            f"{SEPARATOR} separates values: remove it from the value"
        )
    present = values.is_valid()
    lengths = np.bincount(rows.filter(present).to_numpy(), minlength=len(lists))
    offsets = pa.array(np.concatenate([[0], lengths.cumsum()]), pa.int64())
    sets = pa.LargeListArray.from_arrays(offsets, values.filter(present))
    joined = pc.binary_join(sets, SEPARATOR)
    joined = pc.if_else(pc.equal(joined, ""), SEPARATOR, joined)
    return pa.chunked_array([pc.if_else(lists.is_valid(), joined, None)])
