"""What a long step says: a progress bar on a terminal, or lines in the log."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_logger = logging.getLogger("progress")


def progress_bar(total: int, title: str, unit: str = "batch", enabled: bool = True, lines: bool = True) -> Any:
    """Return a bar that disappears when it is closed; without a terminal, a line in the log every ten seconds.

    Args:
        total: the number of steps.
        title: the activity.
        unit: the name of a step.
        enabled: whether to show anything; only rank 0 should.
        lines: whether to log lines without a terminal; a caller may have its own.
    """
    if enabled and lines and not sys.stderr.isatty():
        return ProgressLines(total, title, unit)
    from tqdm import tqdm  # a tenth of a second, which a mistake in a flag or a table need not wait for

    shown = enabled and sys.stderr.isatty()
    return tqdm(total=total, desc=title, unit=unit, leave=False, disable=not shown, dynamic_ncols=True)


class ProgressLines:
    """Progress as lines in the log, for steps that take longer than the time between two lines.

    Args:
        total: the number of steps.
        title: the activity.
        unit: the name of a step.
        seconds: the time between two lines.
    """

    disable = True  # as tqdm's bar says that it is not shown

    def __init__(self, total: int, title: str, unit: str, seconds: float = 10.0) -> None:
        self.total, self.title, self.seconds = total, title, seconds
        self.units = f"{unit}es" if unit.endswith("ch") else f"{unit}s"
        self.done, self.last, self.said = 0, time.monotonic(), False

    def update(self, count: int = 1) -> None:
        """Count further steps, and say how many are done if the last line is old enough."""
        self.done += count
        now = time.monotonic()
        if now - self.last >= self.seconds or (self.said and self.done == self.total):
            _logger.info(f"{self.title}: {self.done:,} of {self.total:,} {self.units}")
            self.last, self.said = now, True

    def close(self) -> None:
        """Do nothing: a line in the log stays."""

    def __enter__(self) -> ProgressLines:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Do nothing."""


@contextmanager
def announced(text: str, say: Callable[[str], object], seconds: float = 2.0) -> Iterator[None]:
    """Say what a step does if it takes long, so that no process is silent for minutes.

    Args:
        text: what the step does.
        say: what is called with the text, such as a logger's `info`, in another thread. The step may not fork.
        seconds: the time until then.
    """
    timer = threading.Timer(seconds, say, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
