"""From a table to batches: their layout, their random numbers, and their pixels against Pillow's."""

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from distributed import run_on_processes
from PIL import Image
from table_files import draw_catalog
from torch import Tensor
from torch.utils.data import default_collate

from catalog.decode import as_image
from catalog.table import read_table
from runtime.errors import UsageError
from runtime.random_state import seed_all
from timm.data.collate import collate_views
from timm.data.multi_label_loader import (
    LoaderSettings,
    ViewSource,
    create_eval_loader,
    create_train_loader,
    usable_workers,
)
from timm.data.preprocessing import resolve_preprocessing
from timm.data.two_view_dataset import TwoViewDataset
from timm.data.view_maker import Augmentation
from timm.data.view_plan import ViewPlan, plan_views

Batch = tuple[Tensor, Tensor]

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
BACKBONE = {
    "input_size": (3, 160, 160),
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_pct": 0.95,
    "crop_mode": "squash",
    "url": "elsewhere",
}
CONFIG = resolve_preprocessing(BACKBONE, {"input_size": (3, 8, 8), "mean": MEAN, "std": STD, "crop_pct": 1.0})
# The whole picture with its own colors.
AUGMENTATION = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "hflip": 0.0, "color_jitter": 0.0}
RANDOM = {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3), "hflip": 0.5, "color_jitter": 0.4, "interpolation": "random"}

ONE, TWO = plan_views(contrast=False), plan_views(contrast=True)
THREE = plan_views(contrast=True, mixing=True)
WEAK = plan_views(contrast=True, classify_view="weak")
SPLITS = plan_views(contrast=True, aug_splits=3)
AUGMIX = {"num_aug_splits": 3, "auto_augment": "augmix-m9-w3"}


def _plain(row: int) -> Image.Image:
    """Draw a picture of one color, which no crop changes and which identifies the row."""
    return Image.new("RGB", (16, 16), (10 * row, 255 - 10 * row, 7))


def _gradient(row: int) -> Image.Image:
    """Draw the same picture in every row; its pixels show their place: red is x, green is y."""
    y, x = np.mgrid[:64, :64].astype(np.uint8) * 4
    return Image.fromarray(np.stack([x, y, np.full_like(x, 90)], axis=-1))


def _quarters(row: int) -> Image.Image:
    """Draw a picture twice as high as wide, in four colors."""
    picture = Image.new("RGB", (16, 32), (250, 250, 240))
    for place, color in (((0, 0), (200, 10, 20 * row)), ((8, 8), (10, 200, 90)), ((0, 20), (30, 60, 220))):
        picture.paste(color, (*place, place[0] + 8, place[1] + 12))
    return picture


def _table(folder: Path, draw: Callable[[int], Image.Image] = _plain, rows: int = 12) -> Path:
    """Draw pictures and write their table."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "train.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["image_path", "kind"])
        for row in range(rows):
            draw(row).save(folder / f"images/{row}.png")
            lines.writerow([f"images/{row}.png", "ab"[row % 2]])
    return folder / "train.csv"


def _dataset(path: Path, plan: ViewPlan | None, channels: int = 3) -> TwoViewDataset:
    """Read a table; its targets are the row's number and its parity."""
    table = read_table(path)
    rows = np.arange(len(table))
    return TwoViewDataset(table, np.stack([rows, rows % 2], axis=1), plan, channels)


def _train(
    path: Path,
    plan: ViewPlan = TWO,
    batch_size: int = 4,
    augmentation: dict[str, Any] | None = None,
    config: dict[str, Any] = CONFIG,
    **settings: Any,
) -> Any:
    dataset = _dataset(path, plan, config["input_size"][0])
    source = ViewSource(Augmentation(**AUGMENTATION | (augmentation or {})))
    return create_train_loader(dataset, config, batch_size, source, LoaderSettings(**settings))


def _epoch(loader: Any, epoch: int = 0, seed: int = 42) -> list[Batch]:
    """Return an epoch's batches, drawn as in train.py's loop."""
    seed_all(seed, 0, epoch)
    return list(loader)


