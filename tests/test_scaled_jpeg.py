"""A JPEG that views are cut from is decoded no larger than they need, and the views stay what they were."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_photograph import photograph
from PIL import Image

from catalog.build_label_space import build_label_space
from catalog.decode import load_pixels
from catalog.scaled_jpeg import ScaledJpeg, open_pixels
from catalog.table import read_table
from catalog.targets import encode_targets
from timm.data.resize_crop import resize_crop
from timm.data.simclr_view import SimCLRView, random_box
from timm.data.two_view_dataset import TwoViewDataset
from timm.data.view_maker import Augmentation, training_views
from timm.data.view_plan import ViewPlan, plan_views

BILINEAR = Image.Resampling.BILINEAR
CONFIG = {
    "input_size": (3, 24, 24),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "center",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Save a photograph of odd sides."""
    path = tmp_path / "a.jpg"
    photograph(0, 901, 603).save(path, quality=90)
    return path


def opened(file: Path) -> ScaledJpeg:
    image = open_pixels(file)
    assert isinstance(image, ScaledJpeg)
    return image


@pytest.mark.parametrize(
    ("box", "divisor"),
    [
        ((0, 0, 603, 901), 8),  # 75 pixels and more remain
        ((0, 0, 479, 901), 4),  # one pixel less than 8 x 60
        ((3, 5, 480, 480), 8),
        ((3, 5, 240, 300), 4),
        ((3, 5, 239, 300), 2),
        ((3, 5, 120, 600), 2),
        ((3, 5, 119, 600), 1),
        ((3, 5, 600, 119), 1),  # the narrower side decides
    ],
)
def test_the_smallest_scale_at_which_the_crop_keeps_the_size_is_decoded(
    file: Path, box: tuple[int, int, int, int], divisor: int
) -> None:
    pixels, (top, left, height, width) = opened(file).part(box, (60, 60))
    assert pixels.shape == (-(-603 // divisor), -(-901 // divisor), 3)
    for edge, exact in (
        (top, box[0]),
        (left, box[1]),
        (top + height, box[0] + box[2]),
        (left + width, box[1] + box[3]),
    ):
        assert abs(edge - exact / divisor) <= 0.5
    assert top + height <= pixels.shape[0]
    assert left + width <= pixels.shape[1]
    assert min(height, width) >= 60


def test_in_full_the_part_is_the_image_itself(file: Path) -> None:
    pixels, box = opened(file).part((7, 9, 50, 50), (60, 60))
    assert box == (7, 9, 50, 50)
    assert np.array_equal(pixels, load_pixels(file))


def test_an_image_that_is_large_enough_is_not_decoded_again(file: Path) -> None:
    image = opened(file)
    large, _ = image.part((0, 0, 130, 130), (60, 60))
    again, box = image.part((0, 0, 603, 901), (60, 60))
    assert again is large
    assert box == (0, 0, 302, 450)
    larger, _ = image.part((0, 0, 61, 61), (60, 60))
    assert larger.shape == (603, 901, 3)


def test_the_part_that_needs_most_decides_if_it_is_known(file: Path) -> None:
    image = opened(file)
    image.expect([(0, 0, 603, 901), (5, 5, 130, 140)], (60, 60))
    pixels, box = image.part((0, 0, 603, 901), (60, 60))
    assert pixels.shape == (302, 451, 3)
    assert box == (0, 0, 302, 450)
    assert image.part((5, 5, 130, 140), (60, 60))[0] is pixels


@pytest.mark.parametrize("policy", [{"strength": 1.0, "keep_color": False}, None])
@pytest.mark.parametrize(
    "plan", [plan_views(True), plan_views(True, "weak"), plan_views(True, aug_splits=3), plan_views(False)]
)
def test_an_image_is_decoded_once_for_all_views_of_a_plan(
    file: Path, policy: dict[str, object] | None, plan: ViewPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = plan.kinds.count("clean") and 3
    if splits and policy:
        return  # AugMix has timm's policies alone
    seen: list[tuple[int, int]] = []
    part = ScaledJpeg.part

    def noted(image: ScaledJpeg, box: tuple[int, int, int, int], size: tuple[int, int]) -> object:
        pixels, place = part(image, box, size)
        seen.append(pixels.shape[:2])
        return pixels, place

    monkeypatch.setattr(ScaledJpeg, "part", noted)
    augmentation = Augmentation(scale=(0.02, 1.0), ratio=(3 / 4, 4 / 3), num_aug_splits=splits)
    views = training_views(plan, CONFIG, augmentation, True, policy)
    shapes = set()
    for seed in range(20):
        random.seed(seed)
        seen.clear()
        image = opened(file)
        views(image)
        assert len(set(seen)) == 1
        assert len(seen) == ("clean" in plan.kinds) + sum(kind in ("full", "light") for kind in plan.kinds)
        assert next(image.crops, None) is None
        shapes |= set(seen)
    assert len(shapes) > 1


@pytest.mark.parametrize("size", [(64, 64), (40, 72)])
def test_views_differ_from_those_of_the_whole_image_by_a_level_or_two(file: Path, size: tuple[int, int]) -> None:
    whole, differences, divisors = load_pixels(file), [], set()
    random.seed(0)
    for _ in range(60):
        box = random_box(603, 901, (0.08, 1.0), (3 / 4, 4 / 3))
        pixels, (top, left, height, width) = opened(file).part(box, size)
        divisor = round(603 / pixels.shape[0])
        divisors.add(divisor)
        # the same rectangle, of whole pixels at the smaller scale, in the whole image
        bottom, right = min(603, (top + height) * divisor), min(901, (left + width) * divisor)
        same = (top * divisor, left * divisor, bottom - top * divisor, right - left * divisor)
        view = resize_crop(opened(file), box, size, BILINEAR).astype(float)
        differences.append(np.abs(view - resize_crop(whole, same, size, BILINEAR)).mean())
        if divisor == 1:
            assert differences[-1] == 0
    assert divisors >= {2, 4}
    assert max(differences) < 5
    assert np.mean(differences) < 2


def test_both_kinds_of_views_take_it_and_draw_the_same_crops(file: Path) -> None:
    plan = plan_views(True)
    for policy in ({"strength": 1.0, "keep_color": False}, None):
        augmentation = Augmentation(scale=(0.3, 1.0), ratio=(3 / 4, 4 / 3), color_jitter=None)
        views = training_views(plan, CONFIG, augmentation, True, policy)
        made = []
        for image in (load_pixels(file), opened(file)):
            random.seed(3)
            torch.manual_seed(3)
            made.append([np.asarray(view).astype(float) for view in views(image)])
        for whole, scaled in zip(*made, strict=True):
            assert 0 < np.abs(whole - scaled).mean() < 8


def test_the_random_numbers_do_not_depend_on_the_decoding(file: Path) -> None:
    view = SimCLRView((24, 24), interpolation=[BILINEAR])
    after = []
    for image in (load_pixels(file), opened(file)):
        random.seed(1)
        view(image)
        after.append(random.random())
    assert after[0] == after[1]


def test_other_images_are_decoded_at_once(tmp_path: Path) -> None:
    image, turned = photograph(0, 64, 48), Image.Exif()
    turned[274] = 6
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "turned.jpg", exif=turned)
    image.convert("L").save(tmp_path / "gray.jpg")
    for name in ("a.png", "turned.jpg", "gray.jpg"):
        pixels = open_pixels(tmp_path / name)
        assert isinstance(pixels, np.ndarray)
        assert np.array_equal(pixels, load_pixels(tmp_path / name))
    image.save(tmp_path / "plain.jpg")
    gray = open_pixels(tmp_path / "plain.jpg", 1)
    assert isinstance(gray, np.ndarray)
    assert gray.shape == (48, 64, 1)
    with pytest.raises(FileNotFoundError):
        open_pixels(tmp_path / "none.jpg")


def test_a_truncated_file_is_replaced_as_its_views_are_made(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        photograph(1, 300, 200).save(tmp_path / name)
    content = (tmp_path / "b.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(OSError, match=r"b\.jpg"):
        opened(tmp_path / "b.jpg").part((0, 0, 200, 300), (20, 20))
    (tmp_path / "train.csv").write_text("image_path,color\na.jpg,red\nb.jpg,blue\n")
    table = read_table(tmp_path / "train.csv")
    targets = encode_targets(table, build_label_space(table), strict=True)
    rows = TwoViewDataset(table, targets, plan_views(True))
    rows = rows.with_views(SimCLRView((24, 24), interpolation=[BILINEAR]), scaled=True)
    torch.manual_seed(0)
    view, target = rows[1]
    assert view.shape == (24, 24, 3)
    assert target.tolist() == [1]  # the class of the other row
    assert rows.unreadable.tolist() == [0, 1]
