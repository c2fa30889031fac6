"""Tables to loaders: what train.py, validate.py and inference.py share."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from runtime.errors import UsageError
from timm.data import create_loader, create_transform, resolve_data_config
from timm.data.byte_transforms import RandomCrop, from_pixels
from timm.data.device_view_ops import ImageStore
from timm.data.device_views import DeviceViewsLoader
from timm.data.draw_views import DrawViews, ResidentSizes, collate_drawn
from timm.data.mixed_sampler import MixedSampler
from timm.data.posterize import allow_black
from timm.data.random_erasing import RandomErasing
from timm.data.simclr_view import SimCLRView
from timm.data.transforms import RandomResizedCropAndInterpolation
from timm.data.two_view_dataset import TwoViewDataset
from timm.data.view_plan import Transform, ViewPlan

_logger = logging.getLogger(__name__)

DataConfig = dict[str, Any]

# A light view keeps most of the picture, so that what the heads read is what the attribute is about.
_LIGHT_SCALE = (0.5, 1.0)


def resolve_preprocessing(pretrained_cfg: Mapping[str, Any], overrides: Mapping[str, Any]) -> DataConfig:
    """Return timm's data config (input_size, interpolation, mean, std, crop_pct, crop_mode) as plain lists.

    Args:
        pretrained_cfg: the backbone's, or a checkpoint's saved config, which has the same keys.
        overrides: the command line's; None and empty values do not count.
    """
    given = {key: value for key, value in overrides.items() if value not in (None, "")}
    for key in ("mean", "std"):
        if key in given and len(given[key]) not in (1, 3):
            raise UsageError(f"--{key} takes one value or one for each channel, got {given[key]}")
    try:
        config = resolve_data_config(given, pretrained_cfg=dict(pretrained_cfg))
    except AssertionError as error:
        raise UsageError(f"--mean, --std and --input-size must have the same number of channels: {given}") from error
    channels = config["input_size"][0]
    for key in ("mean", "std"):
        if len(config[key]) != channels:  # a backbone's statistics are of colors: a gray image takes their average
            config[key] = (sum(config[key]) / len(config[key]),) * channels
    return {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}


def create_train_loader(
    dataset: TwoViewDataset,
    config: DataConfig,
    batch_size: int,
    augmentation: Mapping[str, Any],
    running: Mapping[str, Any],
    simclr_policy: Mapping[str, Any] | None = None,
    device_cache: tuple[ImageStore, ResidentSizes] | None = None,
    on_device: bool = False,
    mixed: MixedSampler | None = None,
) -> Any:
    """Return timm's training loader: batches [V*B, C, H, W] of the dataset's plan and targets [B, C].

    Args:
        dataset: with a view plan.
        config: of `resolve_preprocessing`.
        batch_size: images per process.
        augmentation: create_loader's arguments about augmentation.
        running: create_loader's arguments about workers, device and processes.
        simclr_policy: `strength` and `keep_color` of SimCLR's views, in place of timm's; None keeps timm's.
        device_cache: the images, where `load_resident` has put them on the device.
        on_device: make the views on the device; needs SimCLR's and the prefetcher.
        mixed: the order of rows where unlabeled images are mixed into each batch.

    Raises:
        UsageError: the table is smaller than one batch.
    """
    assert dataset.plan is not None
    views = len(dataset.plan)
    prefetched = running["use_prefetcher"]
    size = tuple(config["input_size"])
    allow_black()
    if "light" in dataset.plan.kinds:
        dataset.light_transform = _light_transform(config, augmentation, prefetched)
    full = None if simclr_policy is None else _simclr_view(size[1:], augmentation, simclr_policy)
    dataset.full_view = full
    if on_device:
        assert full is not None
        light = _simclr_view(size[1:], {**augmentation, "scale": _LIGHT_SCALE}, {"distort": False})
        dataset.draws = DrawViews(dataset.plan, full, light, device_cache and device_cache[1])
    loader = create_loader(
        dataset,  # type: ignore[arg-type]  # any map-style dataset with a transform will do
        size,
        batch_size,
        is_training=True,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        collate_fn=collate_drawn if on_device else collate_bytes if prefetched else collate_views,
        # Workers start anew each epoch, so that their random numbers follow from the epoch and a resumed run draws
        # what the uninterrupted one would.
        persistent_workers=False,
        **augmentation,
        **running,
    )
    if mixed is not None:
        loader = _in_order(loader, mixed, batch_size + mixed.extra)
    if not len(loader):
        rows = len(mixed.labeled) // mixed.processes if mixed else len(loader.sampler)
        kind = "labeled rows" if mixed else "rows"
        raise UsageError(
            f"{dataset.table.path} has {rows} {kind} for each process, fewer than one batch: lower "
            f"--batch-size ({batch_size})"
        )
    if prefetched:
        _normalize_in_rows(loader, size[2])
    if prefetched and loader.random_erasing is not None and "light" in dataset.plan.kinds:
        loader.random_erasing = LightViewsSpared(loader.random_erasing, dataset.plan)
    elif prefetched and loader.random_erasing is not None and augmentation.get("re_split"):
        # timm counts AugMix's splits; here any views share the batch, and the first of them stays whole.
        loader.random_erasing = RandomErasing(
            probability=augmentation["re_prob"],
            mode=augmentation["re_mode"],
            max_count=augmentation["re_count"],
            num_splits=max(views, 2),
            device=running["device"],
        )
    if on_device and full is not None:
        return DeviceViewsLoader(loader, full, device_cache and device_cache[0])
    return loader


def _in_order(loader: Any, sampler: MixedSampler, batch_size: int) -> Any:
    """Return a loader of timm's with another order of rows."""
    theirs = getattr(loader, "loader", loader)
    ours = type(theirs)(
        theirs.dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=theirs.num_workers,
        collate_fn=theirs.collate_fn,
        pin_memory=theirs.pin_memory,
        drop_last=True,
        worker_init_fn=theirs.worker_init_fn,
    )
    if theirs is loader:
        return ours
    loader.loader = ours
    return loader


