"""Time contenders against each other in interleaved rounds, so that the machine's load changes affect all equally.

In each round every contender does the same work once; the order rotates from round to round. A round's ratio is a
peer's time divided by ours in that round. The report has the median ratio with the lowest and the highest. Memory is
the rise of the peak resident set above its initial size, measured in a separate process for each contender.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

Work = Callable[[], Any]


@dataclass
class Result:
    """The result of one comparison.

    Attributes:
        name: the work and its size, e.g. "NT-Xent, N=1024".
        unit: the unit of the figures, e.g. "ms" or "images/s".
        figures: each contender's median, ours first.
        ratios: each peer's median, lowest and highest ratio to ours; above 1 ours is better.
        note: the conditions of the measurement.
    """

    name: str
    unit: str
    figures: dict[str, float]
    ratios: dict[str, tuple[float, float, float]]
    note: str = ""


@dataclass
class Comparison:
    """Contenders for one piece of work.

    Attributes:
        name: the name of the `Result`.
        contenders: functions that prepare the work, by name, ours first; only the work that they return is timed.
        items: images in one call; None reports milliseconds a call instead of images per second.
        rounds: number of rounds.
        note: the note of the `Result`.
        apart: whether each run gets a separate process, for contenders that set up the process differently. They
            must then be picklable: partial functions of module-level functions.
        clock: returns the seconds that a piece of work takes; for work of this process.
    """

    name: str
    contenders: Mapping[str, Callable[[], Work]]
    items: int | None = None
    rounds: int = 7
    note: str = ""
    apart: bool = False
    clock: Callable[[Work], float] = field(default_factory=lambda: _seconds)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def run(self) -> Result:
        """Time every contender in interleaved rounds."""
        names = list(self.contenders)
        works = {} if self.apart else {name: warmed(make) for name, make in self.contenders.items()}
        for turn in range(self.rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                taken = in_a_process(_seconds_of, self.contenders[name]) if self.apart else self.clock(works[name])
                self.seconds.setdefault(name, []).append(taken)
        return self.result()

    def result(self) -> Result:
        """Return the medians and ratios of the rounds so far."""
        names = list(self.contenders)
        figures = {name: self._figure(median(self.seconds[name])) for name in names}
        ours, *peers = names
        ratios = {peer: _spread(self.seconds[peer], self.seconds[ours]) for peer in peers}
        return Result(self.name, "ms" if self.items is None else "images/s", figures, ratios, self.note)

    def _figure(self, seconds: float) -> float:
        return seconds * 1000 if self.items is None else self.items / seconds


def warmed(make: Callable[[], Work]) -> Work:
    """Return the work after one call that allocates, compiles and fills caches."""
    work = make()
    work()
    return work


def _seconds(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _seconds_of(make: Callable[[], Work]) -> float:
    return _seconds(warmed(make))


def _spread(peer: Sequence[float], ours: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, the lowest and the highest ratio of the rounds."""
    ratios = sorted(a / b for a, b in zip(peer, ours, strict=True))
    return median(ratios), ratios[0], ratios[-1]


def compare_memory(name: str, contenders: dict[str, tuple[Callable[..., Work], tuple[Any, ...]]], note: str) -> Result:
    """Measure how far each contender raises the peak memory of a fresh process, in MiB.

    Args:
        name: the name of the `Result`.
        contenders: by name, ours first, a module-level function that prepares the work, and its arguments.
        note: the note of the `Result`.
    """
    figures = {label: peak_rise(make, args) for label, (make, args) in contenders.items()}
    ours, *peers = figures
    ratios = {peer: (figures[peer] / figures[ours],) * 3 for peer in peers}
    return Result(name, "MiB", figures, ratios, note)


def peak_rise(make: Callable[..., Work], args: tuple[Any, ...]) -> float:
    """Return how far one call raises the peak memory of a fresh process, in MiB.

    Args:
        make: a module-level function that prepares the work.
        args: arguments of `make`.
    """
    rise: float = in_a_process(_rise_of, make, *args)
    return rise


def in_a_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call a module-level function in a fresh process; return its result."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, *args))
    process.start()
    sender.close()
    result = receiver.recv()
    process.join()
    return result


def _send(sender: Any, function: Callable[..., Any], *args: Any) -> None:
    sender.send(function(*args))


def _rise_of(make: Callable[..., Work], *args: Any) -> float:
    work = make(*args)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # Linux: reset the peak
    work()
    return (_resident("VmHWM") - before) / 1024


def _resident(key: str) -> int:
    """Return a memory figure of this process in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {key}: memory is measured on Linux only")


def machine() -> dict[str, Any]:
    """Return the processor, its cores and the versions that the figures depend on."""
    import torch

    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "timm", "numpy")},
    }