def _shades(images: Tensor, config: dict[str, Any] = CONFIG) -> Tensor:
    """Undo the normalization: 0-255."""
    mean, std = (torch.tensor(config[key]).view(-1, 1, 1) for key in ("mean", "std"))
    return (images * std + mean) * 255


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def _equal(first: Sequence[Batch], second: Sequence[Batch]) -> bool:
    return all(torch.equal(x, y) for a, b in zip(first, second, strict=True) for x, y in zip(a, b, strict=True))


def _distinct(views: Tensor) -> int:
    return len({view.numpy().tobytes() for view in views})


@pytest.mark.parametrize("prefetcher", [True, False])
@pytest.mark.parametrize("crop_mode", ["center", "border"])
def test_gray_images_take_the_average_of_the_backbones_statistics(
    tmp_path: Path, prefetcher: bool, crop_mode: str
) -> None:
    gray = resolve_preprocessing(BACKBONE, {"input_size": (1, 8, 8), "crop_mode": crop_mode, "crop_pct": 1.0})
    assert gray["mean"] == [pytest.approx((0.485 + 0.456 + 0.406) / 3)]
    assert gray["std"] == [pytest.approx((0.229 + 0.224 + 0.225) / 3)]
    path = _table(tmp_path)
    settings = LoaderSettings(use_prefetcher=prefetcher)
    images, _ = next(iter(create_eval_loader(_dataset(path, None, 1), gray, 12, settings)))
    for row in range(12):
        shade = _plain(row).convert("L").getpixel((0, 0))
        torch.testing.assert_close(_shades(images[row], gray), torch.full((1, 8, 8), float(shade)), atol=1e-3, rtol=0)
    assert next(iter(_train(path, config=gray, use_prefetcher=prefetcher)))[0].shape == (8, 1, 8, 8)


# Training: layout


@pytest.mark.parametrize("prefetcher", [True, False])
@pytest.mark.parametrize(
    ("plan", "splits", "workers"), [(ONE, 0, 0), (TWO, 0, 0), (TWO, 0, 2), (WEAK, 0, 0), (SPLITS, 3, 0)]
)
def test_a_batch_holds_view_0_of_every_image_then_view_1_and_a_target_for_each_image(
    tmp_path: Path, plan: ViewPlan, splits: int, workers: int, prefetcher: bool
) -> None:
    options = {"num_workers": usable_workers(workers), "use_prefetcher": prefetcher}
    options |= {"augmentation": {"num_aug_splits": splits}}
    loader = _train(_table(tmp_path), plan, batch_size=5, **options)
    views, seen = len(plan), []
    assert len(loader) == 2
    for images, target in _epoch(loader):
        assert images.shape == (views * 5, 3, 8, 8)
        assert images.dtype == torch.float32
        assert (target.shape, target.dtype) == ((5, 2), torch.int64)
        rows = target[:, 0]
        assert torch.equal(target, torch.stack([rows, rows % 2], dim=1))
        for position, picture in enumerate(_shades(images)):
            expected = _pixels(_plain(int(rows[position % 5])).resize((8, 8)))
            torch.testing.assert_close(picture, expected, atol=1e-3, rtol=0)
        seen += rows.tolist()
    assert len(set(seen)) == 10  # no row twice; the two that fill no batch wait for the next epoch


@pytest.mark.parametrize(
    ("plan", "augmentation"), [(ONE, {}), (TWO, {}), (THREE, {}), (WEAK, {}), (SPLITS, AUGMIX), (ONE, {"no_aug": True})]
)
def test_with_and_without_the_prefetcher_the_same_seed_gives_the_same_batches(
    tmp_path: Path, plan: ViewPlan, augmentation: dict[str, Any]
) -> None:
    path = draw_catalog(tmp_path / "catalog", train=10, val=1) / "train.csv"
    both = [_epoch(_train(path, plan, augmentation=RANDOM | augmentation, use_prefetcher=use)) for use in (True, False)]
    for (images, target), (plain_images, plain_target) in zip(*both, strict=True):
        torch.testing.assert_close(images, plain_images, atol=1e-5, rtol=0)
        assert torch.equal(target, plain_target)
    shades = _shades(torch.cat([images for images, _ in both[1]]))
    assert -1e-3 < shades.min() < 60
    assert 200 < shades.max() < 255 + 1e-3


