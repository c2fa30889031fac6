"""Listing the images of files, folders and tables."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from catalog.image_list import list_images
from runtime.errors import UsageError


def make_image(path: Path, color: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), color).save(path)
    return path


def listed(*inputs: str) -> list[str]:
    return [path for images in list_images(inputs) for path in images.paths.to_pylist()]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_gives_all_images_below_it(folder: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.webp", "sub/deep/d.gif", ".hidden.png", ".git/e.png"):
        make_image(folder / "photos" / name)
    (folder / "photos" / "notes.txt").touch()
    expected = ["photos/a.JPG", "photos/b.png", "photos/sub/c.webp", "photos/sub/deep/d.gif"]
    assert listed("photos") == expected
    assert listed("photos/") == expected
    assert listed(str(folder / "photos"))[0] == str(folder / "photos" / "a.JPG")


def test_a_folder_with_a_link_to_itself_is_visited_once(folder: Path) -> None:
    make_image(folder / "photos" / "a.png")
    (folder / "photos" / "loop").symlink_to(folder / "photos")
    assert listed("photos") == ["photos/a.png"]


def test_a_table_needs_no_attributes_and_keeps_every_row(folder: Path) -> None:
    make_image(folder / "data" / "images" / "a.png")
    (folder / "data" / "new.csv").write_text("image_path\nimages/a.png\nimages/a.png\nimages/missing.png\n")
    assert listed("data/new.csv") == ["images/a.png", "images/a.png", "images/missing.png"]
    pq.write_table(pa.table({"image_path": ["images/a.png"], "vector": [[1.0, 2.0]]}), folder / "data" / "new.parquet")
    assert listed("data/new.parquet") == ["images/a.png"]


def test_a_file_that_several_inputs_name_is_taken_once(folder: Path) -> None:
    make_image(folder / "photos" / "sub" / "a.png")
    make_image(folder / "b.png")
    assert listed("photos", "photos/sub", "photos/sub/a.png", "./photos//sub/a.png", "b.png", "b.png") == [
        "photos/sub/a.png",
        "b.png",
    ]


def test_a_file_name_that_is_not_text_is_listed_with_a_replacement_character(folder: Path) -> None:
    make_image(folder / "photos" / "a.png")
    try:
        Path(b"photos/\xff.png".decode(errors="surrogateescape")).touch()
    except OSError:
        pytest.skip("this file system takes text only")
    assert listed("photos") == ["photos/a.png", "photos/�.png"]


@pytest.mark.parametrize("name", ["missing.png", "missing", "missing.csv"])
def test_a_missing_input_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"no such image, folder or table: {name}"):
        list_images([name])


def test_a_folder_without_images_is_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.txt").touch()
    (folder / "empty" / "a.heic").touch()
    with pytest.raises(
        UsageError, match=r"empty has no images: .*; left out: 1 \.heic, 1 \.txt \(\.heic is read after"
    ):
        list_images(["empty"])


def left_out(caplog: pytest.LogCaptureFixture, *inputs: str) -> str:
    with caplog.at_level("INFO"):
        list_images(inputs)
    return caplog.text


def test_files_that_are_left_out_of_a_folder_are_counted_by_extension(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_image(folder / "photos" / "a.png")
    names = [
        *(f"sub/{number}.HEIC" for number in range(12)),
        "a.svg",
        "sub/b.svg",
        "sub/c.svg",
        "README",
        ".hidden.jpg",
    ]
    for name in names:
        (folder / "photos" / name).parent.mkdir(exist_ok=True)
        (folder / "photos" / name).touch()
    counts = "12 .heic, 3 .svg, 1 hidden, 1 without extension (.heic is read after pip install pillow-heif)"
    assert f"photos: left out: {counts}\n" in left_out(caplog, "photos")


def test_rare_extensions_are_counted_together(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_image(folder / "photos" / "a.png")
    for number in range(13):
        (folder / "photos" / f"a.x{number:02}").touch()
    assert left_out(caplog, "photos").endswith("1 .x09, 3 of other extensions\n")


def test_a_folder_that_cannot_be_opened_is_counted(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_image(folder / "photos" / "a.png")
    (folder / "photos" / "closed").mkdir()
    scandir = os.scandir

    def closed(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert "left out: 1 folders that cannot be opened" in left_out(caplog, "photos")


def test_a_folder_of_images_alone_is_silent(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_image(folder / "photos" / "a.png")
    assert left_out(caplog, "photos") == ""


def test_a_table_without_any_image_file_is_refused(folder: Path) -> None:
    (folder / "new.csv").write_text("image_path\nmissing.png\n")
    with pytest.raises(UsageError, match="no readable image at all"):
        list_images(["new.csv"])
