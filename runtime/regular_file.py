"""Regular files, the only ones that are read: a pipe may wait forever, and a device may never end."""

from __future__ import annotations

import os
import stat

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def irregular_kind(path: str | os.PathLike[str]) -> str | None:
    """Return what a path names if it is not a regular file: "a folder", "a pipe", "a socket" or "a device".

    Args:
        path: the path; links are followed.

    Returns:
        The kind; None for a regular file, and for a path that names nothing.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - building a Path takes a tenth of a small image's time
    except (OSError, ValueError):  # ValueError: a path with a NUL byte names no file
        return None
    if stat.S_ISREG(mode):
        return None
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "no file")


def irregular_file(path: str | os.PathLike[str], folders: bool = False) -> str:
    """Return a sentence about a path that names a pipe, a socket, a device or a folder; "" for a file or nothing.

    Args:
        path: the path.
        folders: whether a folder is welcome too.
    """
    kind = irregular_kind(path)
    if kind is None or (folders and kind == "a folder"):
        return ""
    remedy = "name a file in it" if kind == "a folder" else "save its content as a file, and name that"
    return f"{path} is {kind}, not a regular file: {remedy}"
