"""A reader of Parquet tables, which returns each cell as the text that a CSV file would have."""

import glob
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from catalog.cell_text import normalized_name
from catalog.data_error import DataError
from catalog.embedded_images import image_column, location
from catalog.label_space import SEPARATOR
from catalog.splits import PARTS
from catalog.table_size import check_bytes, check_cells, max_table_bytes
from runtime.errors import first_line

IMAGE_PATH = "image_path"
_INDEX = re.compile(r"__index_level_\d+__")  # the name that pandas gives its index
_BATCH = 1 << 16  # rows that are read at a time
_EXACT = 2.0**53  # below it, each whole number is a float64 of its own

_logger = logging.getLogger(__name__)
pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see


def parquet_parts(path: Path) -> list[Path]:
    """Return the Parquet files of a table, in order: the file, those in a folder, or those that fit `NAME-*.parquet`.

    Spark and Dask write a table as a folder. Hidden files and those that begin with `_` are not part of it.
    """
    if path.is_dir():
        found = path.glob("*.parquet")
    elif path.name.endswith(PARTS) and not path.exists():
        found = path.parent.glob(glob.escape(path.name.removesuffix(PARTS)) + PARTS)
    else:
        return [path]
    return sorted(file for file in found if file.is_file() and not file.name.startswith((".", "_")))


def read_parquet_header(path: Path) -> tuple[list[str], str | None]:
    """Return the names of a Parquet table's columns, without pandas' index, and the one that holds images, if any.

    Raises:
        DataError: if a file is not a Parquet table, parts have other columns, or several columns hold images.
    """
    names: list[str] = []
    images = None
    for part in parquet_parts(path):
        try:
            with pq.ParquetFile(part, buffer_size=1 << 20) as file:
                columns = [name for name in file.schema_arrow.names if not _INDEX.fullmatch(name)]
                images = images or image_column(file)
        except DataError as error:
            raise DataError(f"{part.name}: {error}") from None
        except (pa.ArrowException, OSError):
            raise DataError(f"{part.name} is not a Parquet file, or is damaged: write it again, or as .csv") from None
        names = names or columns
        if differing := sorted({*names} ^ {*columns}):
            raise DataError(
                f"{path.name}: only some of its parts have a column {differing[0]!r} ({part.name} "
                f"{'has' if differing[0] in columns else 'lacks'} it): write all parts with the same columns"
            )
    return names, images


def read_parquet_columns(
    path: Path, names: list[str], lenient: bool
) -> tuple[dict[str, pa.ChunkedArray], frozenset[str]]:
    """Read columns of a Parquet table as strings.

    Args:
        path: the table.
        names: the columns to read, as the file spells them.
        lenient: whether a column that holds no names is left out with a warning; otherwise it is an error. The image
            paths are never left out.

    Returns:
        The columns by name, and the names of those whose cells are lists, here joined by `|`.

    Raises:
        DataError: if the file is damaged, or a column holds no names.
    """
    before = pa.total_allocated_bytes()
    parts = {part: _read(part, names, before) for part in parquet_parts(path)}
    columns = {}
    for name in names:
        try:
            texts = [_as_strings(part, name, cells[name]) for part, cells in parts.items()]
            if normalized_name(name) == IMAGE_PATH:
                texts = [_plain(path, text) for text in texts]
        except DataError as error:
            if not lenient or normalized_name(name) == IMAGE_PATH:
                raise
            _logger.warning(f"{str(error).rpartition(': ')[0]}: left out")
            continue
        columns[name] = _joined_parts(texts)
    lists = (name for name in columns if any(_is_list(cells.schema.field(name).type) for cells in parts.values()))
    return columns, frozenset(lists)


