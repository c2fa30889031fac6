"""Text that a spreadsheet would run as a formula, and its safe form.

A cell that begins with `=`, `+`, `-`, `@`, a tab or a line end may start a program when a spreadsheet opens the file.
The safe form has an apostrophe in front, which spreadsheets take as the mark of text. A cell that already has
apostrophes there gets one more, so that reading gives back what was written.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see

_RUN = r"[=+\-@\t\r\n]"
_UNSAFE = rf"^('*{_RUN})"
_SAFE = rf"^'('*{_RUN})"


def escaped(texts: pa.Array) -> pa.Array:
    """Return Arrow strings, or dictionary-encoded ones, in their safe form."""
    if pa.types.is_dictionary(texts.type):
        return pa.DictionaryArray.from_arrays(texts.indices, escaped(texts.dictionary))
    return pc.replace_substring_regex(texts, _UNSAFE, r"'\1")


def unescaped(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return Arrow strings that `escaped` made as they were."""
    return pc.replace_substring_regex(texts, _SAFE, r"\1")


def escaped_text(text: str) -> str:
    """Return a text in its safe form."""
    return str(escaped(pa.array([text], pa.string()))[0].as_py())


def unescaped_text(text: str) -> str:
    """Return a text that `escaped_text` made as it was."""
    return str(unescaped(pa.array([text], pa.string()))[0].as_py()) if text.startswith("'") else text


def escaped_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row by column with names and texts in their safe form; numbers stay."""
    return {escaped_text(name): escaped_text(value) if isinstance(value, str) else value for name, value in row.items()}
