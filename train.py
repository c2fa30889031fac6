#!/usr/bin/env python3
"""Train one model for every attribute of an image table, with SimCLR at the same time.

    python train.py DATA --model efficientnet_b0 -b 32 --sched cosine --epochs 100 --opt adamp --lr .016
    ./distributed_train.sh 2 DATA ...           the same on two processes
    python train.py -c output/train/RUN/args.yaml --resume output/train/RUN/last.pth.tar

DATA holds train.csv and val.csv (README: data format). A run leaves output/train/<time>-<model>-<size>/ with
args.yaml, summary.csv, curves, checkpoint-N.pth.tar, last.pth.tar and model_best.pth.tar.
"""

from options import args_text, parse_train_args

if __name__ == "__main__":
    parse_train_args()  # --help and a misspelt flag answer at once, not after the seconds that torch takes to import

import os

# Loader workers share the cores with torch's threads: threads that spin while they wait take the workers' time, and on
# two cores cost several times the step. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import json
import logging
import math
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simclr import ProjectionMeter
from timm import utils
from timm.data.index_set import IndexSet
from timm.data.label_space import LabelSpace
from timm.data.multi_label_loader import (
    DataConfig,
    create_eval_loader,
    create_train_loader,
    resolve_preprocessing,
    usable_workers,
)
from timm.data.multi_label_mixup import MultiLabelMixup
from timm.data.resident_images import load_resident
from timm.data.table import build_label_space, encode_targets, find_label_table, find_split, read_table
from timm.data.table_cache import cache_tables, default_cache_folder
from timm.data.table_dataset import TableDataset
from timm.data.unlabeled import MixedSampler, unlabeled_per_batch, with_unlabeled
from timm.data.view_advice import view_advice
from timm.data.view_plan import ViewPlan, plan_views
from timm.models.batch_norm import require_batch_norm, set_batch_norm, split_batch_norm, synchronize_batch_norm
from timm.models.initial_checkpoint import load_initial_checkpoint
from timm.models.multi_label import MultiLabelModel, create_multi_label_model
from timm.models.multi_label_checkpoint import read_checkpoint
from timm.models.pretrained_weights import pretrained_weights
from timm.task import load_task_ema_checkpoint
from timm.task.attribute_evaluator import Metrics
from timm.task.class_imbalance import class_weights, logit_margins
from timm.task.contrastive_loss import ContrastiveLoss, reads_labels
from timm.task.evaluate import evaluate
from timm.task.frozen_features import feature_loaders
from timm.task.gradient_cache import (
    Chunk,
    Result,
    chunk_forwards,
    chunks_per_step,
    detached,
    grouped,
    joint_result,
    steps_per_epoch,
)
from timm.task.nearest_neighbors import neighbor_metrics
from timm.task.optimization import make_optimizer, make_scheduler
from timm.task.precision import resolve_precision
from timm.task.resume_run import restore_random_state, restore_schedule, resume_task, resumed_folder
from timm.task.run_alarm import RunAlarm, make_alarm
from timm.task.simclr_classification import SimCLRClassificationTask
from timm.task.watch import (
    is_due,
    is_measured,
    named_accuracies,
    neighbors_lines,
    projections_line,
    watched_columns,
    watched_row,
    weights_line,
)
from timm.utils.curves import draw_curves
from timm.utils.device import leaving_the_others, memory_format, open_device
from timm.utils.epoch_log import EpochLog, attribute_line, metrics_line
from timm.utils.loss_meter import FiniteWatch, LossMeter
from timm.utils.progress import progress_bar
from timm.utils.random_state import RandomState, gather_objects, get_random_state, kept_random_state, seed_all
from timm.utils.run_folder import (
    Row,
    epoch_row,
    forget_epochs,
    lower_is_better,
    metric_names,
    metric_value,
    no_metrics,
    ranked,
    write_summary,
)
from timm.utils.usage_error import UsageError, first_line, told_in_one_sentence
from timm.utils.view_sheet import save_view_sheet
from timm.utils.whole_file import check_writable

