#!/usr/bin/env python3
"""Train one model for every attribute of an image table, with SimCLR at the same time.

    python train.py DATA --model efficientnet_b0 -b 32 --sched cosine --epochs 100 --opt adamp --lr .016
    ./distributed_train.sh 2 DATA ...           the same on two processes
    python train.py -c output/train/RUN/args.yaml --resume output/train/RUN/last.pth.tar

DATA holds train.csv and val.csv (README: data format). A run leaves output/train/<time>-<model>-<size>/ with
args.yaml, summary.csv, curves, checkpoint-N.pth.tar, last.pth.tar and model_best.pth.tar.
"""

from options.parser import args_text, parse_train_args

if __name__ == "__main__":
    # --help, a misspelled flag and a missing file answer at once, not after the seconds that torch takes to import.
    parse_train_args(look=True)

import os

# Loader workers share the cores with torch's threads: threads that spin while they wait take the workers' time, and on
# two cores cost several times the step. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import logging
import math
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from catalog.label_space import LabelSpace
from catalog.table import (
    Table,
    build_label_space,
    encode_targets,
    find_label_table,
    find_split,
    read_table,
    with_sound_attributes,
)
from catalog.unlabeled import shared_images, unlabeled_per_batch, with_unlabeled
from runtime.atomic_file import check_writable
from runtime.errors import UsageError, first_line, report_usage_errors
from runtime.precision import resolve_precision
from runtime.process import leave_process_group, memory_format, set_up_process
from runtime.random_state import seed_all
from timm import utils
from timm.data.device_cache import load_resident
from timm.data.mixed_sampler import MixedSampler
from timm.data.multi_label_loader import (
    DataConfig,
    create_eval_loader,
    create_train_loader,
    resolve_preprocessing,
    usable_workers,
)
from timm.data.multi_label_mixup import MultiLabelMixup
from timm.data.neighbor_dataset import NeighborDataset
from timm.data.table_cache import cache_tables, default_cache_folder
from timm.data.two_view_dataset import TwoViewDataset
from timm.data.view_plan import ViewPlan, plan_views
from timm.models.batch_norm import require_batch_norm, set_batch_norm, split_batch_norm, synchronize_batch_norm
from timm.models.initial_checkpoint import load_initial_checkpoint
from timm.models.multi_label import MultiLabelModel, create_multi_label_model
from timm.models.multi_label_checkpoint import read_checkpoint
from timm.models.pretrained_weights import pretrained_weights
from timm.task import load_task_ema_checkpoint
from timm.task.class_imbalance import class_weights, logit_margins
from timm.task.contrastive_loss import ContrastiveLoss, reads_labels
from timm.task.gradient_cache import (
    chunks_per_step,
    steps_per_epoch,
)
from timm.task.simclr_classification import SimCLRClassificationTask
from training.frozen_features import feature_loaders
from training.health_check import make_health_check
from training.loop import Run, loop
from training.loss_meter import NonFiniteLossGuard
from training.optimization import make_optimizer, make_scheduler
from training.resume import restore_schedule, resume_task, resumed_folder
from training.summary import (
    forget_epochs,
    lower_is_better,
    metric_names,
)
from training.view_warnings import view_warnings
from training.watch import (
    watched_columns,
)

_logger = logging.getLogger("train")

DEFAULT_OUTPUT = "./output/train"


def main(argv: list[str] | None = None) -> None:
    """Train as the command line says."""
    args = parse_train_args(argv)
    with leave_process_group(), report_usage_errors("train.py"):
        train(args)


