"""The C library's memory allocator, set to keep what a training step frees for the next step."""

from __future__ import annotations

import ctypes
import sys

# mallopt's parameters, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = 2**31 - 1  # threshold in bytes: free memory at the end of the heap that is returned to the system


def keep_freed_memory() -> bool:
    """Make the allocator keep freed memory instead of returning large blocks to the system.

    A training step on the CPU frees and allocates the same gigabytes of activations each time. By default glibc
    returns large blocks at once. The system then hands them out again page by page, each filled with zeros, which can
    take longer than the step's arithmetic. With this setting the process keeps its peak memory until it ends.

    Returns:
        Whether the allocator has this setting, as glibc's on Linux does.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _NEVER))
