"""Facts about one attribute's column of a table: its classes, and whether a model can learn them.

A column is a dictionary-encoded Arrow array: each distinct cell once, and for every row an index into these.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog.label_space import SEPARATOR, values_of

# With fewer labeled rows, all of them may have different classes by chance.
FEW_ROWS = 8

_OTHER_SEPARATORS = (";", ",")
_COMPARED = 10_000  # distinct cells that are searched for another separator
_FEWEST_SETS = 3  # distinct cells with several values; fewer may be names with a comma
_BLANK_WORDS = {"nan", "none", "null", "nil", "na", "n/a", "n.a.", "#n/a", "<na>", "nat"}
_YES, _NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}


def class_names(column: pa.DictionaryArray, multi_valued: bool) -> list[str]:
    """Return the distinct classes in a column, in the order of the rows."""
    cells: list[str] = column.dictionary.to_pylist()
    return list(dict.fromkeys(value for cell in cells for value in values_of(cell))) if multi_valued else cells


def count_classes(column: pa.DictionaryArray, multi_valued: bool) -> tuple[int, int]:
    """Return the number of classes and the number of labeled rows."""
    return len(class_names(column, multi_valued)), len(column) - column.null_count


def has_separator(column: pa.DictionaryArray) -> bool:
    """Return whether any cell contains `|`, which separates the values of a multi-valued attribute."""
    return any(SEPARATOR in cell for cell in column.dictionary.to_pylist())


def other_separator(column: pa.DictionaryArray) -> tuple[str, int] | None:
    """Return a separator other than `|` that cells seem to have, and the number of values if it is one; or None.

    Most values of a set occur in other sets too; a name with a comma, such as a place, does not repeat its parts.
    """
    cells = column.dictionary[:_COMPARED].to_pylist()
    for separator in _OTHER_SEPARATORS:
        sets = [{value.strip() for value in cell.split(separator)} for cell in cells]
        occurs = Counter(value for values in sets for value in values if value)
        several = sum(len(values) > 1 for values in sets)
        if several >= _FEWEST_SETS and 2 * sum(n > 1 for n in occurs.values()) >= len(occurs):
            return separator, len(occurs)
    return None


def rows_with_class(column: pa.DictionaryArray, name: str) -> npt.NDArray[np.int64]:
    """Return the rows whose cell is this class or lists it among its values."""
    codes = [i for i, cell in enumerate(column.dictionary.to_pylist()) if name in (cell, *values_of(cell))]
    return np.flatnonzero(np.isin(column.indices.fill_null(-1).to_numpy(zero_copy_only=False), codes))


def words_for_blank(column: pa.DictionaryArray) -> dict[str, int]:
    """Return the cells that programs write for a missing value, such as "nan", and the number of rows of each."""
    counts = np.bincount(column.indices.drop_null().to_numpy(), minlength=len(column.dictionary)).tolist()
    cells = zip(column.dictionary.to_pylist(), counts, strict=True)
    return {cell: count for cell, count in cells if looks_blank(cell)}


def looks_blank(name: str) -> bool:
    """Return whether a name is one that programs write for a missing value."""
    return name.lower() in _BLANK_WORDS


def why_unlearnable(column: pa.DictionaryArray, multi_valued: bool) -> str | None:
    """Return why no model can learn a column, as the rest of a sentence; None if one can."""
    classes, labeled = count_classes(column, multi_valued)
    if not labeled:
        return "is blank in every row"
    if multi_valued:
        if not classes:
            return "has no value in any row"
        if labeled >= FEW_ROWS and classes == _count_values(column):
            return f"has no value twice in its {labeled} labeled rows, so it is an id or text and not an attribute"
        return None
    if classes == 1:
        return f"has one class only, {column.dictionary[0].as_py()!r}"
    if labeled >= FEW_ROWS and classes == labeled:
        return f"is different in each of its {labeled} labeled rows, so it is an id and not an attribute"
    return None


def is_one_image_per_class(column: pa.DictionaryArray, multi_valued: bool) -> bool:
    """Return whether no class of a single-valued column with several classes has a second image."""
    classes, labeled = count_classes(column, multi_valued)
    return not multi_valued and 1 < classes == labeled


def is_flag(column: pa.DictionaryArray) -> bool:
    """Return whether all cells are yes or no, in one of their usual spellings, and at least one is yes."""
    names = {name.lower() for name in column.dictionary.to_pylist()} if len(column.dictionary) <= 4 else set("?")
    return bool(names & _YES) and names <= _YES | _NO


def are_one_hot(columns: Sequence[pa.DictionaryArray]) -> bool:
    """Return whether exactly one of several flags is yes in each row that has any label; blank means no."""
    yes = np.zeros(len(columns[0]), dtype=np.int64)
    labeled = np.zeros(len(columns[0]), dtype=bool)
    for column in columns:
        is_yes = [name.lower() in _YES for name in column.dictionary.to_pylist()]
        yes += np.array([*is_yes, False])[column.indices.fill_null(len(is_yes)).to_numpy(zero_copy_only=False)]
        labeled |= column.is_valid().to_numpy(zero_copy_only=False)
    return bool((yes[labeled] == 1).all())


def _count_values(column: pa.DictionaryArray) -> int:
    """Return the total number of values in all rows of a multi-valued column."""
    rows = np.bincount(column.indices.drop_null().to_numpy(), minlength=len(column.dictionary))
    return sum(n * len(values_of(cell)) for n, cell in zip(rows.tolist(), column.dictionary.to_pylist(), strict=True))
