"""Facts of many image files: equal pixels are found whatever the file, and processes change nothing."""

import numpy as np
from drawn_photograph import photograph
from PIL import Image

from catalog.image_facts import collect_image_facts


def test_files_with_the_same_pixels_are_one_image(tmp_path):
    small, large = photograph(0), photograph(1, 1100, 1400)
    changed = np.array(large)
    small.save(tmp_path / "a.png")
    small.save(tmp_path / "a.bmp")
    large.save(tmp_path / "b.jpg")
    large.save(tmp_path / "b-again.jpg", comment="another file with the same pixels")
    large.save(tmp_path / "b-coarse.jpg", quality=60)
    Image.fromarray(changed[::-1]).save(tmp_path / "c.jpg")
    (tmp_path / "bad-1.jpg").write_text("no image")
    (tmp_path / "bad-2.jpg").write_text("no image")
    names = ["a.png", "bad-1.jpg", "a.bmp", "b.jpg", "b-again.jpg", "b-coarse.jpg", "c.jpg", "bad-2.jpg"]
    facts = collect_image_facts([str(tmp_path / name) for name in names], 0, show=False)
    assert facts.same.tolist() == [0, 1, 0, 3, 3, 5, 6, 7]
    assert sorted(facts.errors) == [1, 7]
    assert facts.readable.tolist() == [True, False, *[True] * 5, False]
    assert facts.size[3].tolist() == [1100, 1400]


def test_large_jpegs_that_differ_only_in_full_are_two_images(tmp_path, monkeypatch):
    paths = [str(tmp_path / name) for name in ("one.jpg", "two.jpg")]
    photograph(1, 1100, 1400).save(paths[0])
    photograph(2, 1100, 1400).save(paths[1])
    reduced = [collect_image_facts(paths, 0, show=False)]
    assert reduced[0].same.tolist() == [0, 1]
    monkeypatch.setattr("catalog.measure_image._pixel_hash", lambda pixels: bytes([pixels.shape[0] == 1400]) * 16)
    assert collect_image_facts(paths, 0, show=False).same.tolist() == [0, 0]  # one hash in full too
    hashes = iter([b"x" * 16, b"y" * 16])
    monkeypatch.setattr("catalog.image_facts.full_pixel_hash", lambda path: next(hashes))
    assert collect_image_facts(paths, 0, show=False).same.tolist() == [0, 1]


def test_processes_return_what_one_process_returns(tmp_path, monkeypatch):
    monkeypatch.setattr("catalog.image_cache._CHUNK", 2)
    paths = [str(tmp_path / f"{i}.png") for i in range(7)]
    for i, path in enumerate(paths):
        photograph(i % 5).save(path)
    one, two = (collect_image_facts(paths, workers, show=False) for workers in (0, 2))
    assert one.same.tolist() == two.same.tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert np.array_equal(one.looks.hashes, two.looks.hashes)
    assert np.array_equal(one.looks.gray, two.looks.gray)
    assert np.array_equal(one.sharpness, two.sharpness, equal_nan=True)
