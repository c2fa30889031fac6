"""Cells that are lists in the notation of Python or JSON: ['striped', 'cotton'], as pandas writes columns of lists."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from catalog.data_error import DataError
from catalog.label_space import SEPARATOR

pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see

_LIST = r"(?s)^\s*\[.*\]\s*$"
_NO_COMMA = re.compile(r"""['"]\s+['"]""")  # NumPy's notation, which Python reads as one joined string


def joined_lists(path: Path, name: str, cells: pa.StringArray) -> pa.StringArray | None:
    """Return cells that are all lists as sets joined by `|`; None if any is no list. A null is blank.

    Args:
        path: the table, for messages.
        name: the column, for messages.
        cells: Arrow strings, a column's distinct values.

    Raises:
        DataError: if a value contains `|`.
    """
    if cells.null_count == len(cells) or not pc.all(pc.match_substring_regex(cells, _LIST)).as_py():
        return None
    sets = [None if cell is None else _values(cell) for cell in cells.to_pylist()]
    if any(values is None and valid for values, valid in zip(sets, cells.is_valid().to_pylist(), strict=True)):
        return None
    if wrong := next((value for values in sets for value in values or () if SEPARATOR in value), None):
        raise DataError(
            f"{path.name}: value {wrong!r} of {name} contains {SEPARATOR}, which separates values: remove the "
            f"{SEPARATOR}"
        )
    return pa.array([None if v is None else SEPARATOR.join(v) or SEPARATOR for v in sets], pa.string())


def _values(cell: str) -> list[str] | None:
    """Return the names in a list; None if it is no list of names."""
    if _NO_COMMA.search(cell):
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            values = parse(cell.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(values, list) and all(value is None or type(value) in (str, int) for value in values):
            return [str(value) for value in values if value is not None and value != ""]
        return None
    return None
