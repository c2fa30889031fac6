"""Memory that was freed is kept."""

import subprocess
import sys
from pathlib import Path

import pytest

from runtime import host_memory

CODE = """
import sys; sys.path.insert(0, {root!r})
import ctypes, resource
from runtime.host_memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
size = 200 * 2**20
def take():
    block = libc.malloc(ctypes.c_size_t(size))
    ctypes.memset(block, 1, size)
    libc.free(ctypes.c_void_p(block))
take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
take()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_a_large_block_that_was_freed_is_taken_again_without_new_pages() -> None:
    def new_pages(keep: bool) -> int:
        code = CODE.format(root=str(Path(__file__).resolve().parent.parent), keep=keep)
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    assert new_pages(keep=False) > 50  # as huge pages of 2 MiB, at least
    assert new_pages(keep=True) < 10


def test_other_systems_keep_their_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory.sys, "platform", "darwin")
    assert not host_memory.keep_freed_memory()
    monkeypatch.setattr(host_memory.sys, "platform", "linux")
    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda name: object())
    assert not host_memory.keep_freed_memory()