def train(args: Namespace) -> None:
    """Tell the story of a run: data, model, task, loop."""
    recipe = partial(args_text, Namespace(**vars(args)))  # as typed, before the device's fields are written into args
    device = set_up_process(args)
    resumed = read_checkpoint(args.resume) if args.resume else None
    plan = plan_views(
        contrast=args.simclr_loss_weight > 0,
        classify_view=args.classify_view,
        mixing=_mixes(args),
        aug_splits=args.aug_splits,
    )
    label_space, train_set, eval_set = read_data(args, plan, resumed)
    if args.eval_metric == "top1" and len(label_space) and label_space.multi_valued == set(label_space.attributes):
        args.eval_metric = "map"  # whole sets may never be right
    autocast, backward, dtype = resolve_precision(device, args.amp, args.amp_dtype, args.model_dtype)
    check_run(args, label_space, plan)
    seed_all(args.seed)  # one seed for all: an EMA copies the first weights before DDP could send the first process's
    model = make_model(args, plan, label_space, fresh=resumed is None).to(device=device, dtype=dtype)
    data_config = model.config["data_config"]
    train_loader, eval_loader, index_loader = make_loaders(args, device, dtype, data_config, train_set, eval_set)
    task = make_task(args, model, plan, train_set.targets, device, dtype)
    optimizer = make_optimizer(args, model)
    start = prepare_task(args, task, optimizer, backward, resumed)
    decreasing = lower_is_better(args.eval_metric, label_space.attributes)
    updates = math.ceil(steps_per_epoch(args, len(train_loader)) / args.grad_accum_steps)
    scheduler, num_epochs = make_scheduler(args, optimizer, updates, decreasing)
    run = Run(
        args, device, plan, data_config, task, train_loader, eval_loader, index_loader, optimizer, scheduler,
        num_epochs, backward, autocast, NonFiniteLossGuard(lag=8 if device.type == "cuda" else 0),
        make_health_check(args, _logger, len(train_loader), plan.contrast is not None),
    )  # fmt: skip
    if args.freeze_backbone:
        cache_frozen_features(run, model)
    restore_schedule(args, optimizer, scheduler, updates, start, resumed)
    if utils.is_primary(args):
        open_folder(run, recipe, start, decreasing)
    log_start(run, label_space)
    try:
        loop(run, start)
    except KeyboardInterrupt:
        if run.folder and (run.folder / "last.pth.tar").exists():
            _logger.info(f"Interrupted. Go on with the same flags and --resume {run.folder}/last.pth.tar")
        raise


def read_data(
    args: Namespace, plan: ViewPlan, resumed: dict[str, Any] | None
) -> tuple[LabelSpace, TwoViewDataset, TwoViewDataset | None]:
    """Read the tables and settle the label space.

    Without the classification loss a table may have no attribute; then there is nothing to score, and no second set.
    """
    train_path = find_split(args.data_dir, args.train_split)
    train_table = read_table(train_path, args.attributes, require_attributes=args.classification_loss_weight > 0)
    if not _reads_labels(args) and not args.attributes and find_label_table(args.data_dir, train_path) == train_path:
        train_table = with_sound_attributes(train_table)
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
    eval_set = TwoViewDataset(eval_table, targets, None, _channels(args), max_unreadable=args.max_unreadable)
    return label_space, train_set, eval_set


def resolve_label_space(args: Namespace, train_table: Table, resumed: dict[str, Any] | None) -> LabelSpace:
    """Return the label space: the resumed checkpoint's, else all.csv's or the training table's."""
    if resumed and "multi_label" in resumed:
        return LabelSpace.from_dict(resumed["multi_label"]["label_space"])
    if not train_table.attributes:
        return LabelSpace({})
    path = find_label_table(args.data_dir, train_table.path)
    table = train_table if path == train_table.path else read_table(path, args.attributes)
    return build_label_space(table, args.multi_valued)


def check_label_space(
    args: Namespace, label_space: LabelSpace, train_table: Table, resumed: dict[str, Any] | None
) -> None:
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
    return TwoViewDataset(table, targets, plan, _channels(args), max_unreadable=args.max_unreadable)


def _reads_labels(args: Namespace) -> bool:
    """Whether a loss does."""
    return args.classification_loss_weight > 0 or reads_labels(args.contrastive, args.mask_false_negatives)


def _channels(args: Namespace) -> int:
    """Return how many channels the images have."""
    return int(args.input_size[0]) if args.input_size else 3


