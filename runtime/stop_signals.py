"""Signals that ask this process to stop: at once, or after the step that it is in."""

from __future__ import annotations

import atexit
import multiprocessing.process
import multiprocessing.util
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from runtime.errors import Interrupted

STOP_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT", "SIGUSR1") if hasattr(signal, name)]
_REPEAT = 0.5  # seconds: the sender, its process group and a launcher may all pass on one request
_PATIENCE = 5  # seconds that code outside Python, such as a connection to another process, may hold a signal up

_in_use: list[StopSignals] = []


class StopSignals:
    """The signals that this process has received.

    Attributes:
        number: the first signal; 0 for none.
        deferred: whether the first signal waits for the end of a step instead of raising Interrupted.
        leaving: whether the process is about to end, so that further signals change nothing.
    """

    def __init__(self, script: str) -> None:
        self.script = script
        self.number, self.since = 0, 0.0
        self.deferred = self.leaving = False

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Let the first signal wait inside, where `number` is read after each step."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take a signal, in the main thread.

        Raises:
            Interrupted: it is the first one, and does not wait.
        """
        if not self.number:
            if not self.deferred:
                self.leave(number)
                raise Interrupted(number)
            self.number, self.since = number, time.monotonic()
            name = signal.Signals(number).name
            self._say(f"{name}: the run saves its state after this step; a second signal ends it at once")
        elif time.monotonic() - self.since >= self._repeat():
            self.end_at_once(number)

    def leave(self, number: int) -> None:
        """Note that the process ends now, because of a signal to it or to another process of the run."""
        self.number, self.since, self.leaving = number, time.monotonic(), True

    def _repeat(self) -> float:
        """Return the seconds after a signal in which another one is no second request."""
        return _PATIENCE if self.leaving else _REPEAT

    def end_at_once(self, number: int) -> None:
        """End this process and its children, without any cleaning up."""
        if not self.leaving:
            self._say(f"{self.script}: ended at once by {signal.Signals(number).name}")
        end_children()
        os._exit(128 + (self.number if self.leaving else number))

    def watch(self, received: socket.socket) -> None:
        """End the process where a signal asks for it and the main thread does not come to handle it."""
        first = 0.0
        with received:
            while numbers := received.recv(1):
                if numbers[0] not in STOP_SIGNALS:
                    continue
                if first and time.monotonic() - first >= self._repeat():
                    time.sleep(1)  # the main thread is usually faster
                    self.end_at_once(numbers[0])
                elif not first:
                    first = time.monotonic()
                    if not self.deferred:
                        time.sleep(_PATIENCE)
                        if not self.number:
                            self.end_at_once(numbers[0])

    def _say(self, sentence: str) -> None:
        if os.environ.get("RANK", "0") == "0":
            os.write(2, f"{sentence}\n".encode())  # the main thread may be writing to sys.stderr just now


@contextmanager
def stop_signals(script: str) -> Iterator[StopSignals]:
    """Handle signals that ask for an end: the first raises Interrupted, or waits for a step; the second ends at once.

    A signal that is ignored, as by nohup, stays ignored. Child processes leave all of them to this process.

    Args:
        script: name of the script, for messages.
    """
    signals = StopSignals(script)
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield signals
        return
    received, sent = socket.socketpair()
    sent.setblocking(False)
    # Python hands a signal to the main thread when that leaves the code of a library. The thread hears of it at once.
    threading.Thread(target=signals.watch, args=(received,), name="stop signals", daemon=True).start()
    wakeup = signal.set_wakeup_fd(sent.fileno(), warn_on_full_buffer=False)
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    taken = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, signals.handle)
    _in_use.append(signals)
    try:
        yield signals
    finally:
        _in_use.remove(signals)
        signal.set_wakeup_fd(wakeup)
        if signals.number:
            end_children()
        for number in taken:
            signal.signal(number, before[number])
        sent.close()  # ends the thread


def leave_stop_signals_to_parent() -> None:
    """Ignore the signals in a child process: the parent, which they reach too, ends its children."""
    signal.set_wakeup_fd(-1)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _after_fork() -> None:
    if _in_use:
        _in_use.clear()
        leave_stop_signals_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _end_workers_at_exit() -> None:
    """End the daemons that are left: multiprocessing would send them SIGTERM, which they ignore, and wait for ever."""
    _end([child for child in multiprocessing.active_children() if child.daemon])


atexit.register(_end_workers_at_exit)  # before the exit function of multiprocessing.util, as that is registered earlier


def end_children() -> None:
    """End the processes that multiprocessing has started, such as the workers of loaders."""
    _end(multiprocessing.active_children())


def _end(children: list[multiprocessing.process.BaseProcess]) -> None:
    watches = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    # torch's handler would raise for each worker
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if watches else None
    for child in children:
        child.kill()
    for child in children:
        child.join(_PATIENCE)
    if watches:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)  # None: the handler is not Python's
