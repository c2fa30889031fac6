"""A child process that is stopped with all its workers when its time is up, or when this process is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from runtime.errors import Interrupted

_PATIENCE = 5  # seconds between asking a process to end and ending it


def run_child(words: Sequence[str], log: Path, seconds: float) -> int | None:
    """Run a command to its end; return its exit status, or None if it was stopped because its time was up.

    The child has a process group of its own, which is stopped as a whole, also if this process is interrupted.

    Args:
        words: program and arguments.
        log: file for its output.
        seconds: time that it may take.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        return child.wait(timeout=max(seconds, 0))
    except subprocess.TimeoutExpired:
        return None
    finally:
        _stop(child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End what is left of a child's process group, gently at first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=_PATIENCE)


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Treat a request to end and a closed terminal like Ctrl-C, so that children are stopped first."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
