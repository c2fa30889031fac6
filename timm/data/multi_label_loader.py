"""Loaders of a table's images: torch's DataLoader, with timm's samplers, worker seeding and prefetching."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from runtime.errors import UsageError
from timm.data.collate import collate_bytes, collate_views
from timm.data.device_view_ops import ImageStore
from timm.data.device_views import CachedSizes, DeviceViewsLoader, DrawViews, collate_drawn
from timm.data.distributed_sampler import OrderedDistributedSampler, RepeatAugSampler
from timm.data.loader import MultiEpochsDataLoader
from timm.data.loader_workers import start_worker
from timm.data.mixed_sampler import MixedSampler
from timm.data.prefetch_loader import RowPrefetchLoader, make_erasing
from timm.data.preprocessing import DataConfig
from timm.data.shared_memory import fitting_prefetch
from timm.data.two_view_dataset import TwoViewDataset
from timm.data.view_maker import Augmentation, ViewMaker, evaluation_view, simclr_view, training_views

_CPU = torch.device("cpu")
_SAMPLE = 16  # images that are decoded to estimate the size of all


@dataclass(frozen=True)
class LoaderSettings:
    """How a loader works.

    Attributes:
        num_workers: processes that load; 0 loads in this one.
        distributed: share the rows with the other ranks.
        pin_memory: keep batches in memory that a GPU reads directly.
        device: where the prefetcher puts the batches.
        img_dtype: number format of the prefetched images.
        use_prefetcher: move and normalize batches ahead of time.
        worker_seeding: "all" seeds NumPy in the workers too, "part" leaves it as it is.
        use_multi_epochs_loader: keep the workers from epoch to epoch.
        num_aug_repeats: number of ranks that see each image in an epoch; 0 means one.
        sharers: number of loaders that work at the same time on this machine, and share its memory.
        first_row: row with which evaluation begins, of a single process.
    """

    num_workers: int = 0
    distributed: bool = False
    pin_memory: bool = False
    device: torch.device = _CPU
    img_dtype: torch.dtype = torch.float32
    use_prefetcher: bool = True
    worker_seeding: str = "all"
    use_multi_epochs_loader: bool = False
    num_aug_repeats: int = 0
    sharers: int = 1
    first_row: int = 0


@dataclass(frozen=True)
class ViewSource:
    """Where the views of training images come from.

    Attributes:
        augmentation: timm's augmentation.
        simclr_policy: `strength` and `keep_color` of SimCLR's views; None uses timm's augmentation.
        on_device: make the views on the device; needs SimCLR's views and the prefetcher.
        scaled: decode JPEGs no larger than the views need; needs random resized crops, made by the workers.
        device_cache: the decoded images and their sizes, where `load_onto_device` has put them on the device.
    """

    augmentation: Augmentation
    simclr_policy: dict[str, Any] | None = None
    on_device: bool = False
    scaled: bool = False
    device_cache: tuple[ImageStore, CachedSizes] | None = None


class ImageRows(Protocol):
    """A dataset whose maker of views can be replaced."""

    def with_views(self, views: ViewMaker) -> Dataset[Any]:
        """Return the same rows with another maker of views."""
        ...


def create_train_loader(
    dataset: TwoViewDataset,
    config: DataConfig,
    batch_size: int,
    source: ViewSource,
    settings: LoaderSettings,
    mixed: MixedSampler | None = None,
) -> Any:
    """Return the training loader: batches [V*B, C, H, W] of the dataset's plan and targets [B, C].

    Args:
        dataset: training images, with a view plan.
        config: preprocessing of the model's images.
        batch_size: images per batch, on each process.
        source: where the views come from.
        settings: how the loader works.
        mixed: sampler that mixes unlabeled images into each batch; None for the rows in random order.

    Raises:
        UsageError: the table is smaller than one batch.
    """
    assert dataset.plan is not None
    if source.on_device:
        return _create_device_loader(dataset, config, batch_size, source, settings, mixed)
    views = training_views(dataset.plan, config, source.augmentation, settings.use_prefetcher, source.simclr_policy)
    collate = collate_bytes if settings.use_prefetcher else collate_views
    row_bytes = len(dataset.plan) * _image_bytes(config, settings)
    rows = dataset.with_views(views, scaled=source.scaled)
    loader = _training_batches(rows, batch_size, collate, settings, mixed, row_bytes)
    if not settings.use_prefetcher:
        return loader
    erasing = make_erasing(source.augmentation, dataset.plan, settings.device)
    return RowPrefetchLoader(loader, config, settings.device, settings.img_dtype, erasing)


def create_eval_loader(dataset: ImageRows, config: DataConfig, batch_size: int, settings: LoaderSettings) -> Any:
    """Return the evaluation loader: each row once, in order; with several processes, the end is padded."""
    rows: Any = dataset.with_views(evaluation_view(config, settings.use_prefetcher))
    sampler: Any = OrderedDistributedSampler(rows) if settings.distributed else None
    if settings.first_row:
        sampler = range(settings.first_row, len(rows))
    loader = _torch_loader(
        rows,
        batch_size,
        settings,
        _image_bytes(config, settings),
        sampler=sampler,
        collate_fn=collate_bytes if settings.use_prefetcher else None,
    )
    if not settings.use_prefetcher:
        return loader
    return RowPrefetchLoader(loader, config, settings.device, settings.img_dtype)


def _create_device_loader(
    dataset: TwoViewDataset,
    config: DataConfig,
    batch_size: int,
    source: ViewSource,
    settings: LoaderSettings,
    mixed: MixedSampler | None,
) -> DeviceViewsLoader:
    """Return the training loader whose views the device makes."""
    assert dataset.plan is not None
    assert source.simclr_policy is not None
    images, sizes = source.device_cache or (None, None)
    full = simclr_view(config, source.augmentation, source.simclr_policy)
    light = simclr_view(config, source.augmentation, {"distort": False}, light=True)
    rows = dataset.with_views(DrawViews(dataset.plan, full, light), sizes)
    row_bytes = _decoded_bytes(dataset) if sizes is None and settings.num_workers else 0
    loader = _training_batches(rows, batch_size, collate_drawn, settings, mixed, row_bytes)
    erasing = make_erasing(source.augmentation, dataset.plan, settings.device)
    return DeviceViewsLoader(loader, config, settings.device, settings.img_dtype, erasing, view=full, images=images)


def _training_batches(
    dataset: TwoViewDataset,
    batch_size: int,
    collate: Any,
    settings: LoaderSettings,
    mixed: MixedSampler | None,
    row_bytes: int,
) -> DataLoader[Any]:
    """Return torch's loader of full training batches, in the order of a sampler; `row_bytes` is the size of a row.

    Raises:
        UsageError: there is no full batch.
    """
    sampler: Any = mixed
    if mixed is None and settings.distributed:
        repeats = settings.num_aug_repeats
        sampler = RepeatAugSampler(dataset, num_repeats=repeats) if repeats else DistributedSampler(dataset)
    loader = _torch_loader(
        dataset,
        batch_size + (mixed.extra if mixed is not None else 0),
        settings,
        row_bytes,
        sampler=sampler,
        shuffle=sampler is None,
        collate_fn=collate,
        drop_last=True,
    )
    if not len(loader):
        rows = len(mixed.labeled) // mixed.processes if mixed else len(loader.sampler)  # type: ignore[arg-type]
        kind = "labeled rows" if mixed else "rows"
        raise UsageError(
            f"{dataset.table.path} has {rows} {kind} for each process, fewer than batch_size {batch_size}: "
            "lower batch_size"
        )
    return loader


def _image_bytes(config: DataConfig, settings: LoaderSettings) -> int:
    """Return the size of an image that a worker sends: bytes for the prefetcher, else float32."""
    return math.prod(config["input_size"]) * (1 if settings.use_prefetcher else 4)


def _decoded_bytes(dataset: TwoViewDataset) -> int:
    """Return the size of the larger ones of a table's decoded images, which workers send whole."""
    sizes = [0]
    for row in range(0, len(dataset), math.ceil(len(dataset) / _SAMPLE)):
        with suppress(OSError):  # an unreadable image
            sizes.append(dataset.decode(row).nbytes)
    return sorted(sizes)[-max(1, len(sizes) // 4)]


def _torch_loader(
    dataset: Any, batch_size: int, settings: LoaderSettings, row_bytes: int, **options: Any
) -> DataLoader[Any]:
    """Return torch's loader with timm's seeding of workers, as many as shared memory has room for.

    Workers start anew each epoch, unless the loader keeps them. Their random numbers then follow from the epoch, and a
    resumed run draws what the uninterrupted run would.
    """
    kind = MultiEpochsDataLoader if settings.use_multi_epochs_loader else DataLoader
    prefetch = fitting_prefetch(settings.num_workers, batch_size * row_bytes, settings.sharers)
    return kind(
        dataset,
        batch_size=batch_size,
        num_workers=prefetch.workers,
        prefetch_factor=prefetch.ahead if prefetch.workers else None,
        pin_memory=settings.pin_memory,
        worker_init_fn=partial(start_worker, seeding=settings.worker_seeding),
        **options,
    )


def usable_workers(asked: int, processes: int = 1) -> int:
    """Return the number of loader workers: `asked`, or the CPUs of this machine for each process if these are fewer."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(asked, max(1, cpus // processes))
