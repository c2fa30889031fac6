"""The labels that a person gives, cell by cell, in a table that training takes.

Each answer is on the disk before it counts: the table is written beside the old one, which it then replaces. An image
has one row, and an attribute one column. What else a table of the user holds stays as it is.
"""

from __future__ import annotations

import csv
import io
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from catalog.cell_text import normalized_cells
from catalog.data_error import DataError
from catalog.label_space import SEPARATOR
from catalog.spreadsheet_text import escaped_text, unescaped_text
from catalog.table import IMAGE_PATH, read_header
from runtime.atomic_file import atomic_file, check_writable

_MOST_BYTES = 16 << 20  # all of it is written for each answer
_LONGEST = 200  # characters of a class

Version = tuple[int, int, int]
Rows = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Content:
    """What a table holds, as its file spells it.

    Attributes:
        spelled: the columns: each name, and its form in the file.
        rows: the cells of each image by column.
    """

    spelled: dict[str, str]
    rows: Rows


class AnswerFile:
    """A table that receives labels. Threads may share it; another process is refused while this one has it open.

    Args:
        path: the table, which need not exist: CSV, with the column image_path.

    Raises:
        DataError: it is another kind of file, too large, cannot be written, or has two labels for one cell.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() != ".csv":
            raise DataError(f"answers {path}: they are written as CSV: give a name that ends in .csv")
        check_writable(path)
        self.path = path
        self._thread = threading.Lock()
        self._process = _only_process(path)
        self._added: set[str] = set()
        self._added_columns: set[str] = set()
        self._version: Version | None = None
        self._content = Content({IMAGE_PATH: IMAGE_PATH}, {})
        try:
            self._read_again()
        except DataError:
            self.close()
            raise

    def get(self, image_path: str, attribute: str) -> str:
        """Return the label of a cell, or "" without one."""
        with self._thread:
            return unescaped_text(self._content.rows.get(image_path, {}).get(attribute, ""))

    def has(self, image_path: str, attribute: str) -> bool:
        """Return whether a cell has a label."""
        return bool(self._content.rows.get(image_path, {}).get(attribute))

    def put(self, image_path: str, attribute: str, label: str) -> str:
        """Write a label unless the cell has one, and return the label that it has now.

        Raises:
            UsageError: the file cannot be written, or somebody made another kind of file of it.
        """
        with self._thread:
            self._read_again()
            row = self._content.rows.get(image_path, {})
            if row.get(attribute):
                return unescaped_text(row[attribute])
            if image_path not in self._content.rows:
                self._added.add(image_path)
                row = {IMAGE_PATH: _written(image_path)}
            spelled = self._content.spelled
            if attribute not in spelled:
                self._added_columns.add(attribute)
                spelled = spelled | {attribute: _written(attribute)}
            self._write(Content(spelled, self._content.rows | {image_path: row | {attribute: _written(label)}}))
            return label

    def remove(self, image_path: str, attribute: str) -> None:
        """Blank a cell; drop its row or column if this process added it and nothing else is in it.

        Raises:
            UsageError: as in `put`.
        """
        with self._thread:
            self._read_again()
            if not self._content.rows.get(image_path, {}).get(attribute):
                return
            row = self._content.rows[image_path] | {attribute: ""}
            rows = self._content.rows | {image_path: row}
            if image_path in self._added and not any(row[name] for name in row if name != IMAGE_PATH):
                del rows[image_path]
            spelled = dict(self._content.spelled)
            if attribute in self._added_columns and not any(one.get(attribute) for one in rows.values()):
                del spelled[attribute]  # training refuses a column without labels
            self._write(Content(spelled, rows))

    def close(self) -> None:
        """Let other processes have the file."""
        if self._process is not None:
            _lock_of(self.path).unlink(missing_ok=True)
            os.close(self._process)
            self._process = None

    def _write(self, content: Content) -> None:
        """Write the table; what is in memory changes only when it is on the disk."""
        with atomic_file(self.path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(content.spelled.values())
            writer.writerows([row.get(name, "") for name in content.spelled] for row in content.rows.values())
        self._content, self._version = content, _version(self.path)

    def _read_again(self) -> None:
        """Read the file if it is another one than this process left, as after an edit in a spreadsheet."""
        version = _version(self.path)
        if version != self._version or version is None:
            self._content = _read(self.path) if version else Content({IMAGE_PATH: IMAGE_PATH}, {})
            self._version = version


def check_class(text: str, separator: str = SEPARATOR) -> str:
    """Return a class that somebody typed in its tidy form.

    Args:
        text: what was typed.
        separator: the text between the values of a cell.

    Raises:
        DataError: it is blank, too long, or holds a separator.
    """
    name = str(normalized_cells(pa.array([text], pa.string()))[0].as_py())
    if not name:
        raise DataError("the class is blank: type its name, or skip the cell")
    if len(name) > _LONGEST:
        raise DataError(f"the class has {len(name)} characters, more than {_LONGEST}: shorten it")
    if wrong := next((mark for mark in (SEPARATOR, separator) if mark in name), ""):
        raise DataError(f"the class {name!r} holds {wrong!r}, which separates the values of a cell: leave it out")
    return name


def _read(path: Path) -> Content:
    """Return the content of a table.

    Raises:
        DataError: it is no such table, or has two labels for one cell.
    """
    spelled = read_header(path)
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(
            f"{path.name} has more than {_MOST_BYTES >> 20} MiB, and is written again for each answer: name a new file"
        )
    rows: Rows = {}
    try:
        lines = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True)
        next(line for line in lines if line)  # the header
        for line in filter(None, lines):
            if len(line) != len(spelled):
                raise csv.Error(f"{len(line)} cells, and the header has {len(spelled)}")
            _join(path, lines.line_num, rows, dict(zip(spelled, line, strict=True)))
    except UnicodeDecodeError:
        raise DataError(f"{path.name} is not UTF-8: save it as such") from None
    except csv.Error as error:
        raise DataError(f"{path.name} line {lines.line_num}: {error}: correct it, or name a new file") from None
    return Content(spelled, rows)


def _join(path: Path, line: int, rows: Rows, row: dict[str, str]) -> None:
    """Add a row, or what it knows to the row of the same image.

    Raises:
        DataError: the image has another label.
    """
    image_path = unescaped_text(row[IMAGE_PATH].strip())
    before = rows.setdefault(image_path, row)
    for name, text in row.items():
        if name != IMAGE_PATH and text and before[name] not in ("", text):
            raise DataError(
                f"{path.name} line {line}: {image_path!r} has {name} {text!r}, and {before[name]!r} before: keep one"
            )
        before[name] = before[name] or text


def _written(text: str) -> str:
    """Return a text as a table must have it, so that reading gives the text back."""
    return escaped_text(text) if unescaped_text(text) != text else text


def _version(path: Path) -> Version | None:
    """Return what changes when a file does; None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _only_process(path: Path) -> int | None:
    """Return a descriptor that keeps other processes out until this one ends, where the system has such locks.

    Raises:
        DataError: another process is in.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    lock = os.open(_lock_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise DataError(f"another process writes answers to {path}: end it, or name another file") from None
    return lock
