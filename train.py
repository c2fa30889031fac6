#!/usr/bin/env python3
"""Train one model for every attribute of an image table, with SimCLR at the same time.

    python train.py DATA --model efficientnet_b0 -b 32 --sched cosine --epochs 100 --opt adamp --lr .016
    ./distributed_train.sh 2 DATA ...           the same on two processes
    python train.py -c output/train/RUN/args.yaml --resume output/train/RUN/last.pth.tar

DATA holds train.csv and val.csv (docs/data.md). A run leaves output/train/<time>-<model>-<size>/ with
args.yaml, summary.csv, curves, checkpoint-N.pth.tar, last.pth.tar and model_best.pth.tar.
"""

from options.train import parse_train_args, resolve_eval_metric, train_parser
from options.train_kwargs import (
    contrastive_kwargs,
    data_kwargs,
    loader_kwargs,
    mixes_images,
    mixup_kwargs,
    model_kwargs,
    optimizer_kwargs,
    precision_kwargs,
    process_kwargs,
    rate_kwargs,
    schedule_kwargs,
    step_kwargs,
    task_kwargs,
    view_kwargs,
)
from options.yaml_file import args_text

if __name__ == "__main__":
    # --help, a misspelled flag and a missing file answer at once, not after the seconds that torch takes to import.
    parse_train_args(check_paths=True)

import os

# Loader workers share the cores with torch's threads: threads that spin while they wait take the workers' time, and on
# two cores cost several times the step. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import logging
import math
from argparse import Namespace
from collections.abc import Callable
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from catalog.label_space import LabelSpace
from runtime.atomic_file import check_writable
from runtime.errors import UsageError, first_line, report_usage_errors
from runtime.precision import resolve_precision
from runtime.process import leave_process_group, set_up_process
from runtime.random_state import seed_all
from timm import utils
from timm.data.mixed_sampler import MixedSampler
from timm.data.multi_label_mixup import MultiLabelMixup
from timm.data.view_plan import ViewPlan, plan_views
from timm.models.multi_label import MultiLabelModel
from timm.models.multi_label_checkpoint import Checkpoint, read_checkpoint
from timm.task.class_imbalance import class_weights, logit_margins
from timm.task.contrastive_loss import ContrastiveLoss
from timm.task.gradient_cache import (
    chunks_per_step,
    steps_per_epoch,
)
from timm.task.simclr_classification import SimCLRClassificationTask
from training.data import DataSettings, read_data
from training.frozen_features import feature_loaders
from training.health_check import HealthCheck, contrast_levels
from training.loaders import RunLoaderSettings, make_loaders
from training.loop import Run, loop
from training.loss_meter import NonFiniteLossGuard
from training.model import make_model
from training.optimization import learning_rate, make_optimizer, make_scheduler
from training.resume import restore_saver, restore_schedule, resume_ema, resume_task, resumed_folder
from training.summary import (
    forget_epochs,
    lower_is_better,
    metric_names,
)
from training.view_warnings import ViewSettings, view_warnings
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
    process = set_up_process(**process_kwargs(args))
    vars(args).update(vars(process) | {"device": str(process.device)})
    device = process.device
    resumed = read_checkpoint(args.resume) if args.resume else None
    plan = plan_views(
        contrast=args.simclr_loss_weight > 0,
        classify_view=args.classify_view,
        mixing=mixes_images(args),
        aug_splits=args.aug_splits,
    )
    data = DataSettings(**data_kwargs(args))
    label_space, train_set, eval_set = read_data(data, plan, resumed)
    only_sets = len(label_space) > 0 and label_space.multi_valued == set(label_space.attributes)
    args.eval_metric = resolve_eval_metric(args.eval_metric, args.classification_loss_weight > 0, only_sets)
    autocast, backward, dtype = resolve_precision(device, **precision_kwargs(args))
    check_run(args, label_space, plan)
    seed_all(args.seed)  # one seed for all: an EMA copies the first weights before DDP could send the first process's
    model = make_model(plan, label_space, device, fresh=resumed is None, **model_kwargs(args)).to(device, dtype)
    data_config = model.config["data_config"]
    loading = RunLoaderSettings(reads_labels=data.reads_labels, **loader_kwargs(args))
    train_loader, eval_loader, index_loader = make_loaders(loading, process, dtype, data_config, train_set, eval_set)
    task = make_task(args, model, plan, train_set.targets, device, dtype)
    chunks = chunks_per_step(**step_kwargs(args))
    args.lr = learning_rate(args.batch_size * chunks * args.world_size * args.grad_accum_steps, **rate_kwargs(args))
    optimizer = make_optimizer(model, device, args.lr, cached_gradients=chunks > 1, **optimizer_kwargs(args))
    start = prepare_task(args, task, optimizer, backward, resumed)
    decreasing = lower_is_better(args.eval_metric, label_space.attributes)
    updates = math.ceil(steps_per_epoch(len(train_loader), chunks) / args.grad_accum_steps)
    scheduler, num_epochs = make_scheduler(optimizer, updates, decreasing, **schedule_kwargs(args))
    warmup = 0 if args.sched == "none" else args.warmup_epochs
    images = images_per_batch(args, train_loader.sampler) * args.world_size
    levels = (
        contrast_levels(step_images(len(train_loader), chunks, images), **contrastive_kwargs(args))
        if plan.contrast
        else None
    )
    run = Run(
        args, device, plan, data_config, task, train_loader, eval_loader, index_loader, optimizer, scheduler,
        num_epochs, backward, autocast, NonFiniteLossGuard(lag=8 if device.type == "cuda" else 0),
        HealthCheck(_logger.warning, warmup, levels),
    )  # fmt: skip
    if args.freeze_backbone:
        cache_frozen_features(run, model)
    restore_schedule(args, optimizer, scheduler, updates, start, resumed)
    if utils.is_primary(args):
        open_folder(run, recipe, start, decreasing, resumed)
    log_start(run, label_space)
    try:
        loop(run, start)
    except KeyboardInterrupt:
        if run.folder and (run.folder / "last.pth.tar").exists():
            _logger.info(f"Interrupted. Go on with the same flags and --resume {run.folder}/last.pth.tar")
        raise


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
        contrastive = ContrastiveLoss(**contrastive_kwargs(args))
    mixup = None
    if mixes_images(args):
        low, high = args.cutmix_minmax or (0, 1)
        if any(int(side * low) >= int(side * high) for side in model.config["image_size"][1:]):
            raise UsageError(f"--cutmix-minmax {low:g} {high:g}: these are the same number of pixels, take them apart")
        mixup = MultiLabelMixup(model.label_space, **mixup_kwargs(args))
    return SimCLRClassificationTask(
        model,
        plan,
        contrastive=contrastive,
        mixup=mixup,
        class_weights=class_weights(targets, model.label_space, args.class_weights),
        logit_margins=logit_margins(targets, model.label_space, args.logit_adjustment),
        device=device,
        dtype=dtype,
        **task_kwargs(args),
    )


