"""Atomic writing: a file changes completely or not at all, so a reader never sees an unfinished one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import UsageError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside the file. It replaces the file at the end, and is deleted after an error.

    Args:
        path: the file; its folder is created.

    Raises:
        UsageError: if the file cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())  # else a power cut after the renaming could leave an empty file
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot write {path} ({error.strerror or error}): name a place that can be written"
        ) from error


def check_writable(path: Path) -> None:
    """Create a file's folder and check that it is writable, before hours of work whose result goes there.

    Raises:
        UsageError: if the folder is not writable, or the path is a folder.
    """
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # for example, a file has its name or the name of a folder above it
        raise UsageError(f"cannot make the folder {path.parent} ({error.strerror}): name another") from error
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"cannot write into {path.parent}: name a place that can be written")
