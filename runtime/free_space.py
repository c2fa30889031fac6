"""The memory, the shared memory and the disk space that are still available to a process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps the memory that processes share
_ROOT = Path("/")
# For each version of Linux's control groups: the mount point, the files with limit and usage, the reclaimable field.
_V1 = ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


def available_memory(root: Path = _ROOT) -> int | None:
    """Return the bytes of memory that can be allocated without swapping or being killed; None outside Linux.

    This is the kernel's estimate (MemAvailable), or what remains below the limit of a control group, such as a
    container's, whichever is less.

    Args:
        root: the folder that holds proc and sys.
    """
    free = [kib * 1024 for kib in _fields(root / "proc/meminfo", "MemAvailable:")]
    return min([*free, *_below_limits(root)], default=None)


def available_disk(folder: Path) -> int:
    """Return the bytes that this user can still write to the file system of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def available_shared_memory(folder: Path = SHARED_MEMORY) -> int | None:
    """Return the bytes that processes can still share; None where the system has no such limit."""
    return shutil.disk_usage(folder).free if folder.is_dir() else None


def gib(count: int) -> str:
    """Return a number of bytes as text, in GiB."""
    return f"{count / 2**30:.2f} GiB"


def _below_limits(root: Path) -> Iterator[int]:
    """Yield the bytes that remain below the limit of this process's control group, and of each parent group."""
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        mount, limit, usage, inactive = _V1 if controllers else _V2
        inside = Path(root, mount, path.lstrip("/"))
        for folder in (inside, *inside.parents):
            # The cache of files that are not in use counts as used, but the kernel frees it on demand.
            reclaimable = sum(_fields(folder / "memory.stat", inactive))
            for most in _fields(folder / limit):
                yield from (max(0, most - used + reclaimable) for used in _fields(folder / usage))
            if folder == root / mount:
                break


def _fields(path: Path, name: str = "") -> Iterator[int]:
    """Yield the number after a name in one of the kernel's files, or without a name the file's only number.

    Nothing is yielded for a group without a limit, whose file says "max", nor for one hidden from a container.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        words = line.split()
        if words and (not name or words[0] == name):
            number = words[1] if name else words[0]
            if number.isdecimal():
                yield int(number)
