"""The tables, data sets and loaders of a run."""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from catalog.build_label_space import build_label_space, without_unlearnable_attributes
from catalog.label_space import LabelSpace
from catalog.splits import find_label_table, find_split
from catalog.table import Table, read_table
from catalog.targets import encode_targets
from catalog.unlabeled import shared_images, unlabeled_per_batch, with_unlabeled
from runtime.errors import UsageError
from timm.data.device_cache import load_onto_device
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
from timm.data.view_plan import ViewPlan
from timm.models.multi_label_checkpoint import Checkpoint
from timm.task.contrastive_loss import reads_labels
from timm.task.gradient_cache import (
    chunks_per_step,
)
from training.flag_names import naming_flags
from training.shared_cache import cache_tables, default_cache_folder

_logger = logging.getLogger("train")


def read_data(
    args: Namespace, plan: ViewPlan, resumed: Checkpoint | None
) -> tuple[LabelSpace, TwoViewDataset, TwoViewDataset | None]:
    """Read the tables and settle the label space.

    Without the classification loss a table may have no attribute; then there is nothing to score, and no second set.
    """
    train_path = find_split(args.data_dir, args.train_split)
    train_table = read_table(train_path, args.attributes, require_attributes=args.classification_loss_weight > 0)
    if not labels_are_read(args) and not args.attributes and find_label_table(args.data_dir, train_path) == train_path:
        train_table = without_unlearnable_attributes(train_table)
    label_space = resolve_label_space(args, train_table, resumed)
    check_label_space(args, label_space, train_table, resumed)
    train_set = make_train_set(args, plan, train_table, label_space)
    if not len(label_space):
        return label_space, train_set, None
    eval_table = read_table(find_split(args.data_dir, args.val_split), None, require_attributes=False)
    targets = encode_targets(eval_table, label_space, strict=False)
    if shared := shared_images(train_set.table, eval_table):
        _logger.warning(
            f"--unlabeled: {shared} of the images are those of {eval_table.path.name}, which teach the contrastive "
            "loss though not their labels: name other images to score ones that were never seen"
        )
    eval_set = TwoViewDataset(eval_table, targets, None, channels(args), max_unreadable=args.max_unreadable)
    return label_space, train_set, eval_set


def resolve_label_space(args: Namespace, train_table: Table, resumed: Checkpoint | None) -> LabelSpace:
    """Return the label space: the resumed checkpoint's, else all.csv's or the training table's."""
    if resumed and resumed.label_space is not None:
        return resumed.label_space
    if not train_table.attributes:
        return LabelSpace({})
    path = find_label_table(args.data_dir, train_table.path)
    table = train_table if path == train_table.path else read_table(path, args.attributes)
    return build_label_space(table, args.multi_valued)


def check_label_space(args: Namespace, label_space: LabelSpace, train_table: Table, resumed: Checkpoint | None) -> None:
    """Refuse flags about attributes that there are not, and a training table with others than the label space's."""
    if args.multi_valued is not None and label_space.multi_valued != set(args.multi_valued):
        several = ", ".join(sorted(label_space.multi_valued)) or "no attribute"
        reason = f"{train_table.path.name} has no attribute: leave it out"
        if resumed:
            reason = (
                f"in {args.resume} it is {several}, which stays: leave it out, or start anew with --initial-checkpoint"
            )
        raise UsageError(f"--multi-valued {' '.join(args.multi_valued)}: {reason}")
    if unknown := [name for name in args.attribute_weights if name not in label_space.attributes]:
        raise UsageError(
            f"--attribute-weights: no attribute {unknown[0]!r}, there are {', '.join(label_space.attributes)}"
        )
    strangers = [name for name in train_table.columns if name not in label_space.attributes]
    missing = [name for name in label_space.attributes if name not in train_table.columns]
    if resumed and (strangers or missing):
        had = ", ".join(label_space.attributes) or "no attribute"
        raise UsageError(
            f"{args.resume} was trained on {had}, and {train_table.path.name} has "
            f"{', '.join(train_table.attributes) or 'none'}: --resume goes on with the same, chosen with --attributes; "
            "--initial-checkpoint starts with others"
        )
    if strangers:
        raise UsageError(
            f"{find_label_table(args.data_dir, train_table.path).name} has no column {strangers[0]!r}, which "
            f"{train_table.path.name} has: add it there, or choose with --attributes {' '.join(label_space.attributes)}"
        )
    if len(label_space) and not any(args.attribute_weights.get(name, 1.0) for name in label_space.attributes):
        raise UsageError("--attribute-weights are all 0: use -wlc 0 to train without labels")


def make_train_set(args: Namespace, plan: ViewPlan, table: Table, label_space: LabelSpace) -> TwoViewDataset:
    """Return the training images: those of --unlabeled too, and for classification alone those with a label."""
    path = table.path
    if args.unlabeled:
        table = with_unlabeled(table, args.unlabeled)
    targets = encode_targets(table, label_space, strict=True)
    labeled = (targets >= 0).any(axis=1)
    if reads_labels(args.contrastive, args.mask_false_negatives) and not labeled.any():
        flag = "--mask-false-negatives" if args.mask_false_negatives else f"--contrastive {args.contrastive}"
        raise UsageError(f"{flag} reads labels, and {path} has none: leave it out")
    if not args.simclr_loss_weight and not labeled.all():
        if not labeled.any():
            raise UsageError(f"{path} has no label, and -wls 0 learns from labels alone: label some of its rows")
        _logger.info(f"{path}: {(~labeled).sum()} rows without a label are left out, as -wls 0 needs labels")
        table, targets = table.take(np.flatnonzero(labeled)), targets[labeled]
    return TwoViewDataset(table, targets, plan, channels(args), max_unreadable=args.max_unreadable)