def test_the_prefetcher_gives_images_in_the_models_number_format(tmp_path: Path) -> None:
    images, _ = next(iter(_train(_table(tmp_path), img_dtype=torch.bfloat16)))
    assert images.dtype is torch.bfloat16


def test_collating_leaves_a_single_view_and_its_labels_alone() -> None:
    batch = [(torch.full((3, 2, 2), float(row)), torch.tensor([row, -100])) for row in range(4)]
    for found, expected in zip(collate_views(batch), default_collate(batch), strict=True):
        assert torch.equal(found, expected)


# Training: random numbers


@pytest.mark.parametrize("workers", [0, 2])
def test_all_views_of_an_image_a_batch_a_worker_and_an_epoch_differ(tmp_path: Path, workers: int) -> None:
    path = _table(tmp_path, _gradient)
    crops = RANDOM | {"hflip": 0.0, "color_jitter": None, "interpolation": "bilinear"}
    loader = _train(path, batch_size=3, augmentation=crops, num_workers=usable_workers(workers))
    views = torch.cat([images for epoch in range(3) for images, _ in _epoch(loader, epoch)])
    assert _distinct(views) == len(views) == 3 * 12 * 2


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("augmentation", [RANDOM, RANDOM | AUGMIX])
def test_a_run_that_starts_at_an_epoch_draws_what_an_uninterrupted_run_draws(
    tmp_path: Path, augmentation: dict[str, Any], workers: int
) -> None:
    path = draw_catalog(tmp_path / "catalog", train=9, val=1) / "train.csv"
    plan = SPLITS if "auto_augment" in augmentation else TWO
    options = {"augmentation": augmentation, "num_workers": usable_workers(workers)}
    loader = _train(path, plan, **options)
    epochs = [_epoch(loader, epoch) for epoch in range(3)]
    assert _equal(_epoch(_train(path, plan, **options), 2), epochs[2])
    assert _equal(_epoch(loader, 1), epochs[1])
    assert not _equal(epochs[1], epochs[2])
    assert not _equal(_epoch(loader, 1, seed=43), epochs[1])


