"""The labels that a person gives, cell by cell, in a table that training takes.

Each answer is on the disk before it counts: the table is written beside the old one, which it then replaces. An
attribute has one column, and an image has one row, unless a table of the user has several. What else it holds stays.
"""

from __future__ import annotations

import csv
import io
import os
import threading
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
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
Row = dict[str, str]


@dataclass(frozen=True)
class Content:
    """What a table holds, as its file spells it.

    Attributes:
        spelled: the columns: each name, and its form in the file.
        rows: the cells of each row by column.
    """

    spelled: dict[str, str]
    rows: list[Row]

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """The rows of each image."""
        places: dict[str, list[int]] = {}
        for place, row in enumerate(self.rows):
            places.setdefault(unescaped_text(row[IMAGE_PATH].strip()), []).append(place)
        return places

    def label(self, image_path: str, attribute: str) -> str:
        """Return the label of a cell as the file has it, or ""; a cell of spaces has none."""
        cells = (self.rows[place].get(attribute, "") for place in self.places.get(image_path, ()))
        return next((text for text in cells if text.strip()), "")

    def labeled(self, image_path: str, attribute: str, text: str) -> list[Row]:
        """Return the rows with another text in a cell, in each row of the image."""
        own = set(self.places.get(image_path, ()))
        return [row | {attribute: text} if place in own else row for place, row in enumerate(self.rows)]


class AnswerFile:
    """A table that receives labels. Threads may share it; another process is refused while this one has it open.

    Args:
        path: the table, which need not exist: CSV, with the column image_path.
        attributes: the columns in which rows of one image must agree; None for all.

    Raises:
        DataError: it is another kind of file, too large, cannot be written, or has two labels for one cell.
    """

    def __init__(self, path: Path, attributes: Collection[str] | None = None) -> None:
        if path.suffix.lower() != ".csv":
            raise DataError(f"answers {path}: they are written as CSV: give a name that ends in .csv")
        check_writable(path)
        self.path, self._attributes = path, attributes
        self._thread = threading.Lock()
        self._process = _only_process(path)
        self._added: set[str] = set()
        self._added_columns: set[str] = set()
        self._version: Version | None = None
        self._content = Content({IMAGE_PATH: IMAGE_PATH}, [])
        try:
            self._read_again()
        except DataError:
            self.close()
            raise

    def get(self, image_path: str, attribute: str) -> str:
        """Return the label of a cell, or "" without one."""
        with self._thread:
            return unescaped_text(self._content.label(image_path, attribute))

    def has(self, image_path: str, attribute: str) -> bool:
        """Return whether a cell has a label."""
        return bool(self._content.label(image_path, attribute))

    def put(self, image_path: str, attribute: str, label: str) -> str:
        """Write a label unless the cell has one, and return the label that it has now.

        Raises:
            UsageError: the file cannot be written, or somebody made another kind of file of it.
        """
        with self._thread:
            self._read_again()
            content = self._content
            if given := content.label(image_path, attribute):
                return unescaped_text(given)
            if image_path not in content.places:
                self._added.add(image_path)
                content = Content(content.spelled, [*content.rows, {IMAGE_PATH: _written(image_path)}])
            spelled = content.spelled
            if attribute not in spelled:
                self._added_columns.add(attribute)
                spelled = spelled | {attribute: _written(attribute)}
            self._write(Content(spelled, content.labeled(image_path, attribute, _written(label))))
            return label

    def remove(self, image_path: str, attribute: str) -> None:
        """Blank a cell; drop its row or column if this process added it and nothing else is in it.

        Raises:
            UsageError: as in `put`.
        """
        with self._thread:
            self._read_again()
            if not self._content.label(image_path, attribute):
                return
            rows = self._content.labeled(image_path, attribute, "")
            last = self._content.places[image_path][-1]
            if image_path in self._added and not any(rows[last][name] for name in rows[last] if name != IMAGE_PATH):
                del rows[last]
            spelled = dict(self._content.spelled)
            if attribute in self._added_columns and not any(one.get(attribute) for one in rows):
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
            writer.writerows([row.get(name, "") for name in content.spelled] for row in content.rows)
        self._content, self._version = content, _version(self.path)

    def _read_again(self) -> None:
        """Read the file if it is another one than this process left, as after an edit in a spreadsheet."""
        version = _version(self.path)
        if version != self._version or version is None:
            self._content = _read(self.path, self._attributes) if version else Content({IMAGE_PATH: IMAGE_PATH}, [])
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


def _read(path: Path, attributes: Collection[str] | None) -> Content:
    """Return the content of a table.

    Raises:
        DataError: it is no such table, or has two labels for one cell.
    """
    spelled = read_header(path)
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(
            f"{path.name} has more than {_MOST_BYTES >> 20} MiB, and is written again for each answer: name a new file"
        )
    rows: list[Row] = []
    first: dict[tuple[str, str], str] = {}
    try:
        lines = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True)
        next(line for line in lines if line)  # the header
        for line in filter(None, lines):
            if len(line) != len(spelled):
                raise csv.Error(f"{len(line)} cells, and the header has {len(spelled)}")
            rows.append(dict(zip(spelled, line, strict=True)))
            _check_agreement(path, lines.line_num, rows[-1], first, attributes)
    except UnicodeDecodeError:
        raise DataError(f"{path.name} is not UTF-8: save it as such") from None
    except csv.Error as error:
        raise DataError(f"{path.name} line {lines.line_num}: {error}: correct it, or name a new file") from None
    return Content(spelled, rows)


def _check_agreement(
    path: Path, line: int, row: Row, first: dict[tuple[str, str], str], attributes: Collection[str] | None
) -> None:
    """Raise a DataError if an earlier row has another label of the same image; note the labels of this one."""
    image_path = unescaped_text(row[IMAGE_PATH].strip())
    for name, text in row.items():
        if name == IMAGE_PATH or not text.strip() or (attributes is not None and name not in attributes):
            continue
        before = first.setdefault((image_path, name), text)
        if before != text:
            raise DataError(
                f"{path.name} line {line}: {image_path!r} has {name} {text!r}, and {before!r} before: keep one"
            )


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
