"""The picture of a batch: every pixel as it was before normalization, and each view in its place."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from catalog.label_space import UNKNOWN, LabelSpace
from training.view_sheet import GAP, LINE, LINES, view_sheet

CONFIG = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
HEIGHT, WIDTH = 5, 4  # pixels
SPACE = LabelSpace({"kind": ("shoe", "bag"), "color": ("red", "blue")})


def _pixels(views: int, images: int, channels: int = 3) -> Tensor:
    """Draw uint8 views [V, B, C, H, W]."""
    g = torch.Generator().manual_seed(views)
    return torch.randint(256, (views, images, channels, HEIGHT, WIDTH), generator=g, dtype=torch.uint8)


def _normalized(pixels: Tensor, config: dict[str, list[float]] = CONFIG) -> Tensor:
    """Return the batch [V*B, C, H, W] that a loader would make of views, view 0 first."""
    mean, std = (torch.tensor(config[key]).view(-1, 1, 1) for key in ("mean", "std"))
    return (pixels.flatten(0, 1) / 255 - mean) / std


def _read(path: Path) -> Tensor:
    """Return a PNG as [3, height, width]."""
    with Image.open(path) as sheet:
        assert sheet.mode == "RGB"
        return torch.from_numpy(np.array(sheet)).permute(2, 0, 1)


def _save(path: Path, images: Tensor, views: int, config: dict[str, list[float]] = CONFIG, label: int = 0) -> None:
    target = torch.full((len(images) // views, 2), label)
    view_sheet(images, target, [f"view {view}" for view in range(views)], config, SPACE.describe).save(path)


def _cell(sheet: Tensor, row: int, column: int) -> Tensor:
    top, left = LINE + GAP + row * (HEIGHT + GAP + 2 * LINE), GAP + column * (WIDTH + GAP)
    return sheet[:, top : top + HEIGHT, left : left + WIDTH]


@pytest.mark.parametrize(
    ("views", "images", "by_row"), [(1, 11, 8), (2, 6, 4), (3, 5, 2), (4, 3, 2), (5, 2, 1), (9, 2, 1)]
)
def test_an_images_views_stand_side_by_side_with_unchanged_pixels(
    tmp_path: Path, views: int, images: int, by_row: int
) -> None:
    pixels = _pixels(views, images)
    _save(tmp_path / "sheet.png", _normalized(pixels), views)
    sheet = _read(tmp_path / "sheet.png")
    columns = min(by_row, images) * views
    assert sheet.shape[2] == GAP + columns * (WIDTH + GAP)
    for image in range(images):
        for view in range(views):
            cell = _cell(sheet, image // by_row, image % by_row * views + view)
            assert torch.equal(cell, pixels[view, image]), f"image {image}, view {view}"


def test_only_the_first_sixteen_images_are_shown(tmp_path: Path) -> None:
    pixels = _pixels(2, 20)
    _save(tmp_path / "twenty.png", _normalized(pixels), 2)
    _save(tmp_path / "sixteen.png", _normalized(pixels[:, :16]), 2)
    assert torch.equal(_read(tmp_path / "twenty.png"), _read(tmp_path / "sixteen.png"))
    assert torch.equal(_cell(_read(tmp_path / "twenty.png"), 3, 7), pixels[1, 15])


def test_a_batch_may_be_channels_last_and_is_left_as_it_was(tmp_path: Path) -> None:
    pixels = _pixels(2, 6)
    images = _normalized(pixels).contiguous(memory_format=torch.channels_last)
    before = images.clone()
    _save(tmp_path / "sheet.png", images, 2)
    assert torch.equal(_cell(_read(tmp_path / "sheet.png"), 1, 3), pixels[1, 5])
    assert torch.equal(images, before)


def test_half_precision_costs_a_few_shades_not_the_picture(tmp_path: Path) -> None:
    pixels = _pixels(2, 6)
    _save(tmp_path / "sheet.png", _normalized(pixels).bfloat16(), 2)
    cell = _cell(_read(tmp_path / "sheet.png"), 0, 2)
    assert (cell.int() - pixels[0, 1].int()).abs().max() <= 2


def test_gray_images_are_shown_in_gray(tmp_path: Path) -> None:
    pixels, config = _pixels(2, 6, channels=1), {"mean": [0.4], "std": [0.2]}
    _save(tmp_path / "sheet.png", _normalized(pixels, config), 2, config)
    assert torch.equal(_cell(_read(tmp_path / "sheet.png"), 0, 2), pixels[0, 1].expand(3, -1, -1))


def test_values_beyond_black_and_white_are_clipped(tmp_path: Path) -> None:
    images = torch.stack([torch.full((3, HEIGHT, WIDTH), 50.0), torch.full((3, HEIGHT, WIDTH), -50.0)])
    _save(tmp_path / "sheet.png", images, 2)
    sheet = _read(tmp_path / "sheet.png")
    assert (_cell(sheet, 0, 0) == 255).all()
    assert (_cell(sheet, 0, 1) == 0).all()


def test_the_labels_stand_below_an_images_views_and_the_kinds_above(tmp_path: Path) -> None:
    pixels, sheets = torch.zeros(2, 3, 3, 40, 40), {}
    for label in (0, 1, UNKNOWN):
        _save(tmp_path / "sheet.png", _normalized(pixels), 2, label=label)
        sheets[label] = _read(tmp_path / "sheet.png").float()
    below = {label: sheet[:, LINE + GAP + 40 :] for label, sheet in sheets.items()}
    assert all(strip.max() > 200 for strip in below.values())
    assert not torch.equal(below[0], below[1])
    assert below[UNKNOWN].sum() < below[0].sum(), "a dash is less ink than a word"
    assert sheets[0][:, :LINE].max() > 200


def test_thousands_of_labels_leave_a_picture_that_can_be_saved_as_jpeg(tmp_path: Path) -> None:
    names = [f"attribute {number}" for number in range(20_000)]
    images, target = _normalized(_pixels(2, 16)), torch.zeros(16, 1, dtype=torch.int64)
    sheet = view_sheet(images, target, ["one", "two"], CONFIG, lambda row: names)
    sheet.save(tmp_path / "sheet.jpg")
    assert sheet.size[1] == LINE + GAP + 4 * (HEIGHT + GAP + LINES * LINE)
