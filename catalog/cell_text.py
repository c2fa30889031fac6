"""The text of a table's cells, freed of differences that nobody sees.

Programs write one label in several ways: with a no-break space, with an accent that is a character of its own, or as
the number 1.0. These functions make them equal. They work on the distinct values of a column, not on its rows.
"""

import re
from typing import Any

import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see

_SPACES = r"[\s\v\x1C-\x1F\x{85}\p{Z}]+"
# control characters, the soft hyphen, zero-width spaces, marks of the writing direction and of the byte order
_INVISIBLE = (
    r"[\x00-\x08\x0E-\x1B\x7F-\x{84}\x{86}-\x{9F}\x{AD}\x{200B}\x{200E}\x{200F}\x{202A}-\x{202E}\x{2060}-\x{2064}"
    r"\x{2066}-\x{2069}\x{FEFF}]"
)
# Joiners change how Persian, Indic scripts and emoji look. Beside Latin letters and at the ends, they are invisible.
_JOINER_AFTER = r"(^|[\x01-\x{24F}])[\x{200C}\x{200D}]+"
_JOINER_BEFORE = r"[\x{200C}\x{200D}]+($|[\x01-\x{24F}])"
_WHOLE = r"^(-?(?:0|[1-9][0-9]*))\.0$"  # how pandas writes whole numbers in a column with blanks
_UNTIDY_NAME = re.compile("[^ -~]|^ | $|  ")
_UNTIDY = f"{_UNTIDY_NAME.pattern}|{_WHOLE}"


def normalized_cells(cells: pa.StringArray) -> pa.StringArray:
    """Return cells as classes are named: tidy, and 1.0 as 1, as in Parquet tables.

    Args:
        cells: Arrow strings, such as a column's distinct values.
    """
    return _where_untidy(cells, lambda some: pc.replace_substring_regex(_tidied(some), _WHOLE, r"\1"))


def normalized_name(name: str) -> str:
    """Return the tidy form of a column's name, which may look like a number."""
    return normalized_names([name])[0]


def normalized_names(names: list[str]) -> list[str]:
    """Return the tidy forms of columns' names."""
    if not any(_UNTIDY_NAME.search(name) for name in names):
        return names  # Arrow imports pandas for its first list, where pandas is installed, which takes half a second
    tidy: list[str] = _tidied(pa.array(names, pa.string())).to_pylist()
    return tidy


def _where_untidy(cells: pa.StringArray, change: Any) -> pa.StringArray:
    """Apply a function to the cells that it may change, which are usually few."""
    untidy = pc.fill_null(pc.match_substring_regex(cells, _UNTIDY), False)
    if not pc.any(untidy).as_py():
        return cells
    return pc.replace_with_mask(cells, untidy, change(cells.filter(untidy)))


def _tidied(cells: pa.StringArray) -> pa.StringArray:
    """Return cells in Unicode's composed form (NFC), without invisible characters, with single spaces between words."""
    for pattern, text in (
        (_INVISIBLE, ""),
        (_JOINER_AFTER, r"\1"),
        (_JOINER_BEFORE, r"\1"),
        (_SPACES, " "),
    ):
        cells = pc.replace_substring_regex(cells, pattern, text)
    return pc.utf8_normalize(pc.utf8_trim_whitespace(cells), "NFC")
