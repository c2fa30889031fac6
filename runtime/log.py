"""The log of a process: one line a message."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.errors import printable


class PrintableFormatter(logging.Formatter):
    """Formats a record as its message alone, on one line, with escapes for what would steer the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the message of a record."""
        return printable(record.message)


def set_up_log(level: int = logging.INFO) -> None:
    """Write the log to stderr, from a level on."""
    log = logging.StreamHandler()
    log.setFormatter(PrintableFormatter())
    logging.basicConfig(level=level, handlers=[log], force=True)


@contextmanager
def errors_only() -> Iterator[None]:
    """Log errors alone."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
