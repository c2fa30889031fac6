"""Keeping memory that a step has freed for the next step, on the CPU."""

from __future__ import annotations

import ctypes
import sys

# mallopt's parameters, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = 2**31 - 1  # bytes that must lie free at the end of the heap before they are given back


def keep_freed_memory() -> bool:
    """Have the allocator keep what is freed, instead of giving large blocks back to the system.

    A training step on the CPU frees and takes the same gigabytes of activations each time. By default glibc returns
    blocks of tens of megabytes at once, and the system hands them out again page by page, each page filled with zeros:
    that can take longer than the step's arithmetic. The process then holds its peak until it ends.

    Returns:
        Whether the allocator knows how; it is glibc's, on Linux.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _NEVER))