def in_rows(statistic: Tensor, width: int) -> Tensor:
    """Return a statistic of each channel [1, C, 1, 1] as one of each number in a row, [1, C, 1, W], channels last.

    With images whose channels are last, too, the row's numbers lie side by side in both, which torch computes in
    vectors: several times as fast as a loop over three channels.
    """
    return statistic.expand(1, -1, 1, width).contiguous(memory_format=torch.channels_last)


def _normalize_in_rows(loader: Any, width: int) -> None:
    loader.mean, loader.std = in_rows(loader.mean, width), in_rows(loader.std, width)


class LightViewsSpared:
    """Erases in the full views of a batch [V*B, C, H, W] alone, in place; light ones, which come first, stay whole."""

    def __init__(self, erasing: RandomErasing, plan: ViewPlan) -> None:
        self.erasing = erasing
        self.share = plan.kinds.count("light"), len(plan)

    def __call__(self, images: Tensor) -> Tensor:
        """Erase, and return the batch."""
        light, views = self.share
        self.erasing(images[len(images) // views * light :])
        return images


def create_eval_loader(dataset: Dataset[Any], config: DataConfig, batch_size: int, running: Mapping[str, Any]) -> Any:
    """Return timm's evaluation loader: every row once and in order, on several processes padded at the end."""
    loader = create_loader(
        dataset,  # type: ignore[arg-type]  # as above
        tuple(config["input_size"]),
        batch_size,
        is_training=False,
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
        collate_fn=collate_bytes if running["use_prefetcher"] else None,
        persistent_workers=False,
        **running,
    )
    if running["use_prefetcher"]:
        _normalize_in_rows(loader, config["input_size"][2])
    return loader


def collate_bytes(batch: Sequence[tuple[Any, Tensor]]) -> tuple[Tensor, Tensor]:
    """Batch views uint8 [C, H, W] as timm's fast_collate does, but with the channels last in memory, as images are.

    Returns:
        uint8 [V*B, C, H, W], view 0 first, and the targets [B, ...].
    """
    views = [images if isinstance(images, tuple) else (images,) for images, _ in batch]
    ordered = [image.permute(1, 2, 0) for view in zip(*views, strict=True) for image in view]
    return torch.stack(ordered).permute(0, 3, 1, 2), default_collate([target for _, target in batch])


def collate_views(batch: Sequence[tuple[Any, Tensor]]) -> tuple[Tensor, Tensor]:
    """Batch float views: [V*B, C, H, W], view 0 first, and the targets [B, C]."""
    images, targets = default_collate(list(batch))
    return (images if isinstance(images, Tensor) else torch.cat(list(images))), targets


def usable_workers(asked: int, processes: int = 1) -> int:
    """Return the number of loader workers: what is asked for, but no more than this machine has CPUs for them."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = max(1, cpus // processes)
    if asked > most:
        _logger.info("--workers %d: %d CPUs for each process here, so %d workers", asked, most, most)
    return min(asked, most)


def _simclr_view(size: tuple[int, int], augmentation: Mapping[str, Any], policy: Mapping[str, Any]) -> SimCLRView:
    """SimCLR's policy, with timm's flags for crops and flips."""
    crop = RandomCrop(RandomResizedCropAndInterpolation(size, interpolation=augmentation["interpolation"]))
    return SimCLRView(
        size,
        interpolation=crop.interpolation,
        scale=tuple(augmentation["scale"]),
        ratio=tuple(augmentation["ratio"]),
        hflip=augmentation["hflip"],
        vflip=augmentation["vflip"],
        **policy,
    )


def _light_transform(config: DataConfig, augmentation: Mapping[str, Any], prefetched: bool) -> Transform:
    """Crop and flip, nothing that changes a color."""
    transform = create_transform(
        tuple(config["input_size"]),
        is_training=True,
        no_aug=augmentation["no_aug"],
        scale=_LIGHT_SCALE,
        ratio=augmentation.get("ratio"),
        hflip=augmentation["hflip"],
        vflip=augmentation["vflip"],
        color_jitter=None,  # type: ignore[arg-type]  # timm checks for it
        interpolation=augmentation["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        use_prefetcher=prefetched,
    )
    light: Transform = from_pixels(transform)
    return light
