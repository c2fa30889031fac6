"""The files of a table, found, dated and measured without decoding."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from catalog.table import read_table
from timm.data import image_sources as module
from timm.data.image_sources import ImageSources, image_sources


def _sources(folder: Path, *names: str) -> ImageSources:
    (folder / "t.csv").write_text("\n".join(["image_path,kind", *[f"{name},a" for name in names]]) + "\n")
    return image_sources(read_table(folder / "t.csv"))


def _draw(folder: Path, name: str, width: int, height: int) -> str:
    Image.new("RGB", (width, height)).save(folder / name)
    return name


def test_a_path_of_several_rows_is_one_source(tmp_path: Path) -> None:
    names = [_draw(tmp_path, name, 2, 3) for name in ("a.png", "b.png")]
    sources = _sources(tmp_path, names[0], names[1], names[0])
    assert len(sources) == 2
    assert sources.of_row.tolist() == [0, 1, 0]


def test_areas_are_those_of_the_headers_and_none_of_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "whole.png").write_bytes((tmp_path / _draw(tmp_path, "a.png", 40, 50)).read_bytes())
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    sources = _sources(tmp_path, "text.png", "whole.png", "cut.png", "missing.png")
    assert sources.areas(0, show=False).tolist() == [0, 2000, 2000, 0]


def test_stamps_tell_time_length_and_root_and_a_missing_file_has_none(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    _draw(tmp_path / "data", "a.png", 2, 3)
    _draw(tmp_path / "here", "b.png", 2, 3)
    sources = _sources(tmp_path / "data", "a.png", "b.png", "missing.png")
    found = [(tmp_path / name).stat() for name in ("data/a.png", "here/b.png")]
    expected = [[status.st_mtime_ns, status.st_size, root] for root, status in enumerate(found)]
    assert sources.stamps(0, show=False).tolist() == [*expected, [-1, -1, -1]]
    assert sources.find(1)[0] == str(tmp_path / "here" / "b.png")


def test_workers_measure_the_same_and_draw_no_random_number(tmp_path: Path, monkeypatch) -> None:
    names = [_draw(tmp_path, f"{width}.png", width, 3) for width in range(1, 24)]
    sources = _sources(tmp_path, *names)
    monkeypatch.setattr(module, "_CHUNK", 5)
    state = torch.get_rng_state()
    for workers in (0, 2):
        assert sources.areas(workers, show=True).tolist() == [3 * width for width in range(1, 24)]
        assert np.array_equal(sources.stamps(workers, show=False), sources.stamps(0, show=False))
    assert torch.equal(state, torch.get_rng_state())
