"""The other processes of a run: waiting for them at the start, and noticing when one is dead or stopped.

Each rank writes a number that grows every second into the store of the process group, and reads the others' numbers. A
thread does this, because the main thread may wait for another rank in code that nothing can interrupt.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist

from runtime.errors import LostRank, first_line
from runtime.stop_signals import STOP_SIGNALS, end_children

_TICK = 1.0  # seconds between two numbers
_SILENT = 60  # ticks without a new number, after which a rank is lost
_SILENT_AFTER_ERROR = 5  # the same where a collective operation has failed
_GONE = 2  # ticks until a rank without a process is lost: it may have said goodbye just now
_NO_STORE = 10  # ticks without the store
_FAILED = 20  # ticks that this process may continue after another has failed
_SLOW = 10  # seconds of waiting at the start until the log names the missing ranks


def no_way_out() -> str:
    """Return no sentence on what is saved."""
    return ""


class Rank(NamedTuple):
    """A process of the run.

    Attributes:
        number: its rank.
        host: name of its machine.
        kernel: its kernel and its namespace of process ids, in which `pid` has a meaning; "" if they are unknown.
        pid: its process id.
    """

    number: int
    host: str
    kernel: str
    pid: int

    def __str__(self) -> str:
        return f"rank {self.number} (process {self.pid} on {self.host})"

    def state(self, kernel: str) -> str:
        """Return what Linux says about the process: "" if it is gone, "T" if it is stopped, "?" if that is unknown."""
        if not self.kernel or self.kernel != kernel:
            return "?"
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return ""
        return "" if state in "ZX" else state


def this_rank(number: int) -> Rank:
    """Return this process, with its rank."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        kernel = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        kernel = ""
    return Rank(number, socket.gethostname(), kernel, os.getpid())


def meet(store: Any, me: Rank, world_size: int, seconds: float) -> list[Rank]:
    """Return all ranks once they have come; log which are missing after a while.

    Raises:
        LostRank: some have not come in time.
    """
    store.set(f"beat/{me.number}", "run 0")  # before the others can see this rank
    store.set(f"rank/{me.number}", json.dumps(me))
    begin, said = time.monotonic(), False
    missing = list(range(world_size))
    while missing := [number for number in missing if not store.check([f"rank/{number}"])]:
        waited = time.monotonic() - begin
        if waited > seconds:
            raise LostRank(
                f"{listed(missing)} of {world_size} processes did not start within {seconds:.0f} seconds: read the log "
                "of each process, and check that the launcher starts all processes"
            )
        if waited > _SLOW and not said and me.number == 0:
            print(f"Waiting for {listed(missing)} of {world_size} processes", file=sys.stderr, flush=True)
            said = True
        time.sleep(0.1)
    return [Rank(*json.loads(store.get(f"rank/{number}"))) for number in range(world_size)]


def listed(numbers: Sequence[int]) -> str:
    """Return ranks as text: rank 3; ranks 1, 2 and 3; a long list is cut."""
    shown = [str(number) for number in numbers]
    if len(shown) > 8:
        shown = [*shown[:7], f"{len(shown) - 7} more"]
    return f"rank {shown[0]}" if len(shown) == 1 else f"ranks {', '.join(shown[:-1])} and {shown[-1]}"


