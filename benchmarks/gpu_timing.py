"""Timing on a GPU by device events, on a CPU by the clock; contenders that fail are named and left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from harness import Comparison, Result, Work

Prepare = Callable[[], Work]


@dataclass(frozen=True)
class Settings:
    """How the sections run.

    Attributes:
        device: "cuda" or "cpu".
        smoke: tiny sizes, to see that everything runs; the figures mean nothing.
        images: folder of photographs, or None.
    """

    device: str
    smoke: bool
    images: str | None = None


def compare(
    name: str,
    contenders: Mapping[str, Prepare],
    settings: Settings,
    *,
    items: int | None = None,
    calls: int = 10,
    rounds: int = 7,
    note: str = "",
) -> Result:
    """Time contenders in interleaved rounds, each for several calls without waiting between them.

    Args:
        name: name of the result.
        contenders: functions that prepare the work, ours first.
        settings: how the sections run.
        items: images in one call, for images per second; None for milliseconds a call.
        calls: calls in a round, as many as keep the device's queue full.
        rounds: number of rounds.
        note: conditions of the measurement; names of contenders that failed are added.
    """
    works, failed = prepared(contenders)
    calls, rounds = (1, 2) if settings.smoke else (calls, rounds)
    ready = {label: partial(_same, work) for label, work in works.items()}
    clock = partial(seconds, device=settings.device, calls=calls)
    return Comparison(name, ready, items, rounds, "; ".join(filter(None, [note, *failed])), clock=clock).run()


def prepared(contenders: Mapping[str, Prepare]) -> tuple[dict[str, Work], list[str]]:
    """Prepare each contender and call it once; return the works, and one line for each that failed.

    Raises:
        RuntimeError: the first contender, ours, failed.
    """
    works: dict[str, Work] = {}
    failed: list[str] = []
    for label, prepare in contenders.items():
        try:
            work = prepare()
            for _ in range(3):  # compile, allocate, fill caches
                work()
            works[label] = work
        except (RuntimeError, ImportError) as error:  # out of memory is a RuntimeError
            if not works and not failed:
                raise
            failed.append(f"{label}: {first_line(error)}")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return works, failed


def seconds(work: Work, device: str, calls: int) -> float:
    """Return the seconds of a call, the mean of several, from the device's own events where it has them."""
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - start) / calls
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    for _ in range(calls):
        work()
    last.record()
    last.synchronize()
    milliseconds: float = first.elapsed_time(last)
    return milliseconds / 1000 / calls


def idle_percent(work: Work, device: str, calls: int = 10) -> float | None:
    """Return the share of time in which no kernel runs, between the first and the last kernel; None on a CPU."""
    if device == "cpu":
        return None
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(calls):
            work()
        torch.cuda.synchronize()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == DeviceType.CUDA
    )
    if not spans:
        return None
    busy, until = 0.0, spans[0][0]
    for start, end in spans:  # kernels of several streams overlap
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    wall: float = until - spans[0][0]
    return 100 * (1 - busy / wall)


def peak_mebibytes(work: Work, device: str) -> float | None:
    """Return the device memory that a call takes beyond what is already there, in MiB; None on a CPU."""
    if device == "cpu":
        return None
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def first_line(error: BaseException) -> str:
    """Return an error as one line of at most 160 characters."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text[:160]


def _same(work: Work) -> Work:
    return work
