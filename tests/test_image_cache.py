"""Cached images are the decoded ones byte for byte, in every process; a file that was cut short is not trusted."""

import multiprocessing
import os
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from catalog import image_cache as module
from catalog.decode import as_pixels, load_image
from catalog.image_cache import ImageCache, ImageSources, decode_into, image_sources
from catalog.table import read_table

MODES = {"png": "1 L LA P RGB RGBA I;16", "jpg": "L RGB CMYK", "tif": "I F LAB CMYK", "gif": "P", "webp": "RGBA"}


def _draw_modes(folder: Path) -> list[str]:
    """Draw an image of each mode of each format, each of another size, and two that EXIF turns; return their names."""
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


def _sources(folder: Path, *names: str) -> ImageSources:
    (folder / "t.csv").write_text("\n".join(["image_path,kind", *[f"{name},a" for name in names]]) + "\n")
    return image_sources(read_table(folder / "t.csv"))


def _draw(folder: Path, name: str, width: int, height: int) -> str:
    Image.new("RGB", (width, height)).save(folder / name)
    return name


def _cache(folder: Path, sources: ImageSources, channels: int = 3, workers: int = 0) -> ImageCache:
    place = folder / f"pixels-{channels}-{workers}"
    place.touch()
    index = decode_into(str(place), sources, sources.areas(0, False), channels, workers, show=False)
    return ImageCache(os.open(place, os.O_RDONLY), index, channels, sources.of_row)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_any_mode_is_kept_byte_for_byte(tmp_path: Path, channels: int) -> None:
    names = _draw_modes(tmp_path)
    cache = _cache(tmp_path, _sources(tmp_path, *names), channels)
    for row, name in enumerate(names):
        pixels = cache.get(row)
        assert pixels is not None
        assert pixels.dtype == np.uint8
        assert pixels.flags.writeable
        assert np.array_equal(pixels, as_pixels(load_image(tmp_path / name, channels)))


def _read_all(cache: ImageCache, expected: list[bytes]) -> None:
    assert [cache.get(row).tobytes() for row in range(len(expected))] == expected  # type: ignore[union-attr]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_of_any_start_method_reads_the_cache_after_its_file_is_gone(tmp_path: Path, method: str) -> None:
    names = _draw_modes(tmp_path)
    cache = _cache(tmp_path, _sources(tmp_path, *names))
    (tmp_path / "pixels-3-0").unlink()
    expected = [as_pixels(load_image(tmp_path / name)).tobytes() for name in names]
    process = multiprocessing.get_context(method).Process(target=_read_all, args=(cache, expected))
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_worker_processes_write_what_one_process_writes_and_draw_no_random_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 4)
    sources = _sources(tmp_path, *_draw_modes(tmp_path))
    state, draws = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert sources.areas(2, show=True).tolist() == sources.areas(0, show=False).tolist()
    one, two = _cache(tmp_path, sources), _cache(tmp_path, sources, workers=2)
    assert np.array_equal(one.index, two.index)
    assert (tmp_path / "pixels-3-0").read_bytes() == (tmp_path / "pixels-3-2").read_bytes()
    assert torch.equal(state, torch.get_rng_state())
    assert draws == np.random.get_state()[1].tolist()  # noqa: NPY002


def _die(file: str) -> int:
    os._exit(1)


def test_a_killed_worker_ends_the_work_instead_of_waiting_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 1)
    monkeypatch.setattr(module, "_area", _die)
    with pytest.raises(BrokenProcessPool):
        _sources(tmp_path, _draw(tmp_path, "a.png", 2, 2), _draw(tmp_path, "b.png", 2, 2)).areas(2, show=False)


def test_an_image_that_cannot_be_decoded_as_announced_has_no_pixels(tmp_path: Path) -> None:
    whole = _draw(tmp_path, "whole.bmp", 40, 50)
    (tmp_path / "cut.bmp").write_bytes((tmp_path / whole).read_bytes()[:80])
    (tmp_path / "text.bmp").write_text("no image")
    sources = _sources(tmp_path, "cut.bmp", "text.bmp", "missing.bmp", whole)
    areas = sources.areas(0, show=False)
    assert areas.tolist() == [2000, 0, 0, 2000]
    _draw(tmp_path, whole, 41, 50)  # changes after it was measured
    (tmp_path / "p").touch()
    index = decode_into(str(tmp_path / "p"), sources, areas, 3, 0, show=False)
    cache = ImageCache(os.open(tmp_path / "p", os.O_RDONLY), index, 3, sources.of_row)
    assert [cache.get(row) for row in range(4)] == [None] * 4


def test_pixels_behind_the_end_of_a_file_that_was_cut_are_not_made_up(tmp_path: Path) -> None:
    cache = _cache(tmp_path, _sources(tmp_path, _draw(tmp_path, "a.png", 9, 9), _draw(tmp_path, "b.png", 9, 9)))
    os.truncate(tmp_path / "pixels-3-0", 9 * 9 * 3 + 5)
    assert cache.get(0) is not None
    assert cache.get(1) is None


def test_a_full_disk_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", no_space)
    with pytest.raises(OSError, match="No space left"):
        _cache(tmp_path, _sources(tmp_path, _draw(tmp_path, "a.png", 9, 9)))


def _open_files() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def test_the_file_is_closed_with_the_last_reference(tmp_path: Path) -> None:
    before = _open_files()
    cache = _cache(tmp_path, _sources(tmp_path, _draw(tmp_path, "a.png", 9, 9)))
    assert _open_files() == before + 1
    del cache
    assert _open_files() == before


def test_a_path_of_several_rows_is_one_source(tmp_path: Path) -> None:
    names = [_draw(tmp_path, name, 2, 3) for name in ("a.png", "b.png")]
    sources = _sources(tmp_path, names[0], names[1], names[0])
    assert len(sources) == 2
    assert sources.of_row.tolist() == [0, 1, 0]


def test_a_stamp_holds_time_length_and_root_and_a_missing_file_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    _draw(tmp_path / "data", "a.png", 2, 3)
    _draw(tmp_path / "here", "b.png", 2, 3)
    sources = _sources(tmp_path / "data", "a.png", "b.png", "missing.png")
    found = [(tmp_path / name).stat() for name in ("data/a.png", "here/b.png")]
    expected = [(status.st_mtime_ns, status.st_size, root) for root, status in enumerate(found)]
    assert [sources.find(source)[1] for source in range(3)] == [*expected, (-1, -1, -1)]
    assert sources.find(1)[0] == str(tmp_path / "here" / "b.png")
