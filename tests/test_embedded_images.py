"""Images inside Parquet files: unpacked once, read by row, named by their saved path, and refused when unsafe."""

import io
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from table_files import cells, refusal, write_file

from catalog import embedded_images, image_formats
from catalog.decode import image_size, load_pixels
from catalog.embedded_images import is_image_file, parquet_and_row, read_embedded, unpacked
from catalog.find_images import with_found_images
from catalog.image_list import list_images
from catalog.table import read_table
from timm.data.image_dataset import ImageDataset
from timm.data.two_view_dataset import TwoViewDataset

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    unpacked.cache_clear()
    return folder / "simclr-multi-label"


def encoded(number: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4 + number, 5), (number, 50, 100)).save(stream, kind, quality=95)
    return stream.getvalue()


def write(path: Path, images: list, kind: pa.DataType = STRUCT, name: str = "image", **columns: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    colors = {"color": ["blue", "red"] * len(images)}
    table = {name: pa.array(images, kind), **{key: value[: len(images)] for key, value in (columns or colors).items()}}
    pq.write_table(pa.table(table), path, row_group_size=3)
    return path


def structs(count: int, kind: str = "PNG") -> list[dict]:
    return [{"bytes": encoded(number, kind), "path": f"{number}.{kind.lower()}"} for number in range(count)]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("column", ["structs", "bytes", "large bytes", "image_path"])
def test_each_row_gives_the_pixels_of_its_bytes(tmp_path, kind, column):
    images = structs(7, kind) if column == "structs" else [encoded(number, kind) for number in range(7)]
    types = {"structs": STRUCT, "large bytes": pa.large_binary()}
    path = write(
        tmp_path / "train.parquet",
        images,
        types.get(column, pa.binary()),
        "image_path" if column == "image_path" else "photo",
    )
    table, roots = with_found_images(read_table(path))
    assert table.attributes == ("color",)
    assert table.image_paths.to_pylist() == [f"train.parquet#{row}" for row in range(1, 8)]
    assert table.image_name(6) == (f"6.{kind.lower()}" if column == "structs" else "train.parquet#7")
    for number in range(7):
        place = roots[0] / table.image_path(number)
        expected = np.array(Image.open(io.BytesIO(encoded(number, kind))).convert("RGB")).astype(int)
        assert abs(load_pixels(place).astype(int) - expected).max() <= 1
        assert image_size(place) == (4 + number, 5)


def test_images_are_unpacked_once_and_again_when_the_file_changes(tmp_path, cache_folder):
    path = write(tmp_path / "train.parquet", structs(4))
    assert read_embedded(f"{path}#4") == encoded(3)
    (place,) = cache_folder.glob("images-*")
    before = place.stat().st_mtime_ns
    unpacked.cache_clear()
    assert read_embedded(f"{path}#1") == encoded(0)
    assert place.stat().st_mtime_ns == before
    write(path, structs(6)[2:])
    os.utime(path, ns=(1, 1))
    unpacked.cache_clear()
    assert read_embedded(f"{path}#1") == encoded(2)
    assert [found.name for found in cache_folder.glob("images-*")] != [place.name]
    assert len(list(cache_folder.glob("images-*"))) == 1


def test_a_row_without_an_image_or_an_unsafe_one_is_unreadable_and_named(tmp_path, caplog):
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n"
    images = [*structs(3), {"bytes": None, "path": "gone.png"}, None, {"bytes": eps, "path": "a.eps"}]
    path = write(tmp_path / "val.parquet", images)
    table = read_table(path)
    assert [table.image_name(row) for row in (3, 4, 5)] == ["gone.png", "val.parquet#5", "a.eps"]
    with pytest.raises(OSError, match=r"val.parquet row 4 has no image"):
        load_pixels(f"{path}#4")
    with pytest.raises(OSError, match=r"val.parquet row 5 has no image"):
        load_pixels(f"{path}#5")
    with pytest.raises(OSError, match=r"val.parquet#6': it is EPS, a format that is not read"):
        load_pixels(f"{path}#6")
    with pytest.raises(OSError, match=r"val.parquet has 6 rows, and no row 7"):
        load_pixels(f"{path}#7")
    dataset = TwoViewDataset(table, np.zeros((6, 1), np.int64), max_unreadable=0.9)
    for row in range(6):
        dataset[row]
    assert dataset.report_unreadable() == 3
    assert "Unreadable image: a.eps in val.parquet row 6 (cannot read image" in caplog.text


def test_an_image_longer_than_the_limit_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "val.parquet", structs(2))
    monkeypatch.setattr(image_formats, "MAX_DECODED_BYTES", 10)
    with pytest.raises(OSError, match=r"val.parquet row 1 has an image of .* GiB: shrink it"):
        load_pixels(f"{path}#1")


def test_structs_without_bytes_name_files_beside_the_table(tmp_path):
    for number in range(3):
        write_file(tmp_path / f"{number}.png", encoded(number))
    table = read_table(write(tmp_path / "val.parquet", [{"bytes": None, "path": f"{n}.png"} for n in range(3)]))
    assert cells(table)[2] == ["2.png", "blue"]
    assert with_found_images(table)[0] is table