def _joined_parts(texts: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Return the rows of all parts as one column; where some parts have dictionaries and others have none, without."""
    kinds = {text.type for text in texts}
    kind = kinds.pop() if len(kinds) == 1 else pa.large_string()
    column = pa.chunked_array([chunk.cast(kind) for text in texts for chunk in text.chunks], kind)
    return column.unify_dictionaries() if pa.types.is_dictionary(kind) else column


def read_embedded_paths(path: Path, column: str) -> tuple[pa.LargeStringArray, pa.LargeStringArray]:
    """Return the paths of the images inside a table, relative to its folder, and their names for people.

    An image's name is the path that is saved with its bytes, if no other image has it. If no image has bytes, the saved
    paths are files, and both are these.

    Args:
        path: the table.
        column: the column of images.

    Raises:
        DataError: if a file is damaged.
    """
    paths, saved, without = [], [], True
    for part in parquet_parts(path):
        place = str(part.relative_to(path.parent))
        try:
            with pq.ParquetFile(part, buffer_size=1 << 20) as file:
                rows = file.metadata.num_rows
                saved.append(_saved_paths(file, column))
                without = without and _are_null(file.metadata, f"{column}.bytes")
        except (pa.ArrowException, OSError) as error:
            raise _damaged(part, error) from None
        paths += [location(place, row) for row in range(rows)]
    own = pa.concat_arrays([pa.array([], pa.large_string()), *saved])
    if without:
        return own, own
    locations = pa.array(paths, pa.large_string())
    names = own.dictionary_encode()
    several = np.flatnonzero(np.bincount(names.indices.drop_null().to_numpy(), minlength=1) > 1)
    kept = pc.and_(names.is_valid(), pc.invert(pc.is_in(names.indices, value_set=pa.array(several, pa.int32()))))
    return locations, pc.if_else(kept, own, locations)


def _saved_paths(file: pq.ParquetFile, column: str) -> pa.LargeStringArray:
    """Return the path that each row has beside its bytes; null for none."""
    kind = file.schema_arrow.field(column).type
    at = kind.get_field_index("path") if pa.types.is_struct(kind) else -1
    if at < 0 or not (pa.types.is_string(kind.field(at).type) or pa.types.is_large_string(kind.field(at).type)):
        return pa.nulls(file.metadata.num_rows, pa.large_string())
    structs = file.read(columns=[f"{column}.path"])[column].combine_chunks()
    paths = pc.utf8_trim_whitespace(pc.struct_field(structs, "path").cast(pa.large_string()))
    return pc.if_else(pc.equal(paths, ""), None, paths)


def _are_null(metadata: pq.FileMetaData, column: str) -> bool:
    """Return whether a column has no value at all, as far as the file's header says so."""
    chunks = [
        metadata.row_group(group).column(index)
        for group in range(metadata.num_row_groups)
        for index in range(metadata.num_columns)
    ]
    counted = [one for one in chunks if one.path_in_schema == column]
    return metadata.num_rows == 0 or (
        bool(counted)
        and all(
            one.statistics is not None and one.statistics.has_null_count and one.statistics.num_values == 0
            for one in counted
        )
    )


def _read(path: Path, names: list[str], before: int) -> pa.Table:
    """Return columns of a file; structs, which may hold images, are not read, and their column is blank.

    Args:
        path: the file.
        names: the columns.
        before: bytes that Arrow held before the table's first file was read.
    """
    try:
        # ParquetFile, because read_table would make columns of folders called "a=b".
        return _read_bounded(path, names, before)
    except (pa.ArrowException, OSError) as error:
        if int(pa.__version__.split(".")[0]) < 26 and "Expected all lists to be of size" in str(error):
            raise DataError(
                f"{path.name} has lists of a fixed length and blank cells, which pyarrow {pa.__version__} cannot read: "
                "pip install 'pyarrow>=26', or write lists of variable length"
            ) from None
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path.name} is damaged ({first_line(error)}): write it again, or as .csv")


def _read_bounded(path: Path, names: list[str], before: int) -> pa.Table:
    """Return columns of a file in memory, strings as dictionaries, while they stay below the bound.

    A column of few distinct values takes almost nothing in the file, whatever number of rows it has.
    """
    with pq.ParquetFile(path, buffer_size=1 << 20) as file:
        kinds = {name: file.schema_arrow.field(name).type for name in names}
    flat = [name for name, kind in kinds.items() if not pa.types.is_struct(kind)]
    with pq.ParquetFile(path, read_dictionary=[name for name in flat if _is_text(kinds[name])]) as file:
        count = file.metadata.num_rows
        check_cells(path, count, len(names))
        batches = []
        rows = max(1, min(_BATCH, max_table_bytes() // _largest_list(file.metadata, flat)))
        for batch in file.iter_batches(batch_size=rows, columns=flat):
            batches.append(batch)
            check_bytes(path, pa.total_allocated_bytes() - before, "cells in memory")
        cells = pa.Table.from_batches(batches) if batches else file.read(columns=flat)
    return pa.table({name: cells[name] if name in flat else pa.nulls(count, kind) for name, kind in kinds.items()})


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
    check_bytes(path, pc.sum(lengths).as_py() or 0, "image paths")
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
            f"{path.name} row {rows[wrong].as_py() + 1}: value {values[wrong].as_py()!r} of {name} contains "
            f"{SEPARATOR}, which separates values: remove the {SEPARATOR}"
        )
    present = values.is_valid()
    lengths = np.bincount(rows.filter(present).to_numpy(), minlength=len(lists))
    offsets = pa.array(np.concatenate([[0], lengths.cumsum()]), pa.int64())
    sets = pa.LargeListArray.from_arrays(offsets, values.filter(present))
    joined = pc.binary_join(sets, SEPARATOR)
    joined = pc.if_else(pc.equal(joined, ""), SEPARATOR, joined)
    return pa.chunked_array([pc.if_else(lists.is_valid(), joined, None)])
