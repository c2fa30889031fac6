#!/usr/bin/env python3
"""Train one model that predicts every attribute of an image table, with SimCLR at the same time.

    python train.py DATA --model efficientnet_b0 -b 32 --sched cosine --epochs 100 --opt adamp --lr .016
    ./distributed_train.sh 2 DATA ...           the same on two processes
    python train.py DATA ... --experiment RUN --resume auto    the same command, started again after any end

DATA holds train.csv and val.csv (docs/data.md). A run leaves output/train/<time>-<model>-<size>/ with
args.yaml, summary.csv, curves, checkpoint-N.pth.tar, last.pth.tar and model_best.pth.tar.
"""

from commands.early_mistakes import report_table_mistakes
from options import train_kwargs as flags
from options.resumed_flags import change_lines, network_changes
from options.run_folder import DEFAULT_OUTPUT
from options.shared import SMALLER_TRAINING
from options.train import parse_train_args, resolve_eval_metric
from options.train_pseudo import has_soft_labels, has_teacher
from options.train_views import mixes_images

if __name__ == "__main__":
    # --help, a misspelled flag and a wrong table are answered at once, not after torch was imported.
    report_table_mistakes("train.py", parse_train_args(check_paths=True))

import os

# Loader workers share the cores with torch's threads. Threads that spin while they wait take the workers' time, which
# on two cores makes a step several times slower. Torch reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import logging
import math
from argparse import Namespace
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from catalog.label_space import LabelSpace
from commands import leave_report
from commands.find_resumed import changed_flags, find_resumed
from commands.open_outputs import launch_words, open_outputs
from commands.start_log import images_per_batch, log_start
from runtime.atomic_file import check_writable
from runtime.batch_memory import check_batch_fits
from runtime.errors import UsageError, report_usage_errors
from runtime.precision import resolve_precision
from runtime.process import Process, leave_now, leave_process_group, set_up_process
from runtime.progress import announced
from runtime.random_state import gather_objects, seed_all
from runtime.rank_watch import explained_ranks
from runtime.stop_signals import StopSignals, stop_signals
from timm.data.loader_workers import explained_workers
from timm.data.view_plan import ViewPlan, plan_views, with_teacher
from timm.models.multi_label import MultiLabelModel
from timm.models.multi_label_checkpoint import Checkpoint
from timm.task.gradient_cache import chunks_per_step, steps_per_epoch
from timm.task.simclr_classification import SimCLRClassificationTask
from timm.task.soft_label_source import SoftLabelSource
from training.data import read_data
from training.early_stop import EarlyStop
from training.flag_names import naming_flags
from training.frozen_features import evaluation_features, feature_loaders
from training.health_check import HealthCheck, contrast_levels
from training.label_tables import DataSettings
from training.loaders import RunLoaderSettings, fitting_batch_size, make_loaders
from training.loggers import SERVICES
from training.loop import loop
from training.loss_meter import NonFiniteLossGuard
from training.model import check_batch_norm, make_model
from training.optimization import learning_rate, make_optimizer, make_scheduler
from training.outputs import NoOutputs, way_to_resume
from training.pseudo import read_pseudo_labels, set_teacher
from training.resume import (
    check_position,
    restore_schedule,
    resume_ema,
    resume_task,
    resumed_freeze_bn,
)
from training.run import Run, Settings, Start
from training.stop_vote import StopVote
from training.summary import lower_is_better, measured_columns, metric_interval, metric_names, soft_columns
from training.task import compile_task, distribute_task, make_task

_logger = logging.getLogger("train")


def main(argv: list[str] | None = None) -> None:
    """Train as the command line says."""
    args = parse_train_args(argv)
    with (
        leave_process_group(),
        report_usage_errors("train.py", SMALLER_TRAINING),
        naming_flags(
            *("amp", "amp_dtype", "model_dtype", "max_unreadable", "workers", "batch_size", "img_size", "dist_timeout")
        ),
        explained_workers(),
        explained_ranks(),
        stop_signals("train.py") as signals,
    ):
        run = prepare(args, signals)
        train(run)
        folder, device = run.outputs.folder, run.process.device
        del run  # its memory, and the workers of its loaders
        leave_now()
        if folder and args.report:
            leave_report.leave_report(folder, device, args.workers)


def train(run: Run) -> None:
    """Train to the end; if the machine or a signal ends the run, name the command that resumes it."""
    try:
        with explained_workers(run.outputs.way_to_resume), explained_ranks(run.outputs.way_to_resume):
            loop(run)
    except KeyboardInterrupt:
        _logger.info(f"Interrupted. {run.outputs.way_to_resume()}")
        raise


