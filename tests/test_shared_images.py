"""Images that a hold-out shares with another table are found by path and by content."""

import shutil
from pathlib import Path

import pytest
from table_files import draw, write_table

from catalog.shared_images import image_codes, warn_of_shared_images
from catalog.table import read_table


def test_the_same_file_and_a_copy_of_it_are_one_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [draw(tmp_path, f"{index}.png", index) for index in range(4)]
    shutil.copy(tmp_path / "images" / "2.png", tmp_path / "images" / "copy.png")
    write_table(tmp_path / "a.csv", rows[:3])
    write_table(
        tmp_path / "b.csv",
        [rows[3], rows[0] | {"image_path": "./images/0.png"}, rows[2] | {"image_path": "images/copy.png"}],
    )
    tables = [read_table(tmp_path / name) for name in ("a.csv", "b.csv")]
    ours, theirs = image_codes(tables)
    assert ours[[0, 2]].tolist() == theirs[[1, 2]].tolist()
    assert len({*ours.tolist(), *theirs.tolist()}) == 4
    warn_of_shared_images(tables[0], ours, tables[1], theirs, "leave them out")
    assert caplog.messages == [
        "a.csv: 2 of its 3 images are also in b.csv (a.csv line 2 is b.csv line 3; a.csv line 4 is b.csv line 4): "
        "leave them out"
    ]
    theirs[1:] = -1  # rows that do not count
    warn_of_shared_images(tables[0], ours, tables[1], theirs, "leave them out")
    assert len(caplog.messages) == 1
