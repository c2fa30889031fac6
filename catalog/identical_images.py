"""Images with the same content under several names, such as copies that a shop uploads for each size of a product.

Files are compared by size, then by a sample from their middle, and only then as a whole. So of a million different
photographs a few kilobytes each are read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
import numpy.typing as npt

from runtime.progress import progress_bar

Rows = npt.NDArray[np.int64]

_SAMPLE = 4096  # bytes; photographs of one camera share their first kilobytes, not those in the middle
_AT_ONCE = 1000  # files that a thread reads before it takes others
_THREADS = 8  # a file system over the network answers several at a time


def content_codes(paths: Sequence[str], show: bool = True) -> Rows:
    """Return a number for each file's content, int64 [files], from 0.

    Files that are missing, empty or not regular are all different, unless they have the same path.

    Args:
        paths: absolute paths.
        show: whether to show a progress bar on a terminal.
    """
    codes, distinct = _numbered(paths)
    sizes = _of_each(_size, distinct, "Sizes", show)
    keys: list[tuple[object, ...]] = [
        (size,) if size else ("", path) for size, path in zip(sizes, distinct, strict=True)
    ]
    for digest, title in ((_sample, "Samples"), (_whole, "Files")):
        numbers, _ = _numbered(keys)
        shared = np.flatnonzero(np.bincount(numbers)[numbers] > 1).tolist()
        found = _of_each(digest, [distinct[index] for index in shared], title, show)
        for index, value in zip(shared, found, strict=True):
            keys[index] = (*keys[index], value or distinct[index])
    of_files: Rows = _numbered(keys)[0][codes]
    return of_files


def _numbered(keys: Sequence[object]) -> tuple[Rows, list[object]]:
    """Return a number for each key, equal for equal keys, and the distinct keys."""
    number: dict[object, int] = {}
    codes = np.fromiter((number.setdefault(key, len(number)) for key in keys), np.int64, len(keys))
    return codes, list(number)


def _of_each(read: Callable[[str], object], paths: Sequence[object], title: str, show: bool) -> list[object]:
    """Return what a function returns for each path, from several threads."""

    def some(start: int) -> list[object]:
        return [read(str(path)) for path in paths[start : start + _AT_ONCE]]

    bar = progress_bar(len(paths), title, "file", enabled=show)
    parts: list[list[object]] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for part in pool.map(some, range(0, len(paths), _AT_ONCE)):
            parts.append(part)
            bar.update(len(part))
    bar.close()
    return list(chain.from_iterable(parts))


def _size(path: str) -> int:
    """Return the bytes of a regular file, 0 where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - building a Path takes as long as the call
    except (OSError, ValueError):
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _sample(path: str) -> bytes | None:
    """Return bytes from the middle of a file; None if it cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        middle = os.fstat(file).st_size // 2
        os.lseek(file, max(0, middle - _SAMPLE // 2), os.SEEK_SET)
        return hashlib.blake2b(os.read(file, _SAMPLE), digest_size=16).digest()
    except OSError:
        return None
    finally:
        os.close(file)


def _whole(path: str) -> bytes | None:
    """Return the hash of a file's content; None if it cannot be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - many
            return hashlib.file_digest(file, "blake2b").digest()
    except OSError:
        return None
