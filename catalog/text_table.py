"""A reader of CSV and TSV tables, which also finds the line of a row for error messages.

Arrow reads the cells. Python's slow csv module reads the file again when a message needs a line, or when a quote may
not be closed: Arrow accepts such a quote silently and loses the rows behind it.
"""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from catalog.data_error import DataError
from catalog.table_size import MAX_CELL, check_bytes, check_cells
from runtime.errors import first_line

_CHUNK = 1 << 24  # bytes that are decompressed at a time
_LONGEST_LINE = 1 << 20  # bytes; Arrow reads no longer row
_LONGEST_HEADER = 1 << 22
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_CONVERTING = 'save it as UTF-8 (in Excel, "CSV UTF-8"), or convert it with iconv -f {} -t UTF-8'


def is_text_table(path: Path) -> bool:
    """Return whether a file is a CSV or TSV table by its extension."""
    return _ending(path) in _DELIMITERS


def read_text_header(path: Path) -> list[str]:
    """Return the header's cells as the file spells them.

    Raises:
        DataError: if the file is no text table, is not UTF-8, or has no header.
    """
    try:
        with _open(path) as file:
            start = file.read(1 << 16)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path.name} is damaged ({first_line(error)}): compress it again") from None
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path.name} is UTF-16: {_CONVERTING.format('UTF-16')}")
    if b"\0" in start:
        raise _not_text(path)
    _check_first_line(path)
    try:
        return next(_rows(path, errors="strict"))[1]
    except StopIteration:
        raise DataError(f"{path.name} is empty: its first line must be a header with image_path") from None
    except UnicodeDecodeError:
        _check_utf8(path)
        raise


