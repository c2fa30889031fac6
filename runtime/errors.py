"""A user's mistake, reported in one sentence instead of a traceback."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Control characters, line separators, marks of writing direction, and halves of characters. Names of files, columns and
# classes may hold them. A terminal obeys some, and others make a line look like another.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_LONGEST_NAME = 300  # characters of a file's name that a sentence shows


def printable(text: str) -> str:
    """Return a text as one line for a terminal; characters that would steer it become escapes, as in Python."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class UsageError(ValueError):
    """A user's mistake, which scripts print without a traceback.

    Args:
        message: one sentence on one line: what is wrong, where, and what to do. Control characters can only come from
            the user's names; they are shown as escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, to be quoted in a sentence; its type if the message is empty."""
    if "weights_only" in str(error):  # torch's message advises to load the file unsafely, which could run code in it
        return "it is damaged, of another kind, or holds more than weights and plain values"
    line, *others = (str(error).strip() or type(error).__name__).splitlines()
    return f"{line} {others[0].strip()}" if others and line.endswith(":") else line


@contextmanager
def system_errors_explained() -> Iterator[None]:
    """Turn the system's error about a file into a UsageError, such as a name that is too long or a closed folder."""
    try:
        yield
    except OSError as error:
        if _is_nowhere():
            raise UsageError("the working directory no longer exists: change to another folder") from error
        if error.filename is None or error.strerror is None:
            raise
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
        shown = name if len(name) <= _LONGEST_NAME else f"{name[:200]}...{name[-50:]}"
        raise UsageError(
            f"cannot use {shown} ({error.strerror}): check the name, and who may read and write it"
        ) from error


def _is_nowhere() -> bool:
    """Return whether the working directory was deleted."""
    try:
        Path.cwd()
    except OSError:
        return True
    return False


@contextmanager
def report_usage_errors(script: str) -> Iterator[None]:
    """Turn a UsageError into a line on stderr and exit status 2, and Ctrl-C into status 130.

    Args:
        script: the script's name, with which the line begins.
    """
    try:
        with system_errors_explained():
            yield
    except UsageError as error:
        # Usually all ranks raise the same error. Rank 0 prints it first, and the launcher then ends the others.
        if int(os.environ.get("RANK", "0")) > 0:
            time.sleep(10)
        print(f"{script}: error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        print(f"\n{script}: interrupted", file=sys.stderr, flush=True)
        raise SystemExit(130) from None
