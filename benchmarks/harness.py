"""Times contenders against each other in interleaved rounds, so that a machine's moods meet all of them alike.

In each round every contender does the same work once, in an order that rotates. A round's ratio is a peer's time over
ours in that round; what is reported is the median ratio with the least and the greatest. Memory is the rise of the
peak resident set over what was resident before, each contender in a process of its own.
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
    """What one comparison found.

    Attributes:
        name: what was compared, with the size: "NT-Xent, N=1024".
        unit: of the figures, such as "ms" or "images/s".
        figures: each contender's median, ours first.
        ratios: each peer's median ratio to ours, above 1 where ours is better, with the least and the greatest round.
        note: what one must know to read it.
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
        name: as in `Result`.
        contenders: by name, ours first; each makes, outside the clock, the function that is timed.
        items: images in one call; None reports milliseconds a call instead of images per second.
        rounds: how often each runs.
        note: as in `Result`.
        apart: each in a process of its own in each round, because they set up the process differently. The
            contenders are then partial functions of module-level ones, which can be sent there.
    """

    name: str
    contenders: Mapping[str, Callable[[], Work]]
    items: int | None = None
    rounds: int = 7
    note: str = ""
    apart: bool = False
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def run(self) -> Result:
        """Time every contender in interleaved rounds."""
        names = list(self.contenders)
        works = {} if self.apart else {name: warmed(make) for name, make in self.contenders.items()}
        for turn in range(self.rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                taken = in_a_process(_seconds_of, self.contenders[name]) if self.apart else _seconds(works[name])
                self.seconds.setdefault(name, []).append(taken)
        figures = {name: self._figure(median(self.seconds[name])) for name in names}
        ours, *peers = names
        ratios = {peer: _spread(self.seconds[peer], self.seconds[ours]) for peer in peers}
        return Result(self.name, "ms" if self.items is None else "images/s", figures, ratios, self.note)

    def _figure(self, seconds: float) -> float:
        return seconds * 1000 if self.items is None else self.items / seconds


def warmed(make: Callable[[], Work]) -> Work:
    """Return what is timed, after a first call, which allocates, compiles and fills caches."""
    work = make()
    work()
    return work


def _seconds(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _seconds_of(make: Callable[[], Work]) -> float:
    return _seconds(warmed(make))


def _spread(theirs: Sequence[float], ours: Sequence[float]) -> tuple[float, float, float]:
    """Return the median ratio, and the least and the greatest of a round."""
    ratios = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    return median(ratios), ratios[0], ratios[-1]


def compare_memory(name: str, contenders: dict[str, tuple[Callable[..., Work], tuple[Any, ...]]], note: str) -> Result:
    """Measure how far each contender's peak memory rises above what it holds before, in MiB, in fresh processes.

    Args:
        name: as in `Result`.
        contenders: by name, ours first: a module-level function and its arguments, which make the work.
        note: as in `Result`.
    """
    figures = {label: peak_rise(make, args) for label, (make, args) in contenders.items()}
    ours, *peers = figures
    ratios = {peer: (figures[peer] / figures[ours],) * 3 for peer in peers}
    return Result(name, "MiB", figures, ratios, note)


def peak_rise(make: Callable[..., Work], args: tuple[Any, ...]) -> float:
    """Return how far a call's peak memory rises above what was resident before, in MiB, in a fresh process.

    Args:
        make: a module-level function, which makes the work.
        args: its arguments.
    """
    rise: float = in_a_process(_rise_of, make, *args)
    return rise


def in_a_process(function: Callable[..., Any], *args: Any) -> Any:
    """Return what a module-level function returns in a fresh process."""
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
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
    work()
    return (_resident("VmHWM") - before) / 1024


def _resident(key: str) -> int:
    """Return an entry of this process's memory, in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {key}: memory is measured on Linux alone")


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, versions."""
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