def test_images_with_one_saved_path_are_named_by_their_rows(tmp_path):
    images = [{"bytes": encoded(n), "path": "same.png" if n else "own.png"} for n in range(3)]
    table = read_table(write(tmp_path / "val.parquet", images))
    assert [table.image_name(row) for row in range(3)] == ["own.png", "val.parquet#2", "val.parquet#3"]
    assert table.take(np.array([2, 0])).names.to_pylist() == ["val.parquet#3", "own.png"]


def test_several_columns_of_images_are_refused_unless_one_is_called_image_path(tmp_path):
    images = pa.array(structs(3), STRUCT)
    pq.write_table(pa.table({"front": images, "back": images, "color": ["a", "b", "a"]}), tmp_path / "a.parquet")
    assert refusal(read_table, tmp_path / "a.parquet") == (
        "a.parquet: several columns hold images ('front', 'back'): rename the column to read to image_path"
    )
    pq.write_table(pa.table({"image_path": images, "back": images, "color": ["a", "b", "a"]}), tmp_path / "b.parquet")
    table = read_table(tmp_path / "b.parquet", ["color"])
    assert table.image_paths.to_pylist() == [f"b.parquet#{row}" for row in (1, 2, 3)]


def test_text_that_is_stored_as_bytes_stays_text(tmp_path):
    paths = pa.array([b"a.jpg", b"b.jpg"], pa.binary())
    pq.write_table(pa.table({"image_path": paths, "color": pa.array([b"x", b"y"])}), tmp_path / "a.parquet")
    assert cells(read_table(tmp_path / "a.parquet")) == [["a.jpg", "x"], ["b.jpg", "y"]]


def test_inference_lists_a_table_of_images_with_their_names_and_keys(tmp_path):
    path = write(tmp_path / "val.parquet", structs(3))
    images = ImageDataset(list_images([str(path), f"{path}#2"]))
    assert images.paths.to_pylist() == ["0.png", "1.png", "2.png", f"{path}#2"]
    assert images.keys.to_pylist()[:3] == [f"val.parquet#{row}" for row in (1, 2, 3)]
    assert images.load(3).shape == images.load(1).shape == (5, 5, 3)


def test_a_folder_of_parts_is_one_table_with_its_images(tmp_path):
    write(tmp_path / "train.parquet" / "part-0.snappy.parquet", structs(2))
    write(tmp_path / "train.parquet" / "part-1.snappy.parquet", structs(4)[2:])
    write_file(tmp_path / "train.parquet" / "_SUCCESS", "")
    table, roots = with_found_images(read_table(tmp_path / "train.parquet"))
    assert table.image_path(2) == "train.parquet/part-1.snappy.parquet#1"
    assert table.image_name(2) == "2.png"
    assert load_pixels(roots[0] / table.image_path(3)).shape == (5, 7, 3)


def test_a_path_with_a_number_sign_is_a_file_if_there_is_one(tmp_path):
    write(tmp_path / "a.parquet", structs(1))
    file = write_file(tmp_path / "a.parquet#1", encoded(9))
    assert parquet_and_row(file) is None
    assert image_size(file) == (13, 5)
    assert is_image_file(f"{tmp_path}/a.parquet#2")  # rows are counted only when the image is read
    assert not is_image_file(tmp_path / "b.parquet#1")
    assert parquet_and_row("a.parquet#0") is None


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    write_file(tmp_path / "taken", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    path = write(tmp_path / "val.parquet", structs(2))
    message = refusal(with_found_images, read_table(path))
    assert message.startswith("the images in val.parquet cannot be unpacked to ")
    assert message.endswith("name another folder with the environment variable XDG_CACHE_HOME")


def test_images_that_do_not_fit_the_disk_are_refused_before_and_while_they_are_unpacked(tmp_path, monkeypatch):
    same = {"bytes": np.random.default_rng(0).bytes(1 << 20), "path": "a"}
    path = write(tmp_path / "val.parquet", [same] * 60)
    monkeypatch.setattr(embedded_images, "available_disk", lambda _: 20 << 20)  # the dictionary holds one of them
    assert "are free in" in refusal(unpacked, str(path))
    monkeypatch.setattr(embedded_images, "available_disk", lambda _: 1 << 10)
    assert "more than 95% of the 0.00 GiB that are free" in refusal(unpacked, str(path))


def test_unpacking_and_reading_take_little_memory(tmp_path):
    generator = np.random.default_rng(0)
    path = tmp_path / "big.parquet"
    images = pa.array([{"bytes": b"\x89PNG\r\n\x1a\n" + generator.bytes(1 << 13)} for _ in range(12_800)])
    pq.write_table(pa.table({"image": images}), path, row_group_size=12_800)
    del images
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    tracemalloc.start()
    most = 0
    contents = embedded_images._contents

    def measured(column):
        nonlocal most
        most = max(most, pool.bytes_allocated() - before)
        return contents(column)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded_images, "_contents", measured)
        assert len(read_embedded(f"{path}#12800")) == (1 << 13) + 8
    assert most < 50 << 20  # the file holds 100 MiB
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
