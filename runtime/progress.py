"""What a long step says: a progress bar on a terminal, or one line in the log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def progress_bar(total: int, title: str, unit: str = "batch", enabled: bool = True) -> Any:
    """Return a bar that disappears when it is closed. Without a terminal it is disabled and shows nothing.

    Args:
        total: the number of steps.
        title: the activity, shown in front of the bar.
        unit: the name of a step.
        enabled: whether to show the bar; only rank 0 should.
    """
    from tqdm import tqdm  # a tenth of a second, which a mistake in a flag or a table need not wait for

    shown = enabled and sys.stderr.isatty()
    return tqdm(total=total, desc=title, unit=unit, leave=False, disable=not shown, dynamic_ncols=True)


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


@contextmanager
def reported_progress(
    total: int, title: str, unit: str, say: Callable[[str], object], seconds: float = 10.0
) -> Iterator[Callable[[int], None]]:
    """Yield what takes the number of further steps: it moves a bar on a terminal, or says a line now and then.

    Args:
        total: the number of steps.
        title: the activity.
        unit: the name of a step.
        say: what is called with a line, such as a logger's `info`.
        seconds: the time between two lines.
    """
    done, last = 0, time.monotonic()
    with progress_bar(total, title, unit) as bar:

        def step(count: int) -> None:
            nonlocal done, last
            done += count
            bar.update(count)
            now = time.monotonic()
            if bar.disable and (now - last >= seconds or done == total):
                say(f"{title}: {done:,} of {total:,} {unit}s")
                last = now

        yield step
