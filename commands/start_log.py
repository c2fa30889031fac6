"""What train.py logs before the first step."""

from __future__ import annotations

import logging
from argparse import Namespace
from typing import Any

import torch

from options import train_kwargs as flags
from options.train import train_parser
from options.train_optimizer import GENTLE_RATE, is_adaptive
from runtime.process import Process
from timm import utils
from timm.data.mixed_sampler import MixedSampler
from timm.task.ema_teacher import EmaTeacher
from timm.task.gradient_cache import steps_per_epoch
from training.pseudo import blank_line
from training.run import Run, Settings
from training.view_warnings import ViewSettings, soft_target_warnings, view_warnings

_logger = logging.getLogger("train")


def log_start(args: Namespace, run: Run) -> None:
    """Log what is about to happen."""
    # data
    for note in train_parser().notes(args, run.process.device):
        _logger.info(note)
    train_set, label_space = run.train_loader.dataset, run.task.label_space
    unlabeled = int((train_set.targets < 0).all(dim=1).sum())
    _logger.info(
        f"{train_set.table.path}: {len(train_set)} images, {unlabeled} of them unlabeled; classes: {label_space}"
    )
    if args.classification_loss_weight and not flags.unlabeled_ratio(args) and 2 * unlabeled > len(train_set):
        batch_size = run.settings.batch_size
        share = batch_size * (1 - unlabeled / len(train_set))
        _logger.info(
            f"About {share:.1f} images per batch have a label; with --unlabeled-ratio 1, {batch_size} have one"
        )
    if run.eval_loader is None:
        _logger.info("No attribute: nothing is scored, and only the contrastive loss trains the backbone")
    else:
        _logger.info(f"{run.eval_loader.dataset.table.path}: {len(run.eval_loader.dataset)} images")

    # model
    if not args.classification_loss_weight and len(label_space):
        _logger.info(
            "-wlc 0: the heads are not trained, so Class and Acc@1 are guesses; read the Neighbors lines instead"
        )
    if not (args.pretrained or args.pretrained_path or args.initial_checkpoint or args.resume):
        _logger.info("Random initial weights: no --pretrained, --pretrained-path or --initial-checkpoint")
    model = utils.model.unwrap_model(run.task.get_trainable_module())
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    _logger.info(f"{model.config['arch']}: {parameters:.2f} M parameters, {run.data_config}")
    if model.keeps_statistics:
        log_frozen_statistics(args, run.optimizer.defaults["lr"])

    # processes and views
    process, views = run.process, ", ".join(run.plan.kinds)
    _logger.info(
        f"{process.device}, {process.world_size} process(es), batch {run.settings.batch_size} each; views: {views}"
    )
    if run.plan.contrast is not None:
        pairs = images_per_batch(run.settings, process, run.train_loader) * run.settings.chunks
        _logger.info(run.task.contrastive.at_chance(pairs))
    viewing = ViewSettings(**flags.view_kwargs(args))
    for sentence in view_warnings(viewing, label_space):
        _logger.warning(sentence)
    if isinstance(run.task.soft_source, EmaTeacher):
        log_teacher(args, run.task.soft_source, train_set.targets, viewing)

    # schedule and folder
    rest = f" (--epochs {args.epochs}, plus cool-down or warm-up)" if run.num_epochs != args.epochs else ""
    if args.steps:
        warmup = flags.schedule_kwargs(args)["warmup_steps"]
        rest = f" (--steps {args.steps} updates, with {warmup} of warm-up)"
    steps = steps_per_epoch(len(run.train_loader), run.settings.chunks)
    if not run.num_epochs:
        _logger.info("No epochs: the heads are solved on the backbone's features; --epochs trains instead")
    _logger.info(f"Scheduled epochs: {run.num_epochs}{rest}, of {steps} steps each, {run.num_epochs * steps} in all")
    if run.outputs.folder:
        _logger.info(f"Output: {run.outputs.folder}")


def log_frozen_statistics(args: Namespace, lr: float) -> None:
    """Log why the backbone keeps its batch norm statistics, and warn at a learning rate that is too high for them."""
    why = f", as its weights are trained and the rate is {GENTLE_RATE:g} or less"
    why = "" if args.freeze_bn else ", as the resumed run did" if args.resume else why
    _logger.info(f"Batch norm: the backbone keeps its running statistics{why}; --no-freeze-bn trains them")
    if is_adaptive(args.opt) and lr > GENTLE_RATE:
        _logger.warning(
            f"Frozen batch norm may diverge at a learning rate of {lr:g} with --opt {args.opt}: use {GENTLE_RATE:g} or "
            "less, or --no-freeze-bn"
        )


def log_teacher(args: Namespace, teacher: EmaTeacher, targets: torch.Tensor, viewing: ViewSettings) -> None:
    """Log which cells get soft targets, and what would make these wrong."""
    _logger.info(blank_line(teacher, targets))
    if not (args.initial_checkpoint or args.resume or args.probe_first):
        _logger.warning(
            "--pseudo ema: the heads start untrained, so the first soft targets are guesses: "
            "solve them with --probe-first, or start from a trained run with --initial-checkpoint"
        )
    for sentence in soft_target_warnings(viewing, teacher.label_space, args.pseudo_skip):
        _logger.warning(sentence)


def images_per_batch(settings: Settings, process: Process, train_loader: Any) -> int:
    """Return the number of images in a training batch of all processes, including mixed-in unlabeled ones."""
    sampler = train_loader.sampler
    return (settings.batch_size + (sampler.extra if isinstance(sampler, MixedSampler) else 0)) * process.world_size