class RankWatch:
    """A thread that ends this process with a sentence when another rank is lost.

    Args:
        store: store of the process group, through a connection of its own.
        me: this process.
        ranks: all processes, in order.
        timeout: seconds after which a collective operation fails, and what raises it; for messages.
    """

    def __init__(self, store: Any, me: Rank, ranks: Sequence[Rank], timeout: str) -> None:
        self.store, self.me, self.ranks, self.timeout = store, me, list(ranks), timeout
        self.way_out = no_way_out
        self.status = "run"  # then "stuck" after a failed operation; "done" or "failed" at the end
        self.heard = [""] * len(self.ranks)
        self.silent = [0] * len(self.ranks)  # ticks without a new number
        self.without_store = 0
        self.lost: dict[int, str] = {}  # what happened to ranks
        self.handled = False  # whether the main thread reports the loss
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, name="rank watch", daemon=True)
        self.thread.start()

    def end(self, status: str) -> None:
        """Say goodbye to the other ranks: "done", or "failed" after an error."""
        self.ended.set()
        self.thread.join()
        self.status = status
        if self.without_store:
            return
        with suppress(RuntimeError):
            self._beat(0)
            if status == "done" and self.me.number == 0:  # this process may host the store
                self._wait_for_goodbyes()

    def _wait_for_goodbyes(self) -> None:
        """Wait a few seconds until all other ranks are done or failed."""
        for _ in range(50):
            answers = self.store.multi_get([f"beat/{rank.number}" for rank in self.ranks])
            if all(text.startswith((b"done", b"failed")) for text in answers):
                return
            time.sleep(0.1)

    def explain(self, error: Exception) -> str:
        """Return what has ended a collective operation, after waiting for what the thread finds out."""
        self.handled, self.status = True, "stuck"
        for _ in range(_SILENT_AFTER_ERROR + 3):
            if self.lost:
                break
            time.sleep(_TICK)
        if self.lost:
            return self._sentence()
        running = [
            number for number, text in enumerate(self.heard) if text.startswith("run") and number != self.me.number
        ]
        if "imed out" in str(error) and running:
            return f"{listed(running)} did not come to the other processes within {self.timeout}"
        return f"the connection between the processes broke ({first_line(error)})"

    def speaks(self) -> bool:
        """Return whether this process prints the sentence: the first of its machine that is not lost, if it is news."""
        if self.knows_nothing_new():
            return False
        healthy = [rank.number for rank in self.ranks if rank.number not in self.lost]
        return self.me.number == min(
            (number for number in healthy if self.ranks[number].host == self.me.host), default=self.me.number
        )

    def knows_nothing_new(self) -> bool:
        """Return whether each lost rank has itself said on this machine what has ended it."""
        said = [number for number in self.lost if self.heard[number].startswith("failed")]
        return bool(said) and len(said) == len(self.lost) and {self.ranks[n].host for n in said} == {self.me.host}

    def _run(self) -> None:
        count = 0
        while not self.ended.wait(_TICK) and dist.is_initialized():
            count += 1
            self._listen(count)
            if self.lost and not self.handled:
                time.sleep(2 * _TICK)  # the main thread usually fails too, and can clean up
                if not (self.handled or self.ended.is_set()):
                    self._end_process()

    def _listen(self, count: int) -> None:
        """Send this rank's number, hear the others, and judge."""
        if self.without_store:  # a broken connection stays broken, and torch prints pages about each attempt
            self.without_store += 1
            if self.without_store >= _NO_STORE:
                self.lost.setdefault(0, f"{self.ranks[0]}, or the launcher that connects the processes, is gone")
            return
        try:
            self._beat(count)
            answers = [text.decode() for text in self.store.multi_get([f"beat/{r.number}" for r in self.ranks])]
        except RuntimeError:
            self.without_store = 1
            return
        for rank, text in zip(self.ranks, answers, strict=True):
            number = rank.number
            self.silent[number] = 0 if text != self.heard[number] else self.silent[number] + 1
            self.heard[number] = text
            if number != self.me.number and (why := self._judge(rank, text.partition(" ")[0], self.silent[number])):
                self.lost.setdefault(number, f"{rank} {why}")

    def _judge(self, rank: Rank, status: str, silent: int) -> str:
        """Return what happened to a rank that is lost; "" for a healthy one."""
        if status == "done":
            return ""
        if status == "failed":
            return "ended with an error" if silent >= _FAILED or self.status == "stuck" else ""
        state = rank.state(self.me.kernel)
        if not state and silent >= _GONE:
            return "is dead: it was killed, as the system does when memory is short"
        if silent < (_SILENT_AFTER_ERROR if self.status == "stuck" else _SILENT):
            return ""
        if state == "T":
            return "is stopped: a signal, such as SIGSTOP, holds it"
        return f"has not answered for {silent} seconds: it is stopped, or its machine or the network hangs"

    def _beat(self, count: int) -> None:
        self.store.set(f"beat/{self.me.number}", f"{self.status} {count}")

    def _sentence(self) -> str:
        return "; ".join(self.lost[number] for number in sorted(self.lost)[:4])

    def _end_process(self) -> None:
        """End this process from the thread, while the main thread waits for a rank that does not come."""
        if self.speaks():
            sentence = ". ".join(filter(None, (self._sentence(), self.way_out())))
            print(f"{Path(sys.argv[0]).name}: error: {sentence}", file=sys.stderr, flush=True)
            self.end_lost()
        else:
            time.sleep(3 * _TICK)
        end_children()
        os._exit(2)

    def end_lost(self) -> None:
        """Kill the lost ranks of this machine: a stopped one would not notice the end of the run."""
        for number in self.lost:
            if self.ranks[number].state(self.me.kernel) not in ("", "?"):
                with suppress(OSError):
                    os.kill(self.ranks[number].pid, signal.SIGKILL)


_watches: list[RankWatch] = []  # at most one, this process's


def start_watch(watch: RankWatch) -> None:
    """Keep the watch of this process."""
    _watches.append(watch)


def end_watch(failed: bool) -> None:
    """End the watch of this process, if there is one."""
    while _watches:
        _watches.pop().end("failed" if failed else "done")


@contextmanager
def explained_ranks(way_out: Callable[[], str] = no_way_out) -> Iterator[None]:
    """Turn the failure of a collective operation into one sentence that names the rank that is lost.

    Args:
        way_out: function that returns a sentence on what is saved and how to continue; "" for none.

    Raises:
        LostRank: an operation failed, because a rank is dead, stopped or too late.
    """
    watch = _watches[-1] if _watches else None
    if watch is not None:
        watch.way_out = way_out
    try:
        yield
    except RuntimeError as error:
        watch = _watches[-1] if _watches else None
        if watch is None or not _is_collective(error):
            raise
        for number in STOP_SIGNALS:  # the launcher ends the other ranks when one has died
            with suppress(ValueError):
                signal.signal(number, signal.SIG_IGN)
        sentence = watch.explain(error)
        if not watch.speaks():
            time.sleep(3 * _TICK)
            raise SystemExit(2) from None
        watch.end_lost()
        raise LostRank(". ".join(filter(None, (sentence, way_out())))) from error


def _is_collective(error: RuntimeError) -> bool:
    """Return whether an error comes from the communication between processes."""
    return isinstance(error, dist.DistError) or any(
        word in str(error) for word in ("gloo", "NCCL", "Connection closed")
    )
