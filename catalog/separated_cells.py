"""Cells that separate several values by another text than `|`."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from catalog.cell_text import normalized_name
from catalog.data_error import DataError
from catalog.label_space import SEPARATOR
from catalog.table import Table

pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see


def with_separator(table: Table, separator: str, names: Collection[str] | None = None) -> Table:
    """Return a table whose multi-valued cells are joined by `|`, as the label space reads them.

    Args:
        table: the table.
        separator: the text between the values of a cell.
        names: the multi-valued columns; None for all with the separator in a cell. Columns of lists stay as they are.

    Raises:
        DataError: if a multi-valued cell contains `|`, too.
    """
    if separator == SEPARATOR:
        return table
    columns = {name: column for name, column in table.columns.items() if name not in table.lists}
    if names is None:
        names = [name for name, one in columns.items() if pc.any(pc.match_substring(one.dictionary, separator)).as_py()]
    names = [normalized_name(name) for name in names]
    changed = {name: _joined(table, name, separator) for name in columns if name in names}
    return replace(table, columns={**table.columns, **changed}, lists=table.lists | changed.keys(), separator=separator)


def _joined(table: Table, name: str, separator: str) -> pa.DictionaryArray:
    column = table.columns[name]
    wrong = pc.index(pc.match_substring(column.dictionary, SEPARATOR), True).as_py()
    if wrong >= 0:
        row = int(np.flatnonzero(pc.fill_null(pc.equal(column.indices, wrong), False).to_numpy(False))[0])
        raise DataError(
            f"{table.place(row)}: {name} {column.dictionary[wrong].as_py()!r} contains {SEPARATOR!r}, but separator is "
            f"{separator!r}: write only one of the two between the values of this column"
        )
    cells = pc.replace_substring(column.dictionary, separator, SEPARATOR)
    return pa.DictionaryArray.from_arrays(column.indices, cells)
