"""A worker that dies or cannot send its batch ends the loading with one sentence."""

import errno
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from runtime.errors import UsageError
from timm.data.loader_workers import explained_workers, start_worker

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="workers are forked")


class Unsendable:
    """A batch that fails on its way to the main process, as a tensor does without shared memory."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


class Failing(Dataset[Any]):
    """A dataset whose first item makes its worker fail."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        match self.kind:
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "bus error":
                signal.signal(signal.SIGBUS, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGBUS)
            case "memory":
                raise MemoryError
            case "allocator":
                raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
            case "exit":
                os._exit(7)
            case "bug":
                raise KeyError("color")
            case "shared memory":
                return Unsendable(RuntimeError("unable to write to file </torch_1>: No space left on device (28)"))
            case "files":
                return Unsendable(OSError(errno.EMFILE, "Too many open files"))
        return torch.zeros(1)


def load(kind: str, way_out: str = "") -> None:
    loader: Any = DataLoader(
        Failing(kind), batch_size=None, num_workers=2, worker_init_fn=partial(start_worker, seeding="all")
    )
    with explained_workers(lambda: way_out):
        list(loader)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (
            "killed",
            r"a worker of the loader \(process \d+\) was killed, as .*: lower workers or batch_size, or free",
        ),
        ("bus error", r"a worker .* found no free shared memory \(.* in /dev/shm\): enlarge it, .*--shm-size=8g"),
        (
            "shared memory",
            r"a worker .* found no free shared memory \(.* in /dev/shm\): enlarge it, ",
        ),
        ("files", r"a worker .* had too many open files: raise the limit with ulimit -n, or lower workers"),
        ("memory", r"worker \d of the loader found no free memory: lower workers or batch_size"),
        ("allocator", r"worker \d of the loader found no free memory: lower workers or batch_size"),
        ("exit", r"a worker .* ended with status 7: set workers to 0, which shows the reason"),
    ],
)
def test_a_worker_that_dies_is_one_sentence(kind: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=f"^{sentence}"):
        load(kind)


def test_the_sentence_ends_with_what_is_saved() -> None:
    with pytest.raises(UsageError, match=r"\. Resume with a$"):
        load("killed", "Resume with a")


def test_an_error_in_a_dataset_keeps_its_traceback() -> None:
    with pytest.raises(KeyError, match="color"):
        load("bug")


def test_a_worker_that_cannot_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(UsageError, match=r"^a worker of the loader cannot start \(Resource temporarily unavailable\)"):
        load("none")


LEFT = """
from functools import partial
from torch.utils.data import DataLoader
from timm.data.loader_workers import start_worker

if __name__ == "__main__":
    batches = iter(DataLoader(range(4), num_workers=2, worker_init_fn=partial(start_worker, seeding="all")))
    print(next(batches).tolist())
"""


def test_a_script_ends_though_its_workers_ignore_signals_and_still_wait_for_work() -> None:
    ended = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[0]\n", "")
