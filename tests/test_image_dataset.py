"""Images of listed inputs, opened row by row."""

from pathlib import Path

import pytest
from PIL import Image

from catalog.image_list import list_images
from runtime.errors import UsageError
from timm.data.image_dataset import ImageDataset


def make_image(path: Path, color: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), color).save(path)
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_inputs_can_be_mixed_and_each_row_opens_its_image(folder: Path) -> None:
    make_image(folder / "one.png", "red")
    make_image(folder / "photos" / "two.png", "lime")
    make_image(folder / "data" / "images" / "three.png", "blue")
    (folder / "data" / "new.tsv").write_text("image_path\tcolor\nimages/three.png\tblue\n")
    images = ImageDataset(list_images(["one.png", "photos", "data/new.tsv"]))
    assert images.paths.to_pylist() == ["one.png", "photos/two.png", "images/three.png"]
    assert [tuple(images.load(row)[0, 0].tolist()) for row in range(3)] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def test_an_unreadable_image_is_recorded_with_its_reason(folder: Path) -> None:
    make_image(folder / "good.png")
    (folder / "bad.png").write_text("no picture")
    images = ImageDataset(list_images(["good.png", "bad.png"]), channels=1)
    image, row = images[1]
    assert image.shape == (32, 32, 1)
    assert row == 1
    images[0]
    assert list(images.errors()) == [1]
    assert "bad.png" in images.errors()[1]


def test_a_list_without_any_readable_image_is_refused(folder: Path) -> None:
    make_image(folder / "good.png")
    for name in ("a.png", "b.png"):
        (folder / name).write_text("no picture")
    some, none = (ImageDataset(list_images(names)) for names in (["a.png", "good.png"], ["a.png", "b.png"]))
    for images in (some, none):
        for row in range(2):
            images[row]
    some.check_readable()
    with pytest.raises(UsageError, match=r"none of the 2 images could be read, the first being a.png \(.*not an image"):
        none.check_readable()


def test_a_file_name_that_is_not_text_is_reported_as_missing(folder: Path) -> None:
    make_image(folder / "photos" / "a.png")
    try:
        Path(b"photos/\xff.png".decode(errors="surrogateescape")).touch()
    except OSError:
        pytest.skip("this file system takes text only")
    images = ImageDataset(list_images(["photos"]))
    assert len(images) == 2
    images[1]
    assert images.errors() == {1: "No such file or directory"}