def check_run(args: Namespace, label_space: LabelSpace, plan: ViewPlan) -> None:
    """Refuse what would fail later, before there is a model or a folder: the metric, the log, too small a batch."""
    contrast = plan.contrast is not None
    watched = watched_columns(label_space.attributes, contrast, args.knn_interval > 0)
    names = metric_names(label_space.attributes, args.model_ema, contrast, watched, label_space.multi_valued)
    if args.eval_metric not in names:
        ema = "; ema_ metrics need --model-ema" if args.eval_metric.startswith("ema_") and not args.model_ema else ""
        raise UsageError(f"--eval-metric {args.eval_metric} is not logged{ema}; there are {', '.join(names)}")
    if label_space.multi_valued and args.jsd:
        several = ", ".join(sorted(label_space.multi_valued))
        raise UsageError(f"--jsd compares classes that exclude each other, and {several} has several: leave it out")
    if args.multi_valued_loss != "bce" and not label_space.multi_valued:
        raise UsageError(f"--multi-valued-loss {args.multi_valued_loss}: no attribute is --multi-valued")
    if args.log_wandb and not find_spec("wandb"):
        raise UsageError("--log-wandb needs the package wandb: pip install wandb")
    if plan.contrast is not None and args.batch_size * args.world_size < 2:
        raise UsageError("--batch-size 1 leaves the contrastive loss no negatives: use 2 or more, or -wls 0")
    if utils.is_primary(args):
        check_writable(Path(args.output or DEFAULT_OUTPUT, "args.yaml"))


def make_model(args: Namespace, plan: ViewPlan, label_space: LabelSpace, fresh: bool = True) -> MultiLabelModel:
    """Make the model; the preprocessing that it is trained with goes into its config.

    Args:
        args: the flags.
        plan: the views.
        label_space: the attributes and their classes.
        fresh: give it its first weights; a checkpoint that will overwrite them all spares looking for them.
    """
    image_size = tuple(args.input_size) if args.input_size else (3, args.img_size, args.img_size)
    pretrained = args.pretrained and fresh
    weights = args.pretrained_path or None  # None: downloaded
    with pretrained_weights(args.model, weights) if pretrained else nullcontext():
        model = create_multi_label_model(
            args.model,
            label_space,
            pretrained=pretrained,
            pretrained_path=weights if pretrained else None,
            image_size=image_size if args.input_size or args.img_size else None,
            global_pool=args.gp,
            drop_path_rate=args.drop_path if args.drop_path is not None else args.drop_connect,
            drop_block_rate=args.drop_block,
            model_kwargs=args.model_kwargs,
            drop_rate=args.drop,
            projection_dim=args.projection_dim if plan.contrast else 0,
            projection_layers=args.projection_layers,
            projection_norm=args.projection_norm,
            balance=args.balance,
        )
    model.config["data_config"] = resolve_preprocessing(
        model.pretrained_cfg, vars(args) | {"input_size": model.config["image_size"]}
    )
    if args.initial_checkpoint and fresh:
        load_initial_checkpoint(model, args.initial_checkpoint)
    if args.freeze_backbone:
        model.freeze_backbone()
    model.detach_heads = args.head_grad == "detach"
    apply_batch_norm_flags(args, model, plan)
    if args.grad_checkpointing:
        model.set_grad_checkpointing(True)
    return model.to(memory_format=memory_format(args.channels_last))


