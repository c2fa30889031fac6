"""Files that torch writes: the system's reason where one cannot be written, which torch's own error does not have."""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LITTLE = 100 << 20  # bytes: with less free space, a file that cannot be written found the disk full
_WRITER = re.compile("PytorchStreamWriter|inline_container|iostream error|Parent directory")


@contextmanager
def torch_errors_explained(path: Path) -> Iterator[None]:
    """Turn the error of torch's writer into the system's.

    Args:
        path: the file that is written inside.

    Raises:
        OSError: the file cannot be written; its number is the most likely reason.
    """
    try:
        yield
    except RuntimeError as error:
        if not _WRITER.search(str(error)):
            raise
        reason = _likely_reason(path)
        raise OSError(reason, os.strerror(reason), str(path)) from error


def _likely_reason(file: Path) -> int:
    """Return the number of the error that most likely ended the writing of a file."""
    folder = file.parent
    if not folder.exists():
        return errno.ENOENT
    if file.exists() and file.stat().st_size >= _size_limit():
        return errno.EFBIG
    return errno.ENOSPC if shutil.disk_usage(folder).free < _LITTLE else errno.EIO


def _size_limit() -> float:
    """Return the largest size in bytes of a file that this process may write, as ulimit -f sets it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return math.inf
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return math.inf if limit == resource.RLIM_INFINITY else limit
