"""Files have the same number exactly if they have the same content."""

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from catalog.identical_images import content_codes

CONTENTS = [
    b"a" * 9000,
    b"a" * 8999 + b"b",  # the same size and the same middle
    b"b" + b"a" * 8999,
    b"a" * 4500 + b"c" + b"a" * 4499,
    b"a" * 9001,
    b"a",
    b"",
]


@given(st.lists(st.integers(0, len(CONTENTS) - 1), max_size=12))
def test_equal_content_and_nothing_else_has_equal_numbers(tmp_path_factory: object, chosen: list[int]) -> None:
    folder = tmp_path_factory.mktemp("files")  # type: ignore[attr-defined]
    paths = []
    for index, content in enumerate(chosen):
        path = folder / f"{index}.jpg"
        path.write_bytes(CONTENTS[content])
        paths.append(str(path))
    codes = content_codes(paths)
    for i, one in enumerate(chosen):
        for j, other in enumerate(chosen):
            assert (codes[i] == codes[j]) == (i == j or (one == other and CONTENTS[one] != b""))


def test_missing_files_pipes_and_folders_differ_unless_they_are_one_path(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "other")
    paths = [str(tmp_path / name) for name in ("none", "pipe", "other", "", "no", "none")]
    codes = content_codes(paths).tolist()
    assert len(set(codes)) == 5
    assert codes[0] == codes[5]


def test_a_link_has_the_content_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    assert content_codes([str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]).tolist() == [0, 0]