def apply_batch_norm_flags(args: Namespace, model: MultiLabelModel, plan: ViewPlan) -> None:
    """Apply the batch norm flags to whatever batch norms the model has."""
    set_batch_norm(model, args.bn_tf, args.bn_momentum, args.bn_eps)
    if args.split_bn:
        split_batch_norm(model, len(plan))
    if args.sync_bn:
        synchronize_batch_norm(model, torch.device(args.device).type)
    if args.dist_bn:
        require_batch_norm(model, model)


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
    running = {
        "num_workers": usable_workers(args.workers, processes),
        "distributed": args.distributed,
        "pin_memory": args.pin_mem,
        "device": device,
        "img_dtype": dtype,
        "use_prefetcher": not args.no_prefetcher,
    }
    augmentation = {
        "no_aug": args.no_aug,
        "re_prob": args.reprob,
        "re_mode": args.remode,
        "re_count": args.recount,
        "re_split": args.resplit,
        "train_crop_mode": args.train_crop_mode,
        "scale": args.scale,
        "ratio": args.ratio,
        "hflip": args.hflip,
        "vflip": args.vflip,
        "color_jitter": args.color_jitter,
        "color_jitter_prob": args.color_jitter_prob,
        "grayscale_prob": args.grayscale_prob,
        "gaussian_blur_prob": args.gaussian_blur_prob,
        "auto_augment": args.aa,
        "num_aug_repeats": args.aug_repeats,
        "num_aug_splits": args.aug_splits,
        "interpolation": args.train_interpolation,
    }
    workers, resident = running["num_workers"], None
    if args.augment_on == "device" and device.type == "cpu":
        _logger.warning("--augment-on device: the device is the CPU here, and workers make views faster there")
    if args.cache == "device":
        resident = load_resident(train_set, device, workers, processes)
    elif args.cache != "none":
        folder = Path(args.cache_dir) if args.cache_dir else default_cache_folder()
        workers *= processes  # the others wait for the first process of the host
        tables = [data for data in (train_set, eval_set) if data is not None]
        cache_tables(tables, args.cache, folder, workers, args.local_rank, args.world_size)
    once = {"worker_seeding": args.worker_seeding, "use_multi_epochs_loader": args.use_multi_epochs_loader}
    simclr = {"strength": args.view_strength, "keep_color": args.views == "simclr-keepcolor"}
    policy = None if args.views == "timm" else simclr
    train_loader = create_train_loader(
        train_set, config, args.batch_size, augmentation, running | once, policy, resident, args.augment_on == "device",
        mixed_order(args, train_set),
    )  # fmt: skip
    if len(train_loader) < chunks_per_step(args):
        raise UsageError(
            f"{train_set.table.path} has {len(train_loader)} batches of {args.batch_size} for each process, fewer than "
            f"--contrastive-batch-size {args.contrastive_batch_size}: use {len(train_loader) * args.batch_size} or less"
        )
    eval_batch = args.batch_size * args.validation_batch_size_multiplier
    index_loader = None
    if args.knn_interval:
        index_set = NeighborDataset(train_set, args.knn_images, args.seed)
        index_loader = create_eval_loader(index_set, config, eval_batch, running)
    eval_loader = create_eval_loader(eval_set, config, eval_batch, running) if eval_set is not None else None
    return train_loader, eval_loader, index_loader


def mixed_order(args: Namespace, train_set: TwoViewDataset) -> MixedSampler | None:
    """Return the order that mixes unlabeled images into each batch; None where rows come as they are in the table.

    Where nothing reads labels, as in pretraining, those of --unlabeled are mixed with all rows of the table.
    """
    if not args.unlabeled_ratio:
        return None
    extra = unlabeled_per_batch(args.unlabeled_ratio, args.batch_size)
    labeled = (train_set.targets >= 0).any(dim=1).numpy()
    if not _reads_labels(args):
        labeled = np.arange(len(train_set)) < len(train_set) - train_set.table.unlabeled
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