def test_each_epoch_has_another_order(tmp_path: Path) -> None:
    loader = _train(_table(tmp_path))
    orders = [tuple(torch.cat([target[:, 0] for _, target in _epoch(loader, epoch)]).tolist()) for epoch in range(3)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({*orders, tuple(range(12))}) == 4


# Training: what each view is


def test_the_light_view_keeps_the_colors_that_the_full_views_lose(tmp_path: Path) -> None:
    path = _table(tmp_path)
    images, target = next(iter(_train(path, WEAK, augmentation={"grayscale_prob": 1.0, "color_jitter": 0.4})))
    for row, picture in zip(target[:, 0].tolist(), _shades(images[:4]), strict=True):
        torch.testing.assert_close(picture, _pixels(_plain(row).resize((8, 8))), atol=1e-3, rtol=0)
    red, green, blue = _shades(images[4:]).unbind(1)
    torch.testing.assert_close(red, green, atol=1e-3, rtol=0)
    torch.testing.assert_close(red, blue, atol=1e-3, rtol=0)


def test_the_light_view_shows_half_the_picture_or_more_and_takes_part_in_flips(tmp_path: Path) -> None:
    crops = {"scale": (0.08, 0.1), "ratio": (3 / 4, 4 / 3), "hflip": 0.5, "vflip": 0.5}
    images = torch.cat([view for view, _ in _epoch(_train(_table(tmp_path, _gradient), WEAK, 12, crops))])
    red, green = _shades(images).flatten(2)[:, :2].unbind(1)
    # The centers of 8 pixels span 7/8 of a crop's side, over which the shade grows by 4 for each of 64 pixels.
    area = ((red.amax(1) - red.amin(1)) * (green.amax(1) - green.amin(1))) / (256 * 7 / 8) ** 2
    assert area[:12].min() > 0.45
    assert area[12:].max() < 0.15
    corners = _shades(images[:12])[:, :2]
    flipped = torch.stack([corners[:, 0, 0, 0] > corners[:, 0, 0, 7], corners[:, 1, 0, 0] > corners[:, 1, 7, 0]])
    assert flipped.any(dim=1).all()
    assert not flipped.all(dim=1).any()


def test_augmixs_first_split_is_clean_and_the_others_are_not(tmp_path: Path) -> None:
    path = draw_catalog(tmp_path / "catalog", train=8, val=1) / "train.csv"
    for picture in path.parent.glob("images/*"):
        with Image.open(picture) as image:
            square = image.resize((16, 16))
        square.save(picture)
    plan = plan_views(contrast=False, aug_splits=3)
    loader = _train(path, plan, 8, AUGMIX)
    images, _ = next(iter(loader))
    expected = torch.stack(
        [_pixels(as_image(loader.dataset.load(row)).resize((8, 8), Image.Resampling.BILINEAR)) for row in range(8)]
    )
    clean, *others = _shades(images).split(8)
    order = [int((expected - picture).abs().amax((1, 2, 3)).argmin()) for picture in clean]
    assert sorted(order) == list(range(8))
    torch.testing.assert_close(clean, expected[order], atol=1e-3, rtol=0)
    for split in others:
        assert ((split - clean).abs().amax((1, 2, 3)) > 2).sum() >= 6


@pytest.mark.parametrize(
    ("plan", "augmentation"), [(ONE, {}), (TWO, {}), (THREE, {}), (SPLITS, AUGMIX | {"auto_augment": None})]
)
@pytest.mark.parametrize("re_split", [True, False])
def test_erasing_with_resplit_spares_the_first_view_and_no_other(
    tmp_path: Path, plan: ViewPlan, augmentation: dict[str, Any], re_split: bool
) -> None:
    erase = augmentation | {"re_prob": 1.0, "re_mode": "const", "re_count": 3, "re_split": re_split}
    (images, _), *_ = _epoch(_train(_table(tmp_path), plan, 6, erase))
    erased = (images == 0).all(dim=1).flatten(1).any(dim=1)  # a rectangle is filled with the mean, which no picture has
    whole = 6 if len(plan) > 1 else 3  # with one view, half of the batch
    assert erased.tolist() == [not re_split or position >= whole for position in range(6 * len(plan))]


@pytest.mark.parametrize("prefetcher", [True, False])
def test_erasing_spares_the_light_view(tmp_path: Path, prefetcher: bool) -> None:
    erase = {"re_prob": 1.0, "re_mode": "const", "re_count": 3}
    (images, _), *_ = _epoch(_train(_table(tmp_path), WEAK, 6, erase, use_prefetcher=prefetcher))
    erased = (images == 0).all(dim=1).flatten(1).any(dim=1)
    assert erased.tolist() == [position >= 6 for position in range(18)]


@pytest.mark.parametrize("prefetcher", [True, False])
def test_nothing_is_erased_by_default(tmp_path: Path, prefetcher: bool) -> None:
    for probability, expected in ((0.0, 0), (1.0, 8)):
        augmentation = {"re_prob": probability}
        images, _ = next(iter(_train(_table(tmp_path), augmentation=augmentation, use_prefetcher=prefetcher)))
        assert (images == 0).all(dim=1).flatten(1).any(dim=1).sum() == expected


# Training: how many


def test_a_table_smaller_than_a_batch_is_refused(tmp_path: Path) -> None:
    path = _table(tmp_path, rows=9)
    assert len(_train(path, batch_size=9)) == 1
    for options in ({}, {"use_prefetcher": False}, {"use_multi_epochs_loader": True}):
        with pytest.raises(UsageError, match=r"train.csv has 9 rows .*fewer than batch_size 10: lower batch_size"):
            _train(path, batch_size=10, **options)


def _rows_of_share(path: Path, batch_size: int, repeats: int) -> list[int] | str:
    """Return the rows that this process trains on in epoch 1, or why it refuses to."""
    dist.barrier()  # else one might be done while another still joins
    try:
        loader = _train(path, ONE, batch_size, distributed=True, num_aug_repeats=repeats)
    except UsageError as error:
        return str(error)
    loader.sampler.set_epoch(1)
    return [row for _, target in _epoch(loader, 1) for row in target[:, 0].tolist()]


def test_several_processes_share_the_rows_and_each_needs_a_batch(tmp_path: Path) -> None:
    path = _table(tmp_path)
    first, second = run_on_processes(2, _rows_of_share, path, 3, 0)
    assert sorted([*first, *second]) == list(range(12))
    for refusal in run_on_processes(2, _rows_of_share, path, 7, 0):
        assert "6 rows for each process" in refusal


def test_repeats_show_each_picture_to_several_processes_and_each_needs_a_batch(tmp_path: Path) -> None:
    path = _table(tmp_path)
    first, second = run_on_processes(2, _rows_of_share, path, 3, 2)
    assert first == second
    assert len(set(first)) == 6
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *(lines * 25)]) + "\n")
    for refusal in run_on_processes(2, _rows_of_share, path, 140, 2):  # they take 256 of 300 rows
        assert "128 rows for each process" in refusal


