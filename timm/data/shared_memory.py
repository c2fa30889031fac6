"""The batches that loader workers keep in shared memory, limited to what is free there, as in a container."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

from runtime.free_space import SHARED_MEMORY, available_shared_memory

_logger = logging.getLogger(__name__)

_SHARE = 0.9  # share of the free space that batches may fill; the rest is for targets and small messages
_IN_USE = 2  # batches that the main process still holds: the one of the step, and the next
_AHEAD = 2  # batches that a worker prepares ahead, as in torch


class Prefetch(NamedTuple):
    """What the workers of a loader prepare.

    Attributes:
        workers: number of workers; 0 loads in the main process, without shared memory.
        ahead: batches that each of them prepares ahead.
    """

    workers: int
    ahead: int = _AHEAD


def fitting_prefetch(workers: int, batch_bytes: int, sharers: int) -> Prefetch:
    """Return the number of workers and of their batches that fit in the free shared memory, and log if it is lower.

    Args:
        workers: number of workers that is wanted.
        batch_bytes: size of a batch.
        sharers: number of loaders that work at the same time on this machine.
    """
    free = available_shared_memory()
    if free is None or not workers:
        return Prefetch(workers)
    batches = int(free * _SHARE / sharers / max(1, batch_bytes)) - _IN_USE
    if batches >= workers * _AHEAD:
        return Prefetch(workers)
    fitting = Prefetch(min(workers, max(0, batches)), 1)
    wanted = (workers * _AHEAD + _IN_USE) * batch_bytes * sharers / _SHARE
    loads = (
        f"only {fitting.workers} will load, a batch at a time" if fitting.workers else "the main process loads alone"
    )
    _logger.warning(
        f"Shared memory is short: {SHARED_MEMORY} has {free / 2**20:.0f} MiB free, and {workers} workers fill "
        f"{wanted / 2**20:.0f} MiB, so {loads}. Enlarge it, in Docker with docker run "
        f"--shm-size={math.ceil(wanted / 2**30)}g, or lower the batch size"
    )
    return fitting
