"""A user's mistake, reported in one sentence instead of a traceback."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Control characters, line separators, marks of writing direction, and halves of characters. Names of files, columns and
# classes may hold them. A terminal obeys some, and others make a line look like another.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_LONGEST_NAME = 300  # characters of a file's name that a sentence shows


# PyTorch raises RuntimeError for the memory of a CPU, a GPU and a loader's workers, and where a size overflows.
_WORDS = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|unable to allocate|"
    r"(size|multiplication|storage).{0,40}overflow|insufficient shared memory",
    re.IGNORECASE,
)
_BYTES = re.compile(r"tried to allocate (\d+) bytes|tried to allocate ([\d.]+ [KMG]iB)", re.IGNORECASE)


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


def print_any_text() -> None:
    """Let stdout and stderr print every text: characters that their encoding lacks become escapes, not an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


class LocalError(UsageError):
    """What has ended one process of a run, and not the others: that process reports it at once."""


class LostRank(LocalError):
    """Another process of the run is dead, stopped or missing."""


class Interrupted(KeyboardInterrupt):
    """A signal has asked this process to end.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, to be quoted in a sentence; its type if the message is empty."""
    if "weights_only" in str(error):  # torch's message advises to load the file unsafely, which could run code in it
        return "it is damaged, of another kind, or holds more than weights and plain values"
    line, *others = (str(error).strip() or type(error).__name__).splitlines()
    return f"{line} {others[0].strip()}" if others and line.endswith(":") else line


def exhausted(error: BaseException) -> str:
    """Return "memory is exhausted, at an allocation of 8.00 GiB" for an error that says so, and "" for another."""
    text = str(error)
    if not (isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _WORDS.search(text))):
        return ""
    asked = _BYTES.search(text)
    size = (f"{int(asked[1]) / 2**30:.2f} GiB" if asked[1] else asked[2]) if asked else ""
    return "memory is exhausted" + (f", at an allocation of {size}" if size else "")


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
        raise _unusable(name, error.strerror) from error
    except RuntimeError as error:
        loop = re.match("Symlink loop from '(.*)'", str(error))  # Path.resolve until Python 3.12
        if loop is None:
            raise
        raise _unusable(loop[1], "a loop of symbolic links") from error


def _unusable(name: str, why: str) -> UsageError:
    shown = name if len(name) <= _LONGEST_NAME else f"{name[:200]}...{name[-50:]}"
    return UsageError(f"cannot use {shown} ({why}): check the name, and who may read and write it")


def _is_nowhere() -> bool:
    """Return whether the working directory was deleted."""
    try:
        Path.cwd()
    except OSError:
        return True
    return False


@contextmanager
def report_usage_errors(script: str, remedy: str = "use a smaller batch") -> Iterator[None]:
    """Turn a UsageError, a signal and the end of memory into a line on stderr.

    The exit status is 2, or 128 plus the number of the signal.

    Args:
        script: the script's name, with which the line begins.
        remedy: what to do when memory is exhausted.
    """
    print_any_text()
    try:
        with system_errors_explained():
            yield
    except BrokenPipeError:  # the reader of stdout, such as head, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest at its exit
        raise SystemExit(128 + signal.SIGPIPE) from None
    except UsageError as error:
        # Usually all ranks raise the same error. Rank 0 prints it first, and the launcher then ends the others.
        _print(f"{script}: error: {error}", waits=not isinstance(error, LocalError))
        raise SystemExit(2) from error
    except (MemoryError, RuntimeError) as error:
        if not (reason := exhausted(error)):
            raise
        _print(f"{script}: error: {reason}: {remedy}", waits=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt as interrupt:
        number = interrupt.number if isinstance(interrupt, Interrupted) else signal.SIGINT
        how = "\n{}: interrupted" if number == signal.SIGINT else f"{{}}: ended by {signal.Signals(number).name}"
        if os.environ.get("RANK", "0") == "0":
            print(how.format(script), file=sys.stderr, flush=True)
        raise SystemExit(128 + number) from None


def _print(line: str, waits: bool) -> None:
    """Print an error; a rank that waits leaves the first one time to print the same."""
    if waits and int(os.environ.get("RANK", "0")) > 0:
        time.sleep(10)
    print(line, file=sys.stderr, flush=True)
