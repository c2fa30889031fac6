"""Near duplicates: edits of one photograph are pairs, other photographs are not."""

import io

import numpy as np
import pytest
from drawn_photograph import photograph
from PIL import Image, ImageEnhance, ImageOps

from catalog.image_facts import collect_image_facts
from catalog.near_duplicates import Pairs, near_duplicates


def jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


EDITS = {
    "encoded": lambda image: jpeg(image, 30),
    "small": lambda image: image.resize((60, 80)),
    "bright": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "gray": lambda image: image.convert("L").convert("RGB"),
    "cropped": lambda image: image.crop((7, 9, 233, 311)),
    "mirrored": ImageOps.mirror,
    "squeezed": lambda image: image.resize((240, 200)),
    "turned": lambda image: image.rotate(1),
    "mirrored and encoded": lambda image: jpeg(ImageOps.mirror(image), 50),
}


def looks_of(folder, images):
    names = [str(folder / f"{i}.png") for i in range(len(images))]
    for name, image in zip(names, images, strict=True):
        image.save(name)
    return collect_image_facts(names, 0, show=False).looks


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_paired_with_its_original_and_with_nothing_else(tmp_path, edit):
    originals = [photograph(seed) for seed in range(8)]
    pairs = near_duplicates(looks_of(tmp_path, [*originals, *map(EDITS[edit], originals)]))
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert found == {(i, i + 8) for i in range(8)}
    assert pairs.mirrored.all() == pairs.mirrored.any() == edit.startswith("mirrored")
    assert (pairs.score <= 1.001).all()


def test_one_shape_in_two_colors_is_no_pair(tmp_path):
    image = photograph(0)
    bands = image.split()
    other = Image.merge("RGB", (bands[2], bands[0], bands[1]))
    assert len(near_duplicates(looks_of(tmp_path, [image, other]))) == 0


def test_images_without_detail_are_no_pairs(tmp_path):
    plain = [Image.new("RGB", (100, 100), (shade,) * 3) for shade in (250, 252, 255)]
    assert len(near_duplicates(looks_of(tmp_path, plain))) == 0


def test_more_partners_than_the_limit_leave_every_image_with_one(tmp_path, monkeypatch):
    monkeypatch.setattr("catalog.near_duplicates._PARTNERS", 2)
    monkeypatch.setattr("catalog.near_duplicates._BLOCK", 3)
    copies = [photograph(0).resize((200 + i, 300)) for i in range(8)]
    pairs = near_duplicates(looks_of(tmp_path, copies))
    assert set(pairs.first.tolist()) | set(pairs.second.tolist()) == set(range(8))
    assert len(pairs) < 28


def test_pairs_leave_out_others_in_either_order():
    def pairs(*ends):
        first, second = np.array(ends, np.int64).reshape(-1, 2).T
        return Pairs(first, second, np.ones(len(ends)), np.zeros(len(ends), bool))

    left = pairs((0, 1), (2, 3), (4, 5)).without(pairs((3, 2)))
    assert left.first.tolist() == [0, 4]
    assert left.second.tolist() == [1, 5]
    assert len(pairs((0, 1)).without(pairs((1, 0)))) == 0