def labels_are_read(args: Namespace) -> bool:
    """Whether a loss does."""
    return args.classification_loss_weight > 0 or reads_labels(args.contrastive, args.mask_false_negatives)


def channels(args: Namespace) -> int:
    """Return how many channels the images have."""
    return int(args.input_size[0]) if args.input_size else 3


def make_loaders(
    args: Namespace,
    device: torch.device,
    dtype: torch.dtype,
    config: DataConfig,
    train_set: TwoViewDataset,
    eval_set: TwoViewDataset | None,
) -> tuple[Any, Any, Any]:
    """Make timm's loaders, with caches where they are asked for: to train, to score, and of neighbors.

    The second is None for no data, the third where neighbors are not looked for.
    """
    if args.aug_repeats and not args.distributed:
        raise UsageError("--aug-repeats deals the repeats out to several processes: start with distributed_train.sh 2")
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    settings = LoaderSettings(
        num_workers=usable_workers(args.workers, processes),
        distributed=args.distributed,
        pin_memory=args.pin_mem,
        device=device,
        img_dtype=dtype,
        use_prefetcher=not args.no_prefetcher,
    )
    augmentation = Augmentation(
        no_aug=args.no_aug,
        re_prob=args.reprob,
        re_mode=args.remode,
        re_count=args.recount,
        re_split=args.resplit,
        train_crop_mode=args.train_crop_mode,
        scale=args.scale,
        ratio=args.ratio,
        hflip=args.hflip,
        vflip=args.vflip,
        color_jitter=args.color_jitter,
        color_jitter_prob=args.color_jitter_prob,
        grayscale_prob=args.grayscale_prob,
        gaussian_blur_prob=args.gaussian_blur_prob,
        auto_augment=args.aa,
        num_aug_splits=args.aug_splits,
        interpolation=args.train_interpolation,
    )
    workers, device_cache = settings.num_workers, None
    if args.augment_on == "device" and device.type == "cpu":
        _logger.warning("--augment-on device: the device is the CPU here, and workers make views faster there")
    if args.cache == "device":
        with naming_flags("cache"):
            device_cache = load_onto_device(train_set, device, workers, processes)
    elif args.cache != "none":
        folder = Path(args.cache_dir) if args.cache_dir else default_cache_folder()
        workers *= processes  # the others wait for the first process of the host
        tables = [data for data in (train_set, eval_set) if data is not None]
        cache_tables(tables, args.cache, folder, workers, args.local_rank, args.world_size)
    training = replace(
        settings,
        worker_seeding=args.worker_seeding,
        use_multi_epochs_loader=args.use_multi_epochs_loader,
        num_aug_repeats=args.aug_repeats,
    )
    simclr = {"strength": args.view_strength, "keep_color": args.views == "simclr-keepcolor"}
    policy = None if args.views == "timm" else simclr
    source = ViewSource(augmentation, policy, args.augment_on == "device", device_cache)
    mixed = mixed_order(args, train_set)
    with naming_flags("batch_size"):
        train_loader = create_train_loader(train_set, config, args.batch_size, source, training, mixed)
    if len(train_loader) < chunks_per_step(args.batch_size, args.contrastive_batch_size):
        raise UsageError(
            f"{train_set.table.path} has {len(train_loader)} batches of {args.batch_size} for each process, fewer than "
            f"--contrastive-batch-size {args.contrastive_batch_size}: use {len(train_loader) * args.batch_size} or less"
        )
    eval_batch = args.batch_size * args.validation_batch_size_multiplier
    index_loader = None
    if args.knn_interval:
        index_set = NeighborDataset(train_set, args.knn_images, args.seed)
        index_loader = create_eval_loader(index_set, config, eval_batch, settings)
    eval_loader = create_eval_loader(eval_set, config, eval_batch, settings) if eval_set is not None else None
    return train_loader, eval_loader, index_loader


def mixed_order(args: Namespace, train_set: TwoViewDataset) -> MixedSampler | None:
    """Return the order that mixes unlabeled images into each batch; None where rows come as they are in the table.

    Where nothing reads labels, as in pretraining, those of --unlabeled are mixed with all rows of the table.
    """
    if not args.unlabeled_ratio:
        return None
    extra = unlabeled_per_batch(args.unlabeled_ratio, args.batch_size)
    labeled = (train_set.targets >= 0).any(dim=1).numpy()
    if not labels_are_read(args):
        labeled = ~train_set.table.added
    if labeled.all():
        full = bool((train_set.targets >= 0).any(dim=1).all())
        why = (
            "has no row without a label" if full else "has all its rows in every epoch already, as no loss reads labels"
        )
        raise UsageError(
            f"--unlabeled-ratio {args.unlabeled_ratio:g}: {train_set.table.path} {why}: name other images with "
            "--unlabeled, or leave it out"
        )
    where = {"seed": args.seed, "rank": args.rank, "processes": args.world_size}
    rows = np.flatnonzero(labeled), np.flatnonzero(~labeled)
    return MixedSampler(*rows, args.batch_size, extra, **where)


def mixes(args: Namespace) -> bool:
    """Whether images are mixed, in a full view of their own."""
    return args.mixup > 0 or args.cutmix > 0 or args.cutmix_minmax is not None
