"""Files that change at once or not at all."""

from pathlib import Path

import pytest

from runtime.atomic_file import atomic_file, check_writable
from runtime.errors import UsageError


def test_a_file_appears_complete_in_a_folder_that_is_created(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with atomic_file(path) as unfinished:
        unfinished.write_text("half")
        assert not path.exists()
        unfinished.write_text("whole")
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]
    assert path.read_text() == "whole"


def write_half_and_fail(path: Path) -> None:
    path.write_text("half")
    raise ZeroDivisionError


def test_a_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as unfinished:
        write_half_and_fail(unfinished)
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"), atomic_file(tmp_path / "file" / "below.txt"):
        pass
    with pytest.raises(UsageError, match="cannot make the folder"):
        check_writable(tmp_path / "file" / "below.txt")
    with pytest.raises(UsageError, match="it is a folder"):
        check_writable(tmp_path)