@pytest.mark.parametrize(
    ("asked", "processes", "given"), [(0, 1, 0), (3, 1, 3), (8, 1, 8), (9, 1, 8), (8, 2, 4), (8, 3, 2), (8, 20, 1)]
)
def test_no_more_workers_than_cpus_for_each_process(
    monkeypatch: pytest.MonkeyPatch, asked: int, processes: int, given: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert usable_workers(asked, processes) == given


def test_without_an_affinity_all_cpus_of_the_system_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for cpus, given in ((4, 4), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda cpus=cpus: cpus)
        assert usable_workers(16) == given


# Evaluation


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("prefetcher", [True, False])
def test_evaluation_sees_every_row_once_and_in_order(tmp_path: Path, prefetcher: bool, workers: int) -> None:
    settings = LoaderSettings(use_prefetcher=prefetcher, num_workers=usable_workers(workers))
    loader = create_eval_loader(_dataset(_table(tmp_path), None), CONFIG, 5, settings)
    for _ in range(2):
        batches = list(loader)
        assert [len(images) for images, _ in batches] == [5, 5, 2]
        images, target = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert target.tolist() == [[row, row % 2] for row in range(12)]
        expected = torch.stack([_pixels(_plain(row).resize((8, 8))) for row in range(12)])
        torch.testing.assert_close(_shades(images), expected, atol=1e-3, rtol=0)


def _share(path: Path) -> tuple[list[int], int]:
    """Return the rows that this process scores, and how many of them are no padding."""
    dist.barrier()  # as above
    loader = create_eval_loader(_dataset(path, None), CONFIG, 2, LoaderSettings(distributed=True))
    return [row for _, target in loader for row in target[:, 0].tolist()], loader.sampler.num_valid_samples


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_share_the_rows_in_order_and_pad_the_end(tmp_path: Path, processes: int) -> None:
    path = _table(tmp_path, rows=11)
    for rank, (rows, valid) in enumerate(run_on_processes(processes, _share, path)):
        assert rows[:valid] == list(range(rank, 11, processes))
        assert len(rows) == -(-11 // processes)


@pytest.mark.parametrize("prefetcher", [True, False])
@pytest.mark.parametrize(
    ("crop_mode", "crop_pct", "resized", "box"),
    [
        ("center", 1.0, (8, 16), (0, 4, 8, 12)),
        ("center", 0.5, (16, 32), (4, 12, 12, 20)),
        ("squash", 1.0, (8, 8), (0, 0, 8, 8)),
        ("squash", 0.8, (10, 10), (1, 1, 9, 9)),
    ],
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_evaluation_crops_and_resizes_as_the_config_says(
    tmp_path: Path,
    crop_mode: str,
    crop_pct: float,
    resized: tuple[int, int],
    box: Any,
    interpolation: str,
    prefetcher: bool,
) -> None:
    config = CONFIG | {"crop_mode": crop_mode, "crop_pct": crop_pct, "interpolation": interpolation}
    loader = create_eval_loader(
        _dataset(_table(tmp_path, _quarters, 3), None), config, 3, LoaderSettings(use_prefetcher=prefetcher)
    )
    images, _ = next(iter(loader))
    for row in range(3):
        picture = _quarters(row).resize(resized, Image.Resampling[interpolation.upper()]).crop(box)
        torch.testing.assert_close(_shades(images[row]), _pixels(picture), atol=1e-3, rtol=0)
