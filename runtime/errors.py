"""A user's mistake, reported in one sentence instead of a traceback."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class UsageError(ValueError):
    """A user's mistake; the message says what is wrong, where, and what to do."""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, to be quoted in a sentence; its type if the message is empty."""
    if "weights_only" in str(error):  # torch's message advises to load the file unsafely, which could run code in it
        return "it is damaged, of another kind, or holds more than weights and plain values"
    line, *others = (str(error).strip() or type(error).__name__).splitlines()
    return f"{line} {others[0].strip()}" if others and line.endswith(":") else line


@contextmanager
def report_usage_errors(script: str) -> Iterator[None]:
    """Turn a UsageError into a line on stderr and exit status 2, and Ctrl-C into status 130.

    Args:
        script: the script's name, with which the line begins.
    """
    try:
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