_logger = logging.getLogger("train")

DEFAULT_OUTPUT = "./output/train"


@dataclass
class Run:
    """What the loop works with; `progress` says where it stands, for the checkpoints."""

    args: Namespace
    device: torch.device
    plan: ViewPlan
    data_config: DataConfig
    task: SimCLRClassificationTask
    train_loader: Any
    eval_loader: Any
    index_loader: Any
    optimizer: torch.optim.Optimizer
    scheduler: Any
    num_epochs: int
    backward: Any
    autocast: Callable[[], Any]
    watch: FiniteWatch
    alarm: RunAlarm
    folder: Path | None = None
    saver: Any = None
    rows: list[Row] = field(default_factory=list)
    progress: dict[str, Any] = field(default_factory=dict)

    def to_device(self, images: Tensor) -> Tensor:
        """Move a batch to the device, in the number format and the memory format of the model."""
        # Without the prefetcher images come in float32, whatever the model's weights are.
        images = images.to(self.device, self.task.dtype, non_blocking=True)
        return images.contiguous(memory_format=memory_format(self.args.channels_last)) if images.ndim == 4 else images


def main(argv: list[str] | None = None) -> None:
    """Train as the command line says."""
    args = parse_train_args(argv)
    with leaving_the_others(), told_in_one_sentence("train.py"):
        train(args)


def train(args: Namespace) -> None:
    """Tell the story of a run: data, model, task, loop."""
    recipe = partial(args_text, Namespace(**vars(args)))  # as typed, before the device's fields are written into args
    device = open_device(args)
    resumed = read_checkpoint(args.resume) if args.resume else None
    plan = plan_views(
        contrast=args.simclr_loss_weight > 0,
        classify_view=args.classify_view,
        mixing=_mixes(args),
        aug_splits=args.aug_splits,
    )
    label_space, train_set, eval_set = read_data(args, plan, resumed)
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
        num_epochs, backward, autocast, FiniteWatch(lag=8 if device.type == "cuda" else 0),
        make_alarm(args, _logger, len(train_loader), plan.contrast is not None),
    )  # fmt: skip
    if args.freeze_backbone:
        remember_features(run, model)
    restore_schedule(args, optimizer, scheduler, updates, start, resumed)
    if utils.is_primary(args):
        open_folder(run, recipe, start, decreasing)
    greet(run, label_space)
    try:
        loop(run, start)
    except KeyboardInterrupt:
        if run.folder and (run.folder / "last.pth.tar").exists():
            _logger.info(f"Interrupted. Go on with the same flags and --resume {run.folder}/last.pth.tar")
        raise


