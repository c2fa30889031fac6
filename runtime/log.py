"""The log of a process: one line a message, and a notice before work that takes seconds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.errors import printable

_PATIENCE = 2.0  # seconds without a word


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
def announced(logger: logging.Logger, sentence: str, patience: float = _PATIENCE) -> Iterator[None]:
    """Log a sentence while the work inside is being done, if it takes longer than users wait without a word.

    Args:
        logger: logger that takes the line.
        sentence: what is being done.
        patience: seconds until the line.
    """
    timer = threading.Timer(patience, logger.info, [sentence])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
