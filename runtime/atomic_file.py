"""Files that change at once or not at all, so that a reader never sees an unfinished one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import UsageError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside the file; at the end it replaces the file, or after an error it is deleted.

    Args:
        path: The file; its folder is created.

    Raises:
        UsageError: If the file cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot write {path} ({error.strerror or error}): name a place that can be written"
        ) from error


def check_writable(path: Path) -> None:
    """Create the folder of a file that will be written after hours of work, and check that it is writable.

    Raises:
        UsageError: If it is not, or the path is a folder.
    """
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # for example, a file has its name or the name of a folder above it
        raise UsageError(f"cannot make the folder {path.parent} ({error.strerror}): name another") from error
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"cannot write into {path.parent}: name a place that can be written")