def make_task(
    args: Namespace,
    model: MultiLabelModel,
    plan: ViewPlan,
    targets: Tensor,
    device: torch.device,
    dtype: torch.dtype,
) -> SimCLRClassificationTask:
    """Join model and losses; the training table's targets [rows, C] tell which classes are rare."""
    contrastive = None
    if plan.contrast is not None:
        contrastive = ContrastiveLoss(args.contrastive, args.temperature, args.mask_false_negatives)
    mixup = None
    if _mixes(args):
        low, high = args.cutmix_minmax or (0, 1)
        if any(int(side * low) >= int(side * high) for side in model.config["image_size"][1:]):
            raise UsageError(f"--cutmix-minmax {low:g} {high:g}: these are the same number of pixels, take them apart")
        mixup = MultiLabelMixup(
            model.label_space,
            mixup_alpha=args.mixup,
            cutmix_alpha=args.cutmix,
            cutmix_minmax=args.cutmix_minmax,
            prob=args.mixup_prob,
            switch_prob=args.mixup_switch_prob,
            mode=args.mixup_mode,
        )
    return SimCLRClassificationTask(
        model,
        plan,
        simclr_loss_weight=args.simclr_loss_weight,
        classification_loss_weight=args.classification_loss_weight,
        contrastive=contrastive,
        attribute_weights=args.attribute_weights,
        smoothing=args.smoothing,
        jsd=args.jsd,
        mixup=mixup,
        class_weights=class_weights(targets, model.label_space, args.class_weights),
        logit_margins=logit_margins(targets, model.label_space, args.logit_adjustment),
        multi_valued_loss=args.multi_valued_loss,
        device=device,
        dtype=dtype,
    )


def prepare_task(
    args: Namespace,
    task: SimCLRClassificationTask,
    optimizer: torch.optim.Optimizer,
    backward: Any,
    resumed: dict[str, Any] | None,
) -> dict[str, Any]:
    """Resume, average, compile and distribute; return where to start (`epoch`, `batch`).

    The order is the one that works: the EMA copies resumed weights; compiling wraps the module that DDP then wraps,
    and the EMA must copy neither wrapper.
    """
    start = resume_task(args, task, optimizer, backward, resumed) if resumed else {"epoch": 0, "batch": 0}
    task.thresholds = {name: resumed[name] for name in ("thresholds", "thresholds_ema") if resumed and name in resumed}
    if args.start_epoch is not None:
        start = {"epoch": args.start_epoch, "batch": 0}
    if args.model_ema:
        device = torch.device("cpu") if args.model_ema_force_cpu else None
        task.setup_ema(decay=args.model_ema_decay, use_warmup=args.model_ema_warmup, device=device)
        if resumed:
            load_task_ema_checkpoint(task, args.resume)
    if args.torchcompile:
        try:
            task.compile(backend=args.torchcompile, mode=args.torchcompile_mode)
        except RuntimeError as error:  # only about these two words: the model is compiled at its first step
            mode = f" --torchcompile-mode {args.torchcompile_mode}" if args.torchcompile_mode else ""
            raise UsageError(f"--torchcompile {args.torchcompile}{mode}: {first_line(error)}") from error
    if args.distributed:
        # The heads get gradients of 0 where a batch has no label, so every parameter always takes part.
        task.prepare_distributed(device_ids=[args.device] if torch.device(args.device).type == "cuda" else None)
        if args.no_ddp_bb:  # the attribute, as the argument's name is another from one PyTorch to the next
            task.trainable_module.broadcast_buffers = False  # type: ignore[assignment]
    return start


def cache_frozen_features(run: Run, model: MultiLabelModel) -> None:
    """Make a frozen backbone's features once, where no augmentation changes them."""
    args = run.args
    if not args.no_aug or args.reprob or _mixes(args) or args.tta:
        _logger.info("The frozen backbone's features are made anew each epoch; --no-aug makes them once")
        return
    run.train_loader, run.eval_loader = feature_loaders(
        model, run.train_loader, run.eval_loader, run.autocast, run.to_device
    )


