"""Bounds on what a table may take in memory, checked before it is read.

A compressed file of a few kilobytes may hold gigabytes of text, and a Parquet file as many rows.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from catalog.data_error import DataError

pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see

MAX_TABLE_BYTES = 1 << 30  # text, or cells in memory: eight million rows with ten attributes
RAISED_BY = "SIMCLR_MAX_TABLE_MIB"  # the environment variable that raises it
MAX_CELL = 1 << 17  # characters; Python's csv module reads no longer cell
MAX_CLASSES = 100_000  # in a column that nobody chose; the head has a row for each

_CELL_BYTES = 12  # the code of a cell in the table, and its target


def max_table_bytes() -> int:
    """Return the bytes that a table may take, in which an environment variable may raise the default.

    Raises:
        DataError: if the variable is not a number.
    """
    text = os.environ.get(RAISED_BY, "")
    if text and not (text.isdecimal() and 1 <= len(text) <= 7):
        raise DataError(f"{RAISED_BY}={text[:20]} is not a whole number of MiB below 10,000,000: correct or unset it")
    return int(text) << 20 if text else MAX_TABLE_BYTES


def check_bytes(path: Path, count: int, held: str = "text") -> None:
    """Raise a DataError if a table has too many bytes.

    Args:
        path: the table.
        count: the bytes that it takes, or a part that is above the bound.
        held: what these bytes are.
    """
    if count > (limit := max_table_bytes()):
        raise DataError(
            f"{path.name} has more than {limit >> 20:,} MiB of {held}: split this table, or set the environment "
            f"variable {RAISED_BY}={2 * limit >> 20}"
        )


def check_lengths(path: Path, name: str, cells: pa.Array) -> None:
    """Raise a DataError if a cell is too long to be a path or the name of a class.

    Args:
        path: the table.
        name: the column.
        cells: Arrow strings, such as a column's distinct values.
    """
    if (longest := pc.max(pc.binary_length(cells)).as_py() or 0) > MAX_CELL:
        raise DataError(
            f"{path.name} column {name!r} has a cell of {longest:,} bytes, more than {MAX_CELL:,}, too long for "
            "a path or a class name: delete the column, or choose other attributes"
        )


def check_cells(path: Path, rows: int, columns: int) -> None:
    """Raise a DataError if a table's cells would take too much memory.

    Args:
        path: the table.
        rows: number of rows that it has or claims.
        columns: number of columns to read.
    """
    if (needed := rows * (columns + 1) * _CELL_BYTES) > (limit := max_table_bytes()):
        raise DataError(
            f"{path.name} has {rows:,} rows and {columns:,} columns to read, which take {needed >> 20:,} MiB, more "
            f"than the {limit >> 20:,} MiB allowed: split this table, choose fewer attributes, or set the "
            f"environment variable {RAISED_BY}={-(-needed >> 20)}"
        )
