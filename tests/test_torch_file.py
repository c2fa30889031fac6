"""Files of torch that cannot be written."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from file_limit import file_limit

from runtime.atomic_file import atomic_file
from runtime.errors import UsageError
from runtime.torch_file import torch_errors_explained

FAILED = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")


@pytest.fixture
def small_files() -> Iterator[None]:
    with file_limit(1000):
        yield


@pytest.mark.parametrize("numbers", [400, 400_000])  # torch fails in two ways, by the size of the file
def test_a_file_beyond_the_limit_is_too_large(tmp_path: Path, small_files: None, numbers: int) -> None:
    path = tmp_path / "a.pth"
    with pytest.raises(OSError, match="File too large") as caught, torch_errors_explained(path):
        torch.save(torch.zeros(numbers), path)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))


@pytest.mark.parametrize(("free", "reason"), [(5 * 10**6, errno.ENOSPC), (10**12, errno.EIO)])
def test_the_free_space_tells_a_full_disk_from_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, reason: int
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, free))
    with pytest.raises(OSError) as caught, torch_errors_explained(tmp_path / "a.pth"):  # noqa: PT011
        raise FAILED
    assert caught.value.errno == reason


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), torch_errors_explained(tmp_path / "none" / "a.pth"):
        torch.save(1, tmp_path / "none" / "a.pth")


def test_another_error_stays(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), torch_errors_explained(tmp_path / "a.pth"):
        raise RuntimeError("shapes differ")


def test_an_atomic_file_makes_it_a_sentence_and_leaves_nothing(tmp_path: Path, small_files: None) -> None:
    path = tmp_path / "a.pth"
    with pytest.raises(UsageError, match=r"cannot write .*a\.pth \(File too large\)"):  # noqa: SIM117
        with atomic_file(path) as unfinished, torch_errors_explained(unfinished):
            torch.save(torch.zeros(400_000), unfinished)
    assert not [*tmp_path.iterdir()]