def prepare(args: Namespace, signals: StopSignals | None = None) -> Run:
    """Return a run that is ready to train, with its data, model, task, schedule and output folder.

    Args:
        args: the flags.
        signals: the signals that may stop the run; None if nothing handles them.
    """
    # tables and views
    with naming_flags("device", "dist_backend"):
        process = set_up_process(**flags.process_kwargs(args))
    device = process.device
    args, resumed, folder = find_resumed(args, process)
    plan = plan_views(
        contrast=args.simclr_loss_weight > 0,
        classify_view=args.classify_view,
        mixing=mixes_images(args),
        aug_splits=args.aug_splits,
    )
    if has_teacher(args):
        plan = with_teacher(plan)
    elif has_soft_labels(args):
        plan = replace(plan, taught=plan.classify)
    data = DataSettings(**flags.data_kwargs(args))
    label_space, train_set, eval_set = read_data(data, plan, resumed)
    only_sets = len(label_space) > 0 and label_space.multi_valued == set(label_space.attributes)
    metric = resolve_eval_metric(args.eval_metric, args.classification_loss_weight > 0, only_sets)
    autocast, backward, dtype = resolve_precision(device, **flags.precision_kwargs(args))
    check_run(args, process, label_space, plan, metric)
    soft_labels = None
    if has_soft_labels(args):
        soft_labels = read_pseudo_labels(train_set, label_space, args.pseudo_labels, args.pseudo_skip)

    # batch and learning rate
    loading = RunLoaderSettings(reads_labels=data.reads_labels, **flags.loader_kwargs(args))
    batch_size = fitting_batch_size(loading, process, train_set)
    loading = replace(loading, batch_size=batch_size)
    chunks = chunks_per_step(batch_size, args.contrastive_batch_size)
    lr = learning_rate(batch_size * chunks * process.world_size * args.grad_accum_steps, **flags.rate_kwargs(args))

    changed = changed_flags(args, process, resumed, eval_metric=metric, lr=lr) if resumed else []

    # model and loaders
    seed_all(args.seed)  # the same on every process: an EMA copies the first weights before DDP broadcasts them
    freeze_bn = resumed_freeze_bn(flags.freeze_bn(args, lr), resumed)
    check_fits = partial(check_batch_fits, batch_size, views=plan.forwarded, on_host=device.type == "cpu")
    if size := flags.model_kwargs(args)["image_size"]:
        check_fits(size)  # before a model for such images is built
    outputs = sum(label_space.num_classes.values())
    with announced(f"Building {args.model} with heads for {outputs:,} classes", _logger.info):
        model = make_model(
            plan, label_space, device, fresh=resumed is None, freeze_bn=freeze_bn, **flags.model_kwargs(args)
        ).to(device, dtype)
    check_batch_norm(model, batch_size * plan.forwarded)
    data_config = model.config["data_config"]
    check_fits(tuple(model.config["image_size"]))
    train_loader, eval_loader, index_loader, clean_loader = make_loaders(
        loading, process, dtype, data_config, train_set, eval_set
    )

    # task, optimizer and schedule
    task = make_task(model, plan, train_set.targets, device, dtype, **flags.task_kwargs(args))
    optimizer = make_optimizer(model, device, lr, cached_gradients=chunks > 1, **flags.optimizer_kwargs(args))
    start = prepare_task(args, process, task, optimizer, backward, resumed, network_changes(changed))
    decreasing = lower_is_better(metric, label_space.attributes)
    steps = steps_per_epoch(len(train_loader), chunks)
    updates = math.ceil(steps / args.grad_accum_steps)
    if resumed:
        check_position(start, resumed, steps, updates if args.steps else None)
        for line in change_lines(resumed.path, changed):
            _logger.info(line)
    scoring = flags.val_interval(args, updates)
    interval = metric_interval(metric, label_space.attributes, scoring, args.knn_interval)
    scheduler, num_epochs = make_scheduler(optimizer, updates, decreasing, interval, **flags.schedule_kwargs(args))
    if has_teacher(args):
        state = resumed.pseudo if resumed else None
        set_teacher(task, train_set.targets, num_epochs * steps, state, **flags.pseudo_kwargs(args))
    elif soft_labels is not None:
        task.soft_source = SoftLabelSource(soft_labels, label_space, device)

    # run
    settings = Settings(batch_size=batch_size, chunks=chunks, eval_metric=metric, **flags.loop_kwargs(args, updates))
    loss_guard = NonFiniteLossGuard(lag=8 if device.type == "cuda" else 0)
    warmup = flags.warmup_epochs(args, updates)
    health_check = make_health_check(args, process, settings, plan, train_loader, warmup)
    stop = StopVote(signals or StopSignals("train.py"), process)
    run = Run(
        process, settings, plan, data_config, task, train_loader, eval_loader, index_loader, optimizer, scheduler,
        num_epochs, backward, autocast, loss_guard, health_check, start, stop, clean_loader,
    )  # fmt: skip
    run.early_stop = EarlyStop(metric, decreasing, args.early_stop or 0)
    run.early_stop.restore(resumed.early_stop if resumed else None)
    if args.freeze_backbone:
        cache_frozen_features(args, run, model)
    done = start["epoch"] * updates + start["batch"] // args.grad_accum_steps
    restored = None if args.no_resume_opt else resumed
    restore_schedule(optimizer, scheduler, start, done, restored, **flags.resumed_schedule_kwargs(args, updates))
    if process.is_primary:
        run.outputs = open_outputs(args, run, lr, decreasing, resumed, folder)
    output = gather_objects(run.outputs.folder, process.world_size)[0]
    if not process.is_primary:  # this process may be the one that reports the death of the first
        run.outputs = NoOutputs(partial(way_to_resume, launch_words(process), output))
    log_start(args, run)
    return run