def read_data(
    args: Namespace, plan: ViewPlan, resumed: dict[str, Any] | None
) -> tuple[LabelSpace, TableDataset, TableDataset | None]:
    """Read the tables and settle the label space: the resumed checkpoint's, else all.csv's or the training split's.

    Without the classification loss a table may have no attribute; then there is nothing to score, and no second set.
    """
    train_path = find_split(args.data_dir, args.train_split)
    train_table = read_table(train_path, args.attributes, require_attributes=args.classification_loss_weight > 0)
    if resumed and "multi_label" in resumed:
        label_space = LabelSpace.from_dict(resumed["multi_label"]["label_space"])
    elif not train_table.attributes:
        label_space = LabelSpace({})
    else:
        label_path = find_label_table(args.data_dir, train_path)
        label_table = train_table if label_path == train_path else read_table(label_path, args.attributes)
        label_space = build_label_space(label_table, args.multi_valued)
    if unknown := [name for name in args.attribute_weights if name not in label_space.attributes]:
        raise UsageError(
            f"--attribute-weights: no attribute {unknown[0]!r}, there are {', '.join(label_space.attributes)}"
        )
    strangers = [name for name in train_table.columns if name not in label_space.attributes]
    if strangers and not resumed:
        raise UsageError(
            f"{find_label_table(args.data_dir, train_path).name} has no column {strangers[0]!r}, which "
            f"{train_path.name} has: add it there, or choose with --attributes {' '.join(label_space.attributes)}"
        )
    if len(label_space) and not any(args.attribute_weights.get(name, 1.0) for name in label_space.attributes):
        raise UsageError("--attribute-weights are all 0: use -wlc 0 to train without labels")
    channels = args.input_size[0] if args.input_size else 3
    if args.unlabeled:
        train_table = with_unlabeled(train_table, args.unlabeled)
    train_set = TableDataset(
        train_table,
        encode_targets(train_table, label_space, strict=True),
        plan,
        channels,
        max_unreadable=args.max_unreadable,
    )
    if reads_labels(args.contrastive, args.mask_false_negatives) and not (train_set.targets >= 0).any():
        flag = "--mask-false-negatives" if args.mask_false_negatives else f"--contrastive {args.contrastive}"
        raise UsageError(f"{flag} reads labels, and {train_path} has none: leave it out")
    if not len(label_space):
        return label_space, train_set, None
    eval_table = read_table(find_split(args.data_dir, args.val_split), None, require_attributes=False)
    eval_set = TableDataset(
        eval_table,
        encode_targets(eval_table, label_space, strict=False),
        None,
        channels,
        max_unreadable=args.max_unreadable,
    )
    return label_space, train_set, eval_set


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
    train_set: TableDataset,
    eval_set: TableDataset | None,
) -> tuple[Any, Any, Any]:
    """Make timm's loaders, with caches where they are asked for: to train, to score, and of neighbours.

    The second is None for no data, the third where neighbours are not looked for.
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
    if eval_set is None:
        return train_loader, None, None
    eval_batch = args.batch_size * args.validation_batch_size_multiplier
    index_loader = None
    if args.knn_interval:
        index_set = IndexSet(train_set, args.knn_images, args.seed)
        index_loader = create_eval_loader(index_set, config, eval_batch, running)
    return train_loader, create_eval_loader(eval_set, config, eval_batch, running), index_loader


def mixed_order(args: Namespace, train_set: TableDataset) -> MixedSampler | None:
    """Return the order that mixes unlabelled images into each batch; None without any."""
    if not args.unlabeled:
        return None
    table, extra = train_set.table, unlabeled_per_batch(args.unlabeled_ratio, args.batch_size)
    where = {"seed": args.seed, "rank": args.rank, "processes": args.world_size}
    return MixedSampler(len(table) - table.unlabeled, table.unlabeled, args.batch_size, extra, **where)


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


def remember_features(run: Run, model: MultiLabelModel) -> None:
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


def greet(run: Run, label_space: LabelSpace) -> None:
    """Log what is about to happen, once."""
    args, train_set = run.args, run.train_loader.dataset
    model = utils.model.unwrap_model(run.task.get_trainable_module())
    unlabelled = int((train_set.targets < 0).all(dim=1).sum())
    _logger.info(
        f"{train_set.table.path}: {len(train_set)} images, {unlabelled} of them unlabelled; classes: {label_space}"
    )
    if run.eval_loader is None:
        _logger.info("No attribute: nothing is scored, and the contrastive loss trains the backbone alone")
    else:
        _logger.info(f"{run.eval_loader.dataset.table.path}: {len(run.eval_loader.dataset)} images")
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
    for sentence in view_advice(args, label_space):
        _logger.warning(sentence)
    _logger.info(f"Scheduled epochs: {run.num_epochs} (--epochs {args.epochs}, the rest is cooldown or prefix)")
    if run.folder:
        _logger.info(f"Output: {run.folder}")


def loop(run: Run, start: dict[str, Any]) -> None:
    """Train and evaluate epoch by epoch."""
    args, task = run.args, run.task
    best: tuple[float | None, int | None] = (None, None)
    columns = watched_columns(task.label_space.attributes, run.plan.contrast is not None, args.knn_interval > 0)
    if start["epoch"] >= run.num_epochs:
        _logger.info(f"Nothing left to train: {start['epoch']} of {run.num_epochs} epochs are done; raise --epochs")
    for epoch in range(start["epoch"], run.num_epochs):
        seed_all(args.seed, args.rank, epoch)
        if hasattr(run.train_loader.sampler, "set_epoch"):
            run.train_loader.sampler.set_epoch(args.seed + epoch)  # of which alone the samplers make their seed
        if task.mixup is not None:
            task.mixup.set_enabled(not args.mixup_off_epoch or epoch < args.mixup_off_epoch)
        again = start if epoch == start["epoch"] and start["batch"] else None
        train_metrics = train_one_epoch(run, epoch, again)
        share_batch_norm(run)
        blank = no_metrics(task.label_space.attributes, task.label_space.multi_valued)
        evaluated, averaged = blank, blank if args.model_ema else None
        due = (epoch + 1) % args.val_interval == 0 or epoch + 1 == run.num_epochs
        if due and run.eval_loader is not None:
            evaluated, averaged = evaluate_epoch(run)
        neighbors = (
            evaluate_neighbors(run) if run.index_loader and is_due(epoch, args.knn_interval, run.num_epochs) else {}
        )
        report_unreadable(run)
        weights = task.weights()
        if args.balance != "fixed":
            _logger.info(f"Weights: {weights_line(weights)}")
        numbers = train_metrics | neighbors | weights
        run.alarm.check(epoch, numbers)
        row = epoch_row(epoch, train_metrics, evaluated, averaged) | watched_row(columns, numbers)
        value = metric_value(row, args.eval_metric)
        run.progress = {"epoch": epoch + 1, "batch": 0}
        if run.scheduler is not None:
            run.scheduler.step(epoch + 1, value)
        if run.saver is not None:
            best = keep(run, epoch, row, value)
    if run.saver is not None:
        if best[0] is not None:
            _logger.info(f"*** Best {args.eval_metric}: {best[0]:.4f} (epoch {best[1]})")
        best_last = ranked(run.rows, args.eval_metric, task.label_space.attributes)
        print(f"--result\n{json.dumps(best_last[-10:], indent=4)}")


def train_one_epoch(run: Run, epoch: int, again: dict[str, Any] | None) -> dict[str, float]:
    """Train on every batch once; return the mean losses, the top-1, the last learning rate, the projections' metrics.

    A step is a batch, or with --contrastive-batch-size the batches that are contrasted as one; fewer where these end.

    Args:
        run: the run.
        epoch: from 0.
        again: where a recovery checkpoint was written inside this epoch (the steps done as `batch`, `random`), else
            None. The epoch's averages are then of what is left of it.
    """
    args, task, optimizer = run.args, run.task, run.optimizer
    task.train()
    meter, accuracy, projections = LossMeter(), task.create_evaluator(keep_scores=False), ProjectionMeter()
    batches, chunks_each, accum = len(run.train_loader), chunks_per_step(args), args.grad_accum_steps
    steps = steps_per_epoch(args, batches)
    updates = math.ceil(steps / accum)
    log = EpochLog(_logger, epoch, steps, args.log_interval, args.world_size, enabled=utils.is_primary(args))
    optimizer.zero_grad()
    previous: RandomState | None = None
    for step, chunks in enumerate(grouped(run.train_loader, chunks_each)):
        if again and step < again["batch"]:
            previous = restore_random_state(again, again["batch"] - step, args.rank)
            continue
        last = step + 1 == steps
        update = (step + 1) % accum == 0 or last
        chunks[:] = [(run.to_device(images), target.to(run.device, non_blocking=True)) for images, target in chunks]
        if args.save_images and step % args.log_interval == 0 and run.folder:
            sheet = run.folder / f"train-{epoch}-{step}.png"
            save_view_sheet(sheet, *chunks[0], run.plan.kinds, run.data_config, task.label_space.describe)
        log.data_ready()
        lr = max(group["lr"] for group in optimizer.param_groups)  # that of layers which --layer-decay does not slow
        per_update = accum * chunks_each
        share = len(chunks) / min(per_update, batches - step // accum * per_update)  # of the update's images
        result = backpropagate(run, chunks, share, update)
        rows = sum(len(target) for _, target in chunks) // len(run.plan)
        losses = meter.update(result, rows)
        run.watch.check(meter.names, losses)
        accuracy.update(result["output"], torch.cat([task.classified_targets(target) for _, target in chunks]))
        if run.plan.contrast is not None and is_measured(step, steps):
            labels = torch.cat([task.contrasted_labels(target) for _, target in chunks])
            projections.update(result["projections"], labels)
        chunks.clear()  # the loader's list: the images of a step make room for those of the next
        run.train_loader.dataset.check_readable()
        if update:
            optimizer.zero_grad()
            done = epoch * updates + (step + 1 + accum - 1) // accum
            task.update_ema(step=done)
            if run.scheduler is not None:
                run.scheduler.step_update(done)
            if args.synchronize_step and run.device.type == "cuda":
                torch.cuda.synchronize()
            # Between updates there is none: the gradients of half an update are in no checkpoint.
            if args.recovery_interval and not last and (step + 1) % args.recovery_interval < accum:
                random = [gather_objects(state, args.world_size) for state in (previous, get_random_state())]
                run.progress = {"epoch": epoch, "batch": step + 1, "random": random}
                if run.saver is not None:
                    run.saver.save_recovery(epoch, batch_idx=step)
        if args.recovery_interval:
            previous = get_random_state()
        log.step(step, rows, lambda: meter.averages(args.distributed), lr, meter)
    log.close()
    metrics = accuracy.compute(distributed=args.distributed)
    averages = meter.averages(args.distributed) | {"top1": metrics["top1"], "lr": lr}
    if run.plan.contrast is None:
        return averages
    measured = projections.compute()
    _logger.info(f"Train: {epoch}  {projections_line(measured)}")
    return averages | measured


def backpropagate(run: Run, chunks: list[Chunk], share: float, update: bool) -> Result:
    """Add the gradients of a step's joint loss, a chunk in memory at a time; return its losses and its outputs.

    Args:
        run: the run.
        chunks: the batches that are contrasted as one, on the device.
        share: factor on the loss, such that those of an update's steps add up to 1.
        update: also change the weights.
    """
    args, task, optimizer = run.args, run.task, run.optimizer
    results: list[Result] = []
    for forward in chunk_forwards(task, chunks, run.autocast):
        last = update and len(results) + 1 == len(chunks)
        with nullcontext() if last or not args.distributed else task.no_sync():
            with run.autocast():
                result = forward()
            run.backward(
                result["loss"] * share,
                optimizer,
                clip_grad=args.clip_grad,
                clip_mode=args.clip_mode,
                parameters=task.get_clip_parameters(exclude_head="agc" in args.clip_mode),
                create_graph=getattr(optimizer, "is_second_order", False),
                need_update=last,
            )
        results.append(detached(result))
    return joint_result(results)


def share_batch_norm(run: Run) -> None:
    """Give every process the same running statistics, those that the checkpoint will hold.

    Without --dist-bn they are the first process's: each has measured its own since DDP last sent them, and a split
    that is scored in shares must be scored by one model. Averages on another device have their turn when scored.
    """
    models = [run.task.get_trainable_module()]
    if run.task.has_ema() and not ema_is_elsewhere(run):
        models.append(run.task.get_trainable_module(ema=True))
    if run.args.distributed:
        for model in models:
            utils.distribute_bn(model, run.args.world_size, run.args.dist_bn == "reduce")


def ema_is_elsewhere(run: Run) -> bool:
    """Whether the averaged weights are kept on another device than the model, by --model-ema-force-cpu."""
    return bool(run.args.model_ema_force_cpu) and run.device.type != "cpu"


def evaluate_epoch(run: Run) -> tuple[Metrics, Metrics | None]:
    """Score the model on the validation split, and its moving average where there is one; log both."""
    args, task = run.args, run.task

    def score(name: str, ema: bool) -> Metrics:
        start = time.perf_counter()
        kept = task.get_eval_model(ema=ema)
        assert kept is not None
        model = kept
        if ema and ema_is_elsewhere(run):
            model = deepcopy(kept).to(run.device)  # for the time of scoring, when no step needs the memory
            if args.distributed:
                utils.distribute_bn(model, args.world_size, args.dist_bn == "reduce")
                kept.load_state_dict(model.state_dict())
        with progress_bar(len(run.eval_loader), name, enabled=utils.is_primary(args)) as bar:
            metrics = evaluate(
                model,
                run.eval_loader,
                task.create_evaluator(),
                run.autocast,
                run.to_device,
                tta=args.tta,
                distributed=args.distributed,
                after_batch=lambda *_: bar.update(),
            )
        rate = len(run.eval_loader.dataset) / (time.perf_counter() - start)
        if several := task.label_space.multi_valued:
            chosen = {attribute: metrics["attributes"][attribute]["threshold"] for attribute in sorted(several)}
            task.thresholds["thresholds_ema" if ema else "thresholds"] = chosen
        _logger.info(f"{name}: {metrics_line(metrics)}  ({rate:.1f}/s)")
        _logger.info(f"{' ' * len(name)}  {attribute_line(metrics)}")
        return metrics

    return score("Test", ema=False), score("Test (EMA)", ema=True) if task.has_ema() else None


def evaluate_neighbors(run: Run) -> dict[str, float]:
    """Score the representation by its nearest neighbours, and measure its spread; training goes on as if it had not."""
    task, attributes = run.task, run.task.label_space.attributes
    start = time.perf_counter()
    model = utils.model.unwrap_model(task.get_trainable_module())
    with kept_random_state():
        accuracies, spread = neighbor_metrics(
            model, run.index_loader, run.eval_loader, run.autocast, run.to_device, task.label_space
        )
    named = named_accuracies(accuracies, attributes, task.attribute_weights)
    for line in neighbors_lines(named, attributes):
        _logger.info(f"Neighbors: {line}")
    _logger.info(
        f"Neighbors: among {len(run.index_loader.dataset)} training images, whose representations have an effective "
        f"rank of {spread['effective_rank_h']:.2f}  ({time.perf_counter() - start:.1f}s)"
    )
    return named | spread


def report_unreadable(run: Run) -> None:
    """Name the images that could not be read, once, from whichever process met them."""
    for loader in filter(None, (run.train_loader, run.eval_loader)):
        if run.args.distributed:
            loader.dataset.share_unreadable(run.device)
        if utils.is_primary(run.args):
            loader.dataset.report_unreadable()
        loader.dataset.check_readable()


def keep(run: Run, epoch: int, row: Row, value: float | None) -> tuple[float | None, int | None]:
    """Write the epoch's row, curves and checkpoint; return the best metric so far and its epoch."""
    assert run.folder is not None
    run.rows.append({name: None if v is None or v != v else v for name, v in row.items()})
    write_summary(run.folder / "summary.csv", row)
    try:
        draw_curves(run.folder / "summary.csv", run.folder)
    except (UsageError, OSError) as error:
        _logger.warning(f"No curves this time: {error}")  # a picture must not end a run
    if run.args.log_wandb:
        import wandb

        wandb.log(row)
    best: tuple[float | None, int | None] = run.saver.save_checkpoint(epoch, metric=value)
    return best


def _mixes(args: Namespace) -> bool:
    return args.mixup > 0 or args.cutmix > 0 or args.cutmix_minmax is not None


if __name__ == "__main__":
    main()
