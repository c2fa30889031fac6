"""The worker processes of a loader: how one starts, and one sentence when one dies."""

from __future__ import annotations

import errno
import os
import re
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from typing import Any

from runtime.errors import LocalError
from runtime.free_space import SHARED_MEMORY, available_shared_memory, gib
from runtime.stop_signals import end_children, leave_stop_signals_to_parent
from timm.data.loader import _worker_init

# A worker that cannot send a batch ends with this number plus that of the system's error.
_CANNOT_SEND = 64
_NO_MEMORY = "found no free memory"
_CAUSES = {
    errno.ENOSPC: "found no free shared memory",
    errno.ENOMEM: _NO_MEMORY,
    errno.EMFILE: "had too many open files",
}
_FEWER = "lower workers or batch_size"
_REMEDIES = {
    errno.ENOSPC: "enlarge it, in Docker with docker run --shm-size=8g, or lower workers",
    errno.ENOMEM: _FEWER,
    errno.EMFILE: "raise the limit with ulimit -n, or lower workers",
}


def start_worker(worker: int, seeding: str) -> None:
    """Prepare a worker: seed it, leave signals to the main process, and end it when it cannot send a batch.

    Args:
        worker: index of the worker.
        seeding: "all" seeds NumPy too, "part" leaves it as it is.
    """
    leave_stop_signals_to_parent()
    # Without this, Python prints a traceback and drops the batch, and the main process waits for it forever.
    Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]
    _worker_init(worker, worker_seeding=seeding)


def _end_worker(error: Exception, batch: Any) -> None:
    """End this worker with a status that names why a batch could not be sent."""
    number = _error_number(error)
    if number not in _CAUSES:
        traceback.print_exception(error)
    os._exit(_CANNOT_SEND + number if number in _CAUSES else 1)


def _error_number(error: Exception) -> int:
    """Return the number of the system's error, which torch writes at the end of a message; 0 without one."""
    if isinstance(error, OSError):
        return error.errno or 0
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    found = re.search(r"\((\d+)\)\s*$", str(error).strip().split("\n")[0])
    return int(found[1]) if found else 0


@contextmanager
def explained_workers(way_out: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Turn the death of a loader's worker into one sentence.

    Args:
        way_out: function that returns a sentence on what is saved and how to continue; "" for none.

    Raises:
        LocalError: a worker died, or could not start.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        sentence = _explanation(error)
        if sentence is None:
            raise
        end_children()  # the other workers are of no use, and torch waits seconds for each
        raise LocalError(". ".join(filter(None, (sentence, way_out())))) from error


def _explanation(error: Exception) -> str | None:
    """Return what happened to a worker, and what to do; None for an error of another kind."""
    text = str(error)
    if found := re.search(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\)", text):
        who = f"a worker of the loader (process {found[1]})"
        reasons = f"{text} {error.__cause__}"  # the first error that torch has seen
        if killed := re.search(r"is killed by signal: ([^.]+)\.", reasons):
            return f"{who} {_after_signal(killed[1])}"
        ended = re.search(r"with exit code (\d+)", reasons)
        return f"{who} {_after_status(int(ended[1]) if ended else _status_of_worker(error))}"
    in_worker = re.match(r"Caught (\w+) in DataLoader worker process (\d+)", text)
    if in_worker and (in_worker[1] == "MemoryError" or re.search("can't allocate memory|not enough memory", text)):
        return f"worker {in_worker[2]} of the loader {_NO_MEMORY}: {_FEWER}"
    if isinstance(error, OSError) and error.errno in (errno.EAGAIN, errno.ENOMEM) and _was_starting(error):
        return f"a worker of the loader cannot start ({error.strerror}): lower workers, or raise ulimit -u"
    if (isinstance(error, OSError) and error.errno == errno.EMFILE) or "received 0 items of ancdata" in text:
        return f"this process {_CAUSES[errno.EMFILE]}: {_REMEDIES[errno.EMFILE]}"
    return None


def _status_of_worker(error: Exception) -> int:
    """Return the exit status of the worker that torch found dead, negative for a signal; 1 if it is unknown."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for worker in frame.f_locals.get("failed_workers", []):
            if worker.exitcode:
                return int(worker.exitcode)
    return 1


def _after_signal(name: str) -> str:
    """Return how a worker ended after a signal that is named as `strsignal` does, and what to do."""
    if name == "Bus error":
        return _without_shared_memory()
    if name == "Killed":
        return f"was killed, as the system does when memory is short: {_FEWER}, or free memory"
    return f"was ended by a signal ({name}): start again, and if it returns set workers to 0, which shows the reason"


def _after_status(status: int) -> str:
    """Return how a worker ended after an exit status, and what to do."""
    if status < 0:
        return _after_signal(signal.strsignal(-status) or f"{-status}")
    number = status - _CANNOT_SEND
    if number == errno.ENOSPC:
        return _without_shared_memory()
    if number in _CAUSES:
        return f"{_CAUSES[number]}: {_REMEDIES[number]}"
    return f"ended with status {status}: set workers to 0, which shows the reason"


def _without_shared_memory() -> str:
    free = available_shared_memory()
    rest = "" if free is None else f" ({gib(free)} are free in {SHARED_MEMORY})"
    return f"{_CAUSES[errno.ENOSPC]}{rest}: {_REMEDIES[errno.ENOSPC]}"


def _was_starting(error: OSError) -> bool:
    """Return whether an error came from starting a process."""
    return any(
        frame.name in ("_launch", "fork_exec", "_execute_child") for frame in traceback.extract_tb(error.__traceback__)
    )
