"""JSON files that anybody may have changed."""

import os
from pathlib import Path

import pytest

from runtime.json_file import read_json


def test_a_file_is_read_as_utf8(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"Größe": [1, null]}', encoding="utf-8")
    assert read_json(file) == {"Größe": [1, None]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "Expecting property name"),
        (b'"\xff"', "it is not UTF-8"),
        (b"[" * 100_000, "it is nested too deep"),
        (b"", "Expecting value"),
    ],
)
def test_what_is_no_json_is_a_value_error(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_json(file)


def test_a_file_of_gigabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.touch()
    os.truncate(file, 3 << 30)
    with pytest.raises(ValueError, match="it has more than 64 MiB"):
        read_json(file)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"a\.json is a pipe, not a regular file"):
        read_json(tmp_path / "a.json")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="the system has no such file")
def test_a_file_that_the_system_does_not_read_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "a.json").symlink_to("/proc/self/mem")
    with pytest.raises(ValueError, match="it cannot be read: Input/output error"):
        read_json(tmp_path / "a.json")


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "a.json")