def open_folder(run: Run, recipe: Callable[..., str], start: dict[str, Any], decreasing: bool) -> None:
    """Make the output folder, or go on in the one of the resumed checkpoint; only the primary process has one.

    Args:
        run: the run.
        recipe: returns the flags as YAML.
        start: the epoch to start with.
        decreasing: whether a lower --eval-metric is better.
    """
    args = run.args
    again = resumed_folder(args)
    if again:
        run.folder = again
        forget_epochs(run.folder / "summary.csv", start["epoch"])
    else:
        size = run.data_config["input_size"][-1]
        name = args.experiment or f"{datetime.now():%Y%m%d-%H%M%S}-{args.model.replace('/', '_')}-{size}"
        run.folder = Path(utils.get_outdir(args.output or DEFAULT_OUTPUT, name, inc=True))
    # In the folder of the checkpoint, the flags that repeat the run are those that do not resume it.
    text = recipe(without=("resume", "no_resume_opt", "start_epoch") if again else ())
    (run.folder / "args.yaml").write_text(text, encoding="utf-8")
    run.task.checkpoint_extras |= {
        "args": lambda: dict(vars(args)),
        "progress": lambda: dict(run.progress),
        "plateau": lambda: getattr(run.scheduler, "lr_scheduler", None) and run.scheduler.lr_scheduler.state_dict(),
    }
    run.saver = utils.CheckpointSaver(
        model=run.task.get_trainable_module(),
        optimizer=run.optimizer,
        amp_scaler=run.backward if hasattr(run.backward, "state_dict") else None,
        checkpoint_dir=str(run.folder),
        recovery_dir=str(run.folder),
        decreasing=decreasing,
        max_history=args.checkpoint_hist,
        task=run.task,
    )
    if again:
        run.saver.load_state_dict_from_checkpoint(args.resume)
    if args.log_wandb:
        import wandb

        wandb.init(project=args.wandb_project, name=run.folder.name, config=vars(args))


def log_start(run: Run, label_space: LabelSpace) -> None:
    """Log what is about to happen, once."""
    args, train_set = run.args, run.train_loader.dataset
    model = utils.model.unwrap_model(run.task.get_trainable_module())
    unlabeled = int((train_set.targets < 0).all(dim=1).sum())
    _logger.info(
        f"{train_set.table.path}: {len(train_set)} images, {unlabeled} of them unlabeled; classes: {label_space}"
    )
    if args.classification_loss_weight and not args.unlabeled_ratio and 2 * unlabeled > len(train_set):
        share = args.batch_size * (1 - unlabeled / len(train_set))
        _logger.info(
            f"Of a batch about {share:.1f} images have a label; --unlabeled-ratio 1 makes it {args.batch_size}"
        )
    if run.eval_loader is None:
        _logger.info("No attribute: nothing is scored, and the contrastive loss trains the backbone alone")
    else:
        _logger.info(f"{run.eval_loader.dataset.table.path}: {len(run.eval_loader.dataset)} images")
    if not args.classification_loss_weight and len(label_space):
        _logger.info("-wlc 0: the heads are not trained, so that Class and Acc@1 are of guesses; neighbors tell more")
    if not (args.pretrained or args.pretrained_path or args.initial_checkpoint or args.resume):
        _logger.info("From random weights: none of --pretrained, --pretrained-path, --initial-checkpoint")
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    _logger.info(f"{model.config['arch']}: {parameters:.2f} M parameters, {run.data_config}")
    _logger.info(
        f"{run.device}, {args.world_size} process(es), batch {args.batch_size} each; views: {', '.join(run.plan.kinds)}"
    )
    if run.plan.contrast is not None:
        sampler = run.train_loader.sampler
        images = args.batch_size + (sampler.extra if isinstance(sampler, MixedSampler) else 0)
        pairs = images * chunks_per_step(args) * args.world_size
        _logger.info(run.task.contrastive.at_chance(pairs))
    for sentence in view_warnings(args, label_space):
        _logger.warning(sentence)
    rest = f" (--epochs {args.epochs}, the rest is cooldown or prefix)" if run.num_epochs != args.epochs else ""
    steps = steps_per_epoch(args, len(run.train_loader))
    _logger.info(f"Scheduled epochs: {run.num_epochs}{rest}, of {steps} steps each, {run.num_epochs * steps} in all")
    if run.folder:
        _logger.info(f"Output: {run.folder}")


def _mixes(args: Namespace) -> bool:
    return args.mixup > 0 or args.cutmix > 0 or args.cutmix_minmax is not None


if __name__ == "__main__":
    main()