def prepare_task(
    args: Namespace,
    task: SimCLRClassificationTask,
    optimizer: torch.optim.Optimizer,
    backward: Any,
    resumed: Checkpoint | None,
) -> dict[str, Any]:
    """Resume, average, compile and distribute; return where to start (`epoch`, `batch`).

    The order is the one that works: the EMA copies resumed weights; compiling wraps the module that DDP then wraps,
    and the EMA must copy neither wrapper.
    """
    start = resume_task(args, task, optimizer, backward, resumed) if resumed else {"epoch": 0, "batch": 0}
    task.thresholds = resumed.saved_thresholds if resumed else {}
    if args.start_epoch is not None:
        start = {"epoch": args.start_epoch, "batch": 0}
    if args.model_ema:
        device = torch.device("cpu") if args.model_ema_force_cpu else None
        task.setup_ema(decay=args.model_ema_decay, use_warmup=args.model_ema_warmup, device=device)
        if resumed:
            resume_ema(task, resumed)
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
    if not args.no_aug or args.reprob or mixes_images(args) or args.tta:
        _logger.info("The frozen backbone's features are made anew each epoch; --no-aug makes them once")
        return
    run.train_loader, run.eval_loader = feature_loaders(
        model, run.train_loader, run.eval_loader, run.autocast, run.to_device
    )


def open_folder(
    run: Run, recipe: Callable[..., str], start: dict[str, Any], decreasing: bool, resumed: Checkpoint | None
) -> None:
    """Make the output folder, or go on in the one of the resumed checkpoint; only the primary process has one.

    Args:
        run: the run.
        recipe: returns the flags as YAML.
        start: the epoch to start with.
        decreasing: whether a lower --eval-metric is better.
        resumed: the checkpoint, None without one.
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
    if again and resumed:
        restore_saver(run.saver, resumed)
    if args.log_wandb:
        import wandb

        wandb.init(project=args.wandb_project, name=run.folder.name, config=vars(args))


def images_per_batch(args: Namespace, sampler: Any) -> int:
    """Return the images of a training batch on each process, with the unlabeled ones that are mixed in."""
    extra: int = sampler.extra if isinstance(sampler, MixedSampler) else 0
    return int(args.batch_size) + extra


def step_images(batches: int, chunks: int, images: int) -> list[int]:
    """Return the images of each step of an epoch; the last step may have fewer batches than the others.

    Args:
        batches: batches per epoch.
        chunks: batches per step.
        images: images per batch.
    """
    return [min(chunks, batches - first) * images for first in range(0, batches, chunks)]


def log_start(run: Run, label_space: LabelSpace) -> None:
    """Log what is about to happen, once."""
    args, train_set = run.args, run.train_loader.dataset
    for note in train_parser().notes(args, run.device):
        _logger.info(note)
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
        chunks = chunks_per_step(**step_kwargs(args))
        pairs = images_per_batch(args, run.train_loader.sampler) * chunks * args.world_size
        _logger.info(run.task.contrastive.at_chance(pairs))
    for sentence in view_warnings(ViewSettings(**view_kwargs(args)), label_space):
        _logger.warning(sentence)
    rest = f" (--epochs {args.epochs}, the rest is cooldown or prefix)" if run.num_epochs != args.epochs else ""
    steps = steps_per_epoch(len(run.train_loader), chunks_per_step(**step_kwargs(args)))
    _logger.info(f"Scheduled epochs: {run.num_epochs}{rest}, of {steps} steps each, {run.num_epochs * steps} in all")
    if run.folder:
        _logger.info(f"Output: {run.folder}")


if __name__ == "__main__":
    main()
