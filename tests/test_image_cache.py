"""A cached image is the decoded one byte for byte, whoever wrote it, and whatever happens to the file."""

import logging
import multiprocessing
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from catalog.decode import as_image, as_pixels, load_image
from catalog.table import read_table
from timm.data.image_cache import (
    ImageCache,
    Pixels,
    create_in_memory,
    create_on_disk,
    extents_of,
    file_size,
    read_on_disk,
)
from timm.data.image_sources import image_sources

MODES = {"png": "1 L LA P RGB RGBA I;16", "jpg": "L RGB CMYK", "tif": "I F LAB CMYK", "gif": "P", "webp": "RGBA"}
Create = Callable[..., ImageCache]


def _draw(folder: Path) -> list[str]:
    """Draw an image of each mode of each format, of as many sizes, and two that EXIF turns; return their names."""
    names, noise = [], np.random.default_rng(0)
    for extension, modes in MODES.items():
        for mode in modes.split():
            height, width = 5 + len(names), 40 - len(names)
            image = Image.fromarray(noise.integers(256, size=(height, width, 3), dtype=np.uint8))
            gray = noise.integers(65536, size=(height, width), dtype=np.uint16)
            image = Image.fromarray(gray) if mode == "I;16" else _converted(image, mode)
            names.append(f"{mode.replace(';', '')}.{extension}")
            image.save(folder / names[-1])
    for orientation in (3, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        names.append(f"turned-{orientation}.jpg")
        Image.fromarray(noise.integers(256, size=(20, 30, 3), dtype=np.uint8)).save(folder / names[-1], exif=exif)
    return names


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if mode == "LAB":
        return Image.merge("LAB", image.split())
    return image.convert("L").convert(mode) if mode in "IF" else image.convert(mode)


def _create(folder: Path, kind: str, names: list[str], channels: int = 3) -> ImageCache:
    (folder / "t.csv").write_text("\n".join(["image_path,kind", *[f"{name},a" for name in names]]) + "\n")
    sources = image_sources(read_table(folder / "t.csv"))
    extents = extents_of(sources.areas(0, show=False), channels, sources.stamps(0, show=False))
    if kind == "ram":
        return ImageCache(create_in_memory(extents, channels), sources)
    if read_on_disk(folder / "c.pixels") is None:
        create_on_disk(folder / "c.pixels", extents, channels)
    return ImageCache(os.open(folder / "c.pixels", os.O_RDWR), sources)


def _decode(folder: Path, name: str, channels: int = 3) -> Pixels:
    return as_pixels(load_image(folder / name, channels))


def _never() -> Pixels:
    raise AssertionError("it is decoded again")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def names(folder: Path) -> list[str]:
    return _draw(folder)


@pytest.fixture(params=["ram", "disk"])
def create(folder: Path, names: list[str], request: pytest.FixtureRequest) -> Iterator[Create]:
    """Return a function that makes an empty cache of the images."""
    yield lambda channels=3: _create(folder, request.param, names, channels)
    (folder / "c.pixels").unlink(missing_ok=True)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_any_mode_is_kept_byte_for_byte(
    create: Create, folder: Path, names: list[str], channels: int
) -> None:
    cache = create(channels)
    for row, name in enumerate(names):
        decoded = _decode(folder, name, channels)
        assert decoded.shape[2] == channels
        for decode in (lambda name=name: _decode(folder, name, channels), _never):
            pixels = cache.get(row, decode)
            assert pixels.dtype == np.uint8
            assert np.array_equal(pixels, decoded)
        assert as_image(pixels).tobytes() == load_image(folder / name, channels).tobytes()
        assert as_image(pixels).mode == load_image(folder / name, channels).mode


def _fill(cache: ImageCache, folder: Path, names: list[str], first: int) -> None:
    """Get every image, beginning with another on each process."""
    for number in range(len(names)):
        row = (first + number) % len(names)
        assert np.array_equal(cache.get(row, partial(_decode, folder, names[row])), _decode(folder, names[row]))


# Those that do not fork import torch, so there is but one of each; this process fills the cache beside it.
@pytest.mark.parametrize(
    ("create", "method", "starts"),
    [("ram", "fork", (0, 0, 7)), ("disk", "fork", (0, 0, 7)), ("ram", "spawn", (0,)), ("disk", "forkserver", (0,))],
    indirect=["create"],
)
def test_processes_of_any_start_method_fill_one_cache_at_once(
    create: Create, folder: Path, names: list[str], method: str, starts: tuple[int, ...]
) -> None:
    cache, context = create(), multiprocessing.get_context(method)
    processes = [context.Process(target=_fill, args=(cache, folder, names, first)) for first in starts]
    for process in processes:
        process.start()
    while cache._read(0) is None:
        time.sleep(0.001)
    _fill(cache, folder, names, 0)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for row, name in enumerate(names):
        assert np.array_equal(cache.get(row, _never), _decode(folder, name))


def test_a_process_that_is_killed_while_it_writes_leaves_no_torn_image(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    names = [f"{number}.bmp" for number in range(60)]
    for name in names:
        Image.fromarray(noise.integers(256, size=(500, 500, 3), dtype=np.uint8)).save(tmp_path / name)
    cache = _create(tmp_path, "disk", names)
    process = multiprocessing.get_context("fork").Process(target=_fill, args=(cache, tmp_path, names, 0))
    process.start()
    while cache._read(4) is None:
        time.sleep(0.001)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    again, decoded = _create(tmp_path, "disk", names), []
    for row, name in enumerate(names):
        pixels = again.get(row, lambda name=name: (decoded.append(name), _decode(tmp_path, name))[1])
        assert np.array_equal(pixels, _decode(tmp_path, name))
    assert 0 < len(decoded) <= 55


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with images, black ones too, and a cache that holds them all."""
    folder, noise = tmp_path_factory.mktemp("full"), np.random.default_rng(0)
    for number in range(6):
        pixels = noise.integers(256, size=(3 + number, 7, 3), dtype=np.uint8) * (number % 3 > 0)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    names = [f"{number}.png" for number in range(6)]
    _fill(_create(folder, "disk", names), folder, names, 0)
    return folder, names


@settings(max_examples=200)
@given(begin=st.floats(0, 1), length=st.integers(1, 400), cut=st.booleans())
def test_whatever_part_of_the_pixels_is_lost_no_wrong_ones_are_read(
    full: tuple[Path, list[str]], begin: float, length: int, cut: bool
) -> None:
    folder, names = full
    whole = (folder / "c.pixels").read_bytes()
    cache = _create(folder, "disk", names)
    first = int(cache._offsets[0])
    start = first + int(begin * (len(whole) - first))
    try:
        with (folder / "c.pixels").open("r+b") as file:
            if cut:
                file.truncate(start)
            else:
                file.seek(start)
                file.write(bytes(min(length, len(whole) - start)))
        _fill(cache, folder, names, 0)
        _fill(cache, folder, names, 0)
    finally:
        (folder / "c.pixels").write_bytes(whole)


def test_an_image_that_changes_after_the_start_is_not_kept(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.bmp")
    before = (tmp_path / "a.bmp").stat()
    cache = _create(tmp_path, "disk", ["a.bmp"])
    Image.new("RGB", (4, 4), "blue").save(tmp_path / "a.bmp")
    os.utime(tmp_path / "a.bmp", ns=(0, before.st_mtime_ns + 1))
    assert (cache.get(0, lambda: _decode(tmp_path, "a.bmp")) == (0, 0, 255)).all()
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.bmp")
    os.utime(tmp_path / "a.bmp", ns=(0, before.st_mtime_ns))
    assert (_create(tmp_path, "disk", ["a.bmp"]).get(0, lambda: _decode(tmp_path, "a.bmp")) == (255, 0, 0)).all()


def test_an_image_of_another_size_than_its_header_says_is_decoded_each_time(tmp_path: Path) -> None:
    for name in ("a.bmp", "b.bmp"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    cache, other = _create(tmp_path, "ram", ["a.bmp", "b.bmp"]), np.full((4, 5, 3), 7, dtype=np.uint8)
    for _ in range(2):
        assert cache.get(0, lambda: other) is other
    assert (cache.get(1, lambda: _decode(tmp_path, "b.bmp")) == 0).all()
    assert (cache.get(1, _never) == 0).all()


def test_an_unreadable_image_raises_each_time(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-100])
    (tmp_path / "text.jpg").write_text("no image")
    names = ["a.jpg", "cut.jpg", "text.jpg", "missing.jpg"]
    cache = _create(tmp_path, "ram", names)
    for row in (1, 2, 3, 1):
        with pytest.raises(OSError, match=names[row]):
            cache.get(row, lambda row=row: _decode(tmp_path, names[row]))


def test_where_the_disk_is_full_images_are_decoded_and_that_is_said_once(
    full: tuple[Path, list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, names = full
    for name in names:
        shutil.copy(folder / name, tmp_path / name)
    cache = _create(tmp_path, "disk", names)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(cache._offsets[2]), hard))  # no file may be longer
    try:
        with caplog.at_level(logging.WARNING):
            _fill(cache, tmp_path, names, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [record.message.count("takes no more") for record in caplog.records] == [1]
    _fill(cache, tmp_path, names, 0)
    assert np.array_equal(cache.get(1, _never), _decode(tmp_path, names[1]))
    with pytest.raises(AssertionError):
        cache.get(2, _never)


def test_a_file_that_is_no_cache_or_not_a_whole_one_is_ignored(full: tuple[Path, list[str]], tmp_path: Path) -> None:
    whole = (full[0] / "c.pixels").read_bytes()
    path = tmp_path / "c.pixels"
    assert read_on_disk(path) is None
    for content in (b"", whole[:10], whole[:50], whole[:-1], b"x" + whole[1:], whole + b"x"):
        path.write_bytes(content)
        assert read_on_disk(path) is None
    path.write_bytes(whole)
    extents = read_on_disk(path)
    assert extents is not None
    assert file_size(extents) == len(whole)


def test_an_empty_cache_takes_no_room_and_no_other_name(tmp_path: Path) -> None:
    extents = extents_of(np.full(100, 10**6), 3, np.zeros((100, 3), dtype=np.int64))
    create_on_disk(tmp_path / "new" / "c.pixels", extents, 3)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["c.pixels"]
    status = (tmp_path / "new" / "c.pixels").stat()
    assert status.st_size == file_size(extents) > 100 * 3 * 10**6
    assert status.st_blocks * 512 < 10**6


def test_two_runs_that_create_a_cache_at_once_both_go_on(full: tuple[Path, list[str]]) -> None:
    folder, names = full
    first = _create(folder, "disk", names)
    create_on_disk(folder / "c.pixels", first.extents, 3)
    second = _create(folder, "disk", names)
    for cache in (first, second):
        _fill(cache, folder, names, 0)
        _fill(cache, folder, names, 0)
    assert np.array_equal(second.get(1, _never), _decode(folder, names[1]))


def test_a_cache_of_other_images_is_refused(full: tuple[Path, list[str]]) -> None:
    folder, names = full
    cache = _create(folder, "disk", names)
    with pytest.raises(ValueError, match="of 6 images, not of 5"):
        ImageCache(cache._file, _create(folder, "ram", names[:5]).sources)


def test_closing_comes_with_the_last_reference(full: tuple[Path, list[str]]) -> None:
    cache = _create(*[full[0], "ram", full[1]])
    file = cache._file
    os.fstat(file)
    del cache
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)