def check_run(args: Namespace, process: Process, label_space: LabelSpace, plan: ViewPlan, metric: str) -> None:
    """Refuse flags that do not fit the data or the machine, before a model or a folder exists.

    Raises:
        UsageError: the metric, a loss, the logger, the batch size or the output folder does not fit.
    """
    contrast = plan.contrast is not None
    measured = measured_columns(label_space.attributes, contrast, args.knn_interval > 0)
    measured += soft_columns(label_space.attributes) if has_teacher(args) or has_soft_labels(args) else []
    names = metric_names(label_space.attributes, args.model_ema, contrast, measured, label_space.multi_valued)
    if metric not in names:
        ema = "; ema_ metrics need --model-ema" if metric.startswith("ema_") and not args.model_ema else ""
        raise UsageError(f"--eval-metric {metric} is not logged{ema}; choose one of {', '.join(names)}")
    if label_space.multi_valued and args.jsd:
        several = ", ".join(sorted(label_space.multi_valued))
        raise UsageError(f"--jsd does not work with multi-valued attributes ({several}): leave --jsd out")
    if args.multi_valued_loss != "bce" and not label_space.multi_valued:
        raise UsageError(
            f"--multi-valued-loss {args.multi_valued_loss}: no attribute is multi-valued, so leave --multi-valued-loss "
            "out"
        )
    for package in ("tensorboard", *SERVICES):
        if getattr(args, f"log_{package}") and not find_spec(package):
            raise UsageError(f"--log-{package} needs the package {package}: pip install {package}")
    if contrast and args.batch_size * process.world_size < 2:
        raise UsageError(
            "--batch-size 1 gives the contrastive loss no other image: use 2 or more, or turn this loss off with -wls 0"
        )
    if process.is_primary:
        check_writable(Path(args.output or DEFAULT_OUTPUT, "args.yaml"))


def prepare_task(
    args: Namespace,
    process: Process,
    task: SimCLRClassificationTask,
    optimizer: torch.optim.Optimizer,
    backward: Any,
    resumed: Checkpoint | None,
    changed: str,
) -> Start:
    """Resume, average, compile and distribute a task; return where to start.

    `changed` names the flags of the network that differ from the resumed run's.

    Only this order works. The EMA copies resumed weights. Compiling wraps the module, DDP wraps the compiled one, and
    the EMA must copy neither wrapper.
    """
    start = {"epoch": 0, "batch": 0}
    if resumed:
        start = resume_task(task, optimizer, backward, resumed, not args.no_resume_opt, changed)
    task.chosen = resumed.chosen if resumed else {}
    if args.start_epoch is not None:
        start = {"epoch": args.start_epoch, "batch": 0}
    if args.model_ema:
        device = torch.device("cpu") if args.model_ema_force_cpu else None
        task.setup_ema(decay=args.model_ema_decay, use_warmup=args.model_ema_warmup, device=device)
        if resumed:
            resume_ema(task, resumed)
    if args.torchcompile:
        compile_task(task, args.torchcompile, args.torchcompile_mode)
    if process.distributed:
        distribute_task(task, process, broadcast_buffers=not args.no_ddp_bb)
    return start


def make_health_check(
    args: Namespace, process: Process, settings: Settings, plan: ViewPlan, train_loader: Any, warmup_epochs: int
) -> HealthCheck:
    """Return the check of each epoch's numbers, with the contrastive loss at chance and at its best."""
    levels = None
    if plan.contrast is not None:
        images, chunks = images_per_batch(settings, process, train_loader), settings.chunks
        steps = [min(chunks, len(train_loader) - first) * images for first in range(0, len(train_loader), chunks)]
        levels = contrast_levels(steps, **flags.contrastive_kwargs(args))
    return HealthCheck(_logger.warning, warmup_epochs, levels)


def cache_frozen_features(args: Namespace, run: Run, model: MultiLabelModel) -> None:
    """Compute a frozen backbone's features once, if no augmentation changes them."""
    if not args.no_aug or args.reprob or mixes_images(args) or args.tta:
        if run.num_epochs:
            _logger.info("The frozen backbone's features are recomputed in each epoch; --no-aug computes them once")
        return
    if not run.num_epochs:  # the heads are solved on the clean images
        run.eval_loader = evaluation_features(model, run.eval_loader, run.autocast, run.to_device)
        return
    run.train_loader, run.eval_loader = feature_loaders(
        model, run.train_loader, run.eval_loader, run.autocast, run.to_device
    )


if __name__ == "__main__":
    main()
