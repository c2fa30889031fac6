"""The loaders of a run, and the caches of decoded images that they read."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from catalog.unlabeled import unlabeled_per_batch
from runtime.cache_folder import default_cache_folder
from runtime.errors import UsageError
from runtime.process import Process
from runtime.process_group import processes_here
from timm.data.device_cache import load_onto_device
from timm.data.device_view_ops import ImageStore
from timm.data.device_views import CachedSizes
from timm.data.mixed_sampler import MixedSampler
from timm.data.multi_label_loader import (
    LoaderSettings,
    ViewSource,
    create_eval_loader,
    create_train_loader,
    usable_workers,
)
from timm.data.neighbor_dataset import NeighborDataset
from timm.data.preprocessing import DataConfig
from timm.data.two_view_dataset import TwoViewDataset
from timm.data.view_maker import Augmentation
from training.flag_names import naming_flags
from training.shared_cache import cache_tables

_logger = logging.getLogger("train")


@dataclass(frozen=True)
class RunLoaderSettings:
    """How the loaders of a run work.

    Attributes:
        batch_size: images per training batch, on each process.
        eval_batch_size: images per evaluation batch, on each process.
        contrastive_batch_size: images contrasted together, on each process; None for one batch.
        workers: number of loader workers that the user asks for.
        loader: further fields of `LoaderSettings`, for all loaders.
        train_loader: further fields of `LoaderSettings`, for the training loader.
        augmentation: fields of `Augmentation`.
        simclr_policy: `strength` and `keep_color` of SimCLR's views; None uses timm's augmentation.
        views_on_device: make the training views on the device.
        scaled: decode the JPEGs of training images no larger than their views need.
        cache: where decoded images are kept: "none", "ram", "disk" or "device".
        cache_dir: folder of the caches on disk; None for the user's.
        unlabeled_ratio: unlabeled images per labeled image of a batch; 0 mixes none.
        reads_labels: whether any loss reads labels.
        neighbor_images: maximum number of training images in the k-NN index; 0 without an index.
        solves_heads: whether the heads are solved on the training images' features.
        seed: seed of the mixed order and of the index.
    """

    batch_size: int
    eval_batch_size: int
    contrastive_batch_size: int | None
    workers: int
    loader: Mapping[str, Any]
    train_loader: Mapping[str, Any]
    augmentation: Mapping[str, Any]
    simclr_policy: dict[str, Any] | None
    views_on_device: bool
    scaled: bool
    cache: str
    cache_dir: str | None
    unlabeled_ratio: float
    reads_labels: bool
    neighbor_images: int
    solves_heads: bool
    seed: int


def fitting_batch_size(settings: RunLoaderSettings, process: Process, train_set: TwoViewDataset) -> int:
    """Return the batch size, lowered to the rows of a small table, so that an epoch has a batch.

    Args:
        settings: how the loaders work, with the batch size that was asked for.
        process: device and rank of this process.
        train_set: training images.
    """
    asked, processes = settings.batch_size, process.world_size
    if settings.unlabeled_ratio:
        kind, rows = "labeled rows", int(first_rows(settings, train_set).sum()) // processes
    else:
        kind, rows = "rows", math.ceil(len(train_set) / processes)
    if asked <= rows or rows < 2:  # the loader refuses a table without two rows
        return asked
    _logger.info(
        f"--batch-size {asked}: {train_set.table.path} has {rows} {kind} for each process, so a batch has {rows}"
    )
    return rows


class Loaders(NamedTuple):
    """The loaders of a run.

    Attributes:
        train: training batches.
        evaluation: validation batches; None without an attribute.
        index: training images in their evaluation view, for the k-NN index; None without it.
        clean: labeled training images in their evaluation view, to solve the heads on; None if none is solved.
    """

    train: Any
    evaluation: Any
    index: Any
    clean: Any


def make_loaders(
    settings: RunLoaderSettings,
    process: Process,
    dtype: torch.dtype,
    config: DataConfig,
    train_set: TwoViewDataset,
    eval_set: TwoViewDataset | None,
) -> Loaders:
    """Return the loaders, after filling the caches of decoded images.

    Args:
        settings: how the loaders work.
        process: device and rank of this process.
        dtype: number format of the prefetched images.
        config: preprocessing of the model's images.
        train_set: training images.
        eval_set: validation images, or None.

    Raises:
        UsageError: the table has too few rows, or a cache does not fit.
    """
    if settings.train_loader["num_aug_repeats"] and not process.distributed:
        raise UsageError(
            "--aug-repeats spreads an image's copies over several processes, but only one runs: start with "
            "distributed_train.sh 2, or leave --aug-repeats out"
        )
    processes = processes_here()
    workers = usable_workers(settings.workers, processes)
    if workers < settings.workers:
        _logger.info(f"--workers {settings.workers}: {workers} CPUs for each process here, so {workers} workers")
    # Loaders that keep their workers share the memory; others work one after the other.
    kept = settings.train_loader.get("use_multi_epochs_loader") or settings.loader.get("use_multi_epochs_loader")
    together = 1 + (eval_set is not None) + (settings.neighbor_images > 0) + settings.solves_heads if kept else 1
    common = LoaderSettings(
        num_workers=workers,
        sharers=processes * together,
        distributed=process.distributed,
        device=process.device,
        img_dtype=dtype,
        **settings.loader,
    )

    # training
    if settings.views_on_device and process.device.type == "cpu":
        _logger.warning("--augment-on device: the device is the CPU, where workers are faster: use --augment-on cpu")
    device_cache = _fill_caches(settings, process, common.num_workers, processes, train_set, eval_set)
    augmentation = Augmentation(**settings.augmentation)
    source = ViewSource(augmentation, settings.simclr_policy, settings.views_on_device, settings.scaled, device_cache)
    mixed = mixed_order(settings, process, train_set)
    training = replace(common, **settings.train_loader)
    with naming_flags("batch_size"):
        train_loader = create_train_loader(train_set, config, settings.batch_size, source, training, mixed)
    joint, size = settings.contrastive_batch_size or settings.batch_size, settings.batch_size
    if len(train_loader) < joint // size:
        raise UsageError(
            f"{train_set.table.path} gives each process {len(train_loader) * size} images an epoch, fewer than "
            f"--contrastive-batch-size {joint}: use {len(train_loader) * size} or less"
        )

    # evaluation
    index_loader = eval_loader = clean_loader = None
    if settings.neighbor_images:
        index_set = NeighborDataset(train_set, settings.neighbor_images, settings.seed)
        index_loader = create_eval_loader(index_set, config, settings.eval_batch_size, common)
    if settings.solves_heads:
        clean_set = NeighborDataset(train_set, len(train_set), settings.seed)
        clean_loader = create_eval_loader(clean_set, config, settings.eval_batch_size, common)
    if eval_set is not None:
        eval_loader = create_eval_loader(eval_set, config, settings.eval_batch_size, common)
    return Loaders(train_loader, eval_loader, index_loader, clean_loader)


def _fill_caches(
    settings: RunLoaderSettings,
    process: Process,
    workers: int,
    processes: int,
    train_set: TwoViewDataset,
    eval_set: TwoViewDataset | None,
) -> tuple[ImageStore, CachedSizes] | None:
    """Fill the cache of decoded images that the settings name; return a cache on the device, else None.

    Args:
        settings: kind and folder of the cache.
        process: device and rank of this process.
        workers: decoding workers of this process.
        processes: ranks on this host.
        train_set: training images.
        eval_set: validation images, or None.
    """
    if settings.cache == "device":
        with naming_flags("cache"):
            return load_onto_device(train_set, process.device, workers, processes)
    if settings.cache != "none":
        folder = Path(settings.cache_dir) if settings.cache_dir else default_cache_folder()
        datasets = [images for images in (train_set, eval_set) if images is not None]
        # The other ranks of the host wait for the first one, so it uses their share of the CPUs.
        decoders = workers * processes
        cache_tables(datasets, settings.cache, folder, decoders, process.local_rank, process.world_size)
    return None


def first_rows(settings: RunLoaderSettings, train_set: TwoViewDataset) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which rows [N] come first in a mixed batch: the labeled ones, or the table's if no loss reads labels."""
    if not settings.reads_labels:
        return ~train_set.table.added
    has_label: np.ndarray[Any, np.dtype[np.bool_]] = (train_set.targets >= 0).any(dim=1).numpy()
    return has_label


def mixed_order(settings: RunLoaderSettings, process: Process, train_set: TwoViewDataset) -> MixedSampler | None:
    """Return the sampler that mixes unlabeled images into each batch, or None without a ratio.

    If no loss reads labels, as in pretraining, the added images are mixed with all rows of the table.

    Raises:
        UsageError: there is no unlabeled image to mix.
    """
    if not settings.unlabeled_ratio:
        return None
    labeled = first_rows(settings, train_set)
    if labeled.all():
        why = "has all its rows in every epoch already, as no loss reads labels"
        if bool((train_set.targets >= 0).any(dim=1).all()):
            why = "has no row without a label"
        raise UsageError(
            f"--unlabeled-ratio {settings.unlabeled_ratio:g}: {train_set.table.path} {why}: name other images with "
            "--unlabeled, or leave --unlabeled-ratio out"
        )
    with naming_flags("unlabeled_ratio"):
        return MixedSampler(
            np.flatnonzero(labeled),
            np.flatnonzero(~labeled),
            settings.batch_size,
            unlabeled_per_batch(settings.unlabeled_ratio, settings.batch_size),
            seed=settings.seed,
            rank=process.rank,
            processes=process.world_size,
        )