def read_text_columns(path: Path, header: list[str], names: list[str]) -> dict[str, pa.ChunkedArray]:
    """Read columns of a text table: the first as strings, the others dictionary-encoded.

    Args:
        path: the table.
        header: all cells of the header, as the file spells them.
        names: the columns to read, as the file spells them.

    Raises:
        DataError: if rows have another number of cells than the header, a quote is not closed, or there are no rows.
    """
    # the bytes
    data = _read(path)
    if b"\0" in data:
        raise _not_text(path)
    check_cells(path, data.count(b"\n") or data.count(b"\r"), len(names))

    # the cells
    types = {name: pa.dictionary(pa.int32(), pa.string()) for name in names} | {names[0]: pa.large_string()}
    try:
        cells = pa_csv.read_csv(
            pa.BufferReader(data),
            # Arrow skips empty lines above the header by itself, but not lines of whitespace.
            read_options=pa_csv.ReadOptions(skip_rows=header_line(path) - 1),
            parse_options=pa_csv.ParseOptions(
                delimiter=delimiter(path),
                newlines_in_values=True,
                invalid_row_handler=lambda row: "skip" if _is_empty(row.actual_columns, row.text) else "error",
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=types, include_columns=names, null_values=[], strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        _check_lines(path, data)
        raise _refusal(path, len(header), error) from None

    # unclosed quotes: a table can have one only if its quotes are odd in number, or its lines outnumber its rows
    if (quotes := data.count(b'"')) and (quotes % 2 or _count_lines(data) != len(cells) + 1):
        for _ in _rows(path, strict=True):
            pass
    return {name: cells[name] for name in names}


def header_line(path: Path) -> int:
    """Return the line number of a text table's header, from 1."""
    return next(_rows(path))[0]


def line_of_row(path: Path, row: int) -> int:
    """Return the line number, from 1, on which a row of a text table starts; row 0 follows the header."""
    return lines_of_rows(path, [row])[row]


def lines_of_rows(path: Path, rows: Collection[int]) -> dict[int, int]:
    """Return the line numbers, from 1, on which rows of a text table start, by row; row 0 follows the header."""
    if (quick := _lines_without_quotes(path)) is not None:
        return {row: int(quick[row + 1]) for row in rows}
    starts = enumerate((start for start, _ in islice(_rows(path), max(rows) + 2)), -1)
    return {row: start for row, start in starts if row in rows}


def _lines_without_quotes(path: Path) -> npt.NDArray[np.int64] | None:
    """Return the line of each row, header first, from 1; None if rows and lines may differ in more than empty lines."""
    data = bytes(_read(path).removeprefix(codecs.BOM_UTF8))
    if b'"' in data or data.count(b"\r") != data.count(b"\r\n"):
        return None
    ends = np.flatnonzero(np.frombuffer(data + b"\n", np.uint8) == ord("\n"))
    starts = np.concatenate([[0], ends[:-1] + 1])
    # Whitespace is a control character, a space, or not ASCII, so few lines must be looked at.
    first = np.frombuffer(data + b"\n", np.uint8)[starts]
    kept = np.ones(len(starts), dtype=bool)
    for line in np.flatnonzero((first <= ord(" ")) | (first >= 0x80)):
        kept[line] = bool(data[starts[line] : ends[line]].decode(errors="replace").strip())
    lines = np.flatnonzero(kept) + 1
    return lines[1:] if _named_delimiter(path) else lines


def raw_rows(path: Path) -> Iterator[tuple[str, list[str] | None]]:
    """Yield the text of each row with its line end, header first, and its cells; None for lines that are no row.

    The texts together are the file.

    Args:
        path: a table that `read_text_columns` has read.
    """
    names_delimiter = bool(_named_delimiter(path))
    lines: list[str] = []

    def recorded(file: io.TextIOWrapper) -> Iterator[str]:
        for number, line in enumerate(file):
            lines.append(line)
            yield line if number else line.removeprefix("\ufeff")

    with io.TextIOWrapper(_open(path), encoding="utf-8", newline="") as file:
        for cells in csv.reader(recorded(file), delimiter=delimiter(path)):
            is_row = not names_delimiter and not _is_empty(len(cells), "".join(cells))
            yield "".join(lines), cells if is_row else None
            lines.clear()
            names_delimiter = False


def no_rows(path: Path) -> DataError:
    """Return the error for a table without rows."""
    return DataError(f"{path.name} has a header and no rows: add one row for each image")


def _rows(path: Path, strict: bool = False, errors: str = "replace") -> Iterator[tuple[int, list[str]]]:
    """Yield the line number, from 1, on which each row starts, and the row's cells.

    Args:
        path: the table.
        strict: whether to refuse text after a closing quote, which shows that an earlier quote was not closed.
        errors: the treatment of bytes that are not UTF-8, as `open` takes it; another check reports them.
    """
    start = 1
    names_delimiter = bool(_named_delimiter(path))
    with io.TextIOWrapper(_open(path), encoding="utf-8-sig", errors=errors, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter(path), strict=strict)
        try:
            for row in reader:
                if names_delimiter:
                    names_delimiter = False
                elif not _is_empty(len(row), "".join(row)):
                    yield start, row
                start = reader.line_num + 1
        except csv.Error as error:
            long = f", or a cell has more than {MAX_CELL:,} characters" if "limit" in str(error) else ""
            raise DataError(
                f"{path.name} line {start}: a quote in this row is never closed{long}: close it, and double every "
                "quote inside a quoted cell"
            ) from None


def _ending(path: Path) -> str:
    """Return the ending of a file's name, without the one of gzip, in lower-case letters."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def _open(path: Path) -> BinaryIO:
    """Open a file for reading bytes, decompressed if it ends in .gz."""
    return cast(BinaryIO, gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _read(path: Path) -> bytearray:
    """Return a file's bytes, decompressed if it ends in .gz.

    Raises:
        DataError: if the compressed data is damaged, or a table has too many bytes.
    """
    check_bytes(path, path.stat().st_size)
    data = bytearray()
    try:
        with _open(path) as file:
            while chunk := file.read(_CHUNK):
                data += chunk
                check_bytes(path, len(data))
        return data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path.name} is damaged ({first_line(error)}): compress it again") from None


def _check_first_line(path: Path) -> None:
    """Raise a DataError if the first line has no end within the longest header: it could fill all memory."""
    with _open(path) as file:
        start = file.read(_LONGEST_HEADER + 1)
    if len(start) > _LONGEST_HEADER and b"\n" not in start and b"\r" not in start:
        raise DataError(
            f"{path.name} line 1 should be a header with image_path, but is longer than {_LONGEST_HEADER >> 20} MiB: "
            "export the table as text, with a line for each row"
        )


def _check_lines(path: Path, data: bytearray) -> None:
    """Raise a DataError for the first line that is longer than Arrow reads."""
    start = number = 0
    while start < len(data):
        number += 1
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        if end - start > _LONGEST_LINE and b"\r" not in data[start:end]:
            raise DataError(
                f"{path.name} line {number} has more than {_LONGEST_LINE >> 20} MiB: shorten its cells, which are "
                "paths and names of classes"
            )
        start = end + 1


def _named_delimiter(path: Path) -> str:
    """Return the delimiter that the first line names for Excel, as in "sep=;"; "" if it names none."""
    with _open(path) as file:
        first = file.readline(16).decode("utf-8-sig", errors="replace").strip("\r\n")
    return first[4:] if re.fullmatch('(?i)sep=[^\\w"]', first) else ""


def delimiter(path: Path) -> str:
    """Return what separates the cells of a text table."""
    return _named_delimiter(path) or _DELIMITERS[_ending(path)]


def _is_empty(cells: int, text: str) -> bool:
    """Return whether a row is an empty line: only whitespace, or one blank cell in quotes."""
    return cells <= 1 and not text.replace('"', "").strip()


def _count_lines(data: bytearray) -> int:
    ends = data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
    return ends + (not data.endswith((b"\n", b"\r")))


def _refusal(path: Path, width: int, error: Exception) -> DataError:
    """Return the error for a table that Arrow refused, with the line number that Arrow does not report."""
    _check_utf8(path)
    rows = 0
    for line, row in _rows(path, strict=True):
        rows += 1
        if len(row) != width:
            too_many, too_few = "quote cells that have the delimiter in them", "write the delimiter of blank cells too"
            remedy = too_many if len(row) > width else too_few
            cells = "1 cell" if len(row) == 1 else f"{len(row)} cells"
            return DataError(f"{path.name} line {line} has {cells}, the header has {width}: {remedy}")
    if rows <= 1:
        return no_rows(path)
    return DataError(f"{path.name} cannot be read ({first_line(error)}): export it again as CSV")


def _check_utf8(path: Path) -> None:
    """Raise a DataError for the first line that is not UTF-8."""
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                remedy = _CONVERTING.format("WINDOWS-1252")
                raise DataError(f"{path.name} line {number} is not UTF-8: {remedy}") from None


def _not_text(path: Path) -> DataError:
    return DataError(
        f"{path.name} is not a text table, it has NUL bytes: export it as .csv from the program that made it"
    )
