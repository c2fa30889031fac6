"""The loop of train.py: the epochs, their steps, and what follows each epoch."""

from __future__ import annotations

import logging
import math
from contextlib import nullcontext
from typing import Any

import torch

from runtime.random_state import epoch_seed, gather_objects, seed_all
from timm.data.mixed_sampler import MixedSampler
from timm.task.gradient_cache import (
    Chunk,
    Result,
    chunk_forwards,
    detached,
    grouped,
    joint_result,
    steps_per_epoch,
)
from training.epoch_log import EpochLog, projections_line, weights_line
from training.epoch_scores import EpochScores, report_unreadable, score_epoch, score_last, share_batch_norm
from training.loss_meter import EpochMeter, rows_of
from training.pseudo import teacher_line
from training.recovery import Recovery
from training.refit import probe_first, refit_epoch
from training.run import Run, Start
from training.summary import Row, epoch_row, measured_columns, measured_row, metric_value, soft_row

_logger = logging.getLogger("train")


def loop(run: Run) -> None:
    """Train and evaluate epoch by epoch, from `run.start`.

    Raises:
        Interrupted: a signal asked for an end, and the run's state after the last step is saved.
    """
    settings, task, first = run.settings, run.task, run.start["epoch"]
    if settings.probe_first and not (first or run.start["batch"]):
        probe_first(run)
    if run.early_stop.is_over:  # a resumed run that has stopped
        run.num_epochs = min(run.num_epochs, run.early_stop.epochs)
    if first >= run.num_epochs + settings.refit_heads:
        remedy = "the run stopped early; raise --early-stop" if run.early_stop.is_over else "raise --epochs or --steps"
        _logger.info(f"Nothing left to train: {first} of {run.num_epochs} epochs are done; {remedy}")
    for epoch in range(first, run.num_epochs):
        # train
        start_epoch(run, epoch)
        train_metrics = train_one_epoch(run, epoch, run.start if epoch == first and run.start["batch"] else None)
        share_batch_norm(run)

        # score
        weights = task.weights()
        scores = score_epoch(run, epoch)
        row, numbers = make_row(run, epoch, train_metrics | weights, scores)
        if stops_early(run, epoch, metric_value(row, settings.eval_metric)):
            row, numbers = make_row(run, epoch, train_metrics | weights, score_last(run, epoch, scores))
        report_unreadable(run)
        if settings.log_weights:
            _logger.info(f"Weights: {weights_line(weights)}")
        run.health_check.check(epoch, numbers)

        # set the learning rate and save
        value = metric_value(row, settings.eval_metric)
        run.progress = {"epoch": epoch + 1, "batch": 0}
        run.scheduler.step(epoch + 1, value)
        last = epoch + 1 == run.num_epochs or run.early_stop.is_over
        run.outputs.save_epoch(epoch, row, value, epoch + 1 == run.num_epochs)
        evaluated, averaged, _ = scores
        run.outputs.log_confusion(epoch, averaged if averaged and "ema_" in settings.eval_metric else evaluated)
        if not last or settings.refit_heads:
            run.stop.leave_if_asked()
        if run.early_stop.is_over:
            _logger.info(run.early_stop.sentence())
            break
    run.stop.defer(False)
    if settings.refit_heads and first <= run.num_epochs:
        refit_epoch(run)
    run.outputs.finish()


def make_row(run: Run, epoch: int, numbers: dict[str, float], scores: EpochScores) -> tuple[Row, dict[str, float]]:
    """Return an epoch's row of summary.csv, and its numbers with the neighbors' scores.

    Args:
        run: run that is trained.
        epoch: index of the epoch, from 0.
        numbers: what training measured, and the weights of the losses.
        scores: scores of the epoch.
    """
    evaluated, averaged, neighbors = scores
    attributes, numbers = run.task.label_space.attributes, numbers | neighbors
    columns = measured_columns(attributes, run.plan.contrast is not None, run.settings.knn_interval > 0)
    row = epoch_row(epoch, numbers, evaluated, averaged) | measured_row(columns, numbers)
    return row | soft_row(attributes, numbers), numbers


def stops_early(run: Run, epoch: int, value: float | None) -> bool:
    """Record an epoch's value of the metric, and return whether the run stops; all processes take the first one's."""
    if run.early_stop.patience:
        value = gather_objects(value, run.process.world_size)[0]
    run.early_stop.record(epoch, value)
    return run.early_stop.is_over


def start_epoch(run: Run, epoch: int) -> None:
    """Seed an epoch, choose the order of its rows, and switch mixing on or off."""
    settings = run.settings
    seed_all(settings.seed, run.process.rank, epoch)
    set_row_order(run.train_loader.sampler, settings.seed, epoch)
    if run.task.mixup is not None:
        run.task.mixup.set_enabled(not settings.mixup_off_epoch or epoch < settings.mixup_off_epoch)


def set_row_order(sampler: Any, seed: int, epoch: int) -> None:
    """Choose the order of an epoch's rows, the same on every process.

    A sampler without `set_epoch` draws from torch's generator, which `seed_all` has seeded.
    """
    if isinstance(sampler, MixedSampler):
        sampler.set_epoch(seed + epoch)  # it adds its own seed, and consecutive numbers continue its turns
    elif hasattr(sampler, "set_epoch"):
        sampler.set_epoch(epoch_seed(seed, epoch))  # the samplers seed their generator with this number alone


def train_one_epoch(run: Run, epoch: int, resumed: Start | None) -> dict[str, float]:
    """Train on every batch once; return the mean losses, the top-1, the last learning rate, the projections' metrics.

    A step is a batch, or with --contrastive-batch-size several batches that are contrasted together; the last step
    may have fewer.

    Args:
        run: run that is trained.
        epoch: index of the epoch, from 0.
        resumed: where a recovery checkpoint was written inside this epoch, else None.
    """
    settings, task, optimizer, process = run.settings, run.task, run.optimizer, run.process
    task.train()

    # steps, updates and what is measured
    batches, accum = len(run.train_loader), settings.grad_accum_steps
    steps = steps_per_epoch(batches, settings.chunks)
    updates = math.ceil(steps / accum)
    meter = EpochMeter(task, steps, process.distributed)
    log = EpochLog(_logger, epoch, steps, settings.log_interval, process.world_size, enabled=process.is_primary)
    recovery = Recovery(run, epoch, steps, meter, resumed)

    optimizer.zero_grad()
    for step, chunks in enumerate(grouped(run.train_loader, settings.chunks)):
        if recovery.is_done(step):
            continue

        # data
        chunks[:] = [(run.to_device(images), target.to(process.device, non_blocking=True)) for images, target in chunks]
        if log.is_due(step):
            run.outputs.save_views(epoch, step, *chunks[0])
        log.data_ready()

        # gradients
        lr = max(group["lr"] for group in optimizer.param_groups)  # the rate of layers that --layer-decay does not slow
        update = (step + 1) % accum == 0 or step + 1 == steps
        per_update = accum * settings.chunks
        share = len(chunks) / min(per_update, batches - step // accum * per_update)  # part of the update's images
        result = backpropagate(run, chunks, share, update)

        # measurements
        rows = rows_of(chunks)
        losses = meter.update(step, result, chunks)
        run.loss_guard.check(meter.losses.names, losses)
        chunks.clear()  # the loader's list: frees the memory of a step's images for the next step's
        run.train_loader.dataset.check_readable()

        # update
        if update:
            optimizer.zero_grad()
            done = epoch * updates + step // accum + 1
            task.update_ema(step=done)
            run.scheduler.step_update(done)
            if settings.synchronize and process.device.type == "cuda":
                torch.cuda.synchronize()
            recovery.save_if_due(step)
        recovery.end_step()
        log.step(step, rows, meter.averages, lr, meter.losses)
    log.close()

    averages = {"top1": meter.top1(), **meter.averages(), "lr": lr}
    if measured := meter.projection_metrics():
        _logger.info(f"Train: {epoch}  {projections_line(measured)}")
    if taught := task.soft_numbers():
        _logger.info(f"Teacher: {teacher_line(taught, task.label_space.attributes)}")
    return averages | measured | taught


def backpropagate(run: Run, chunks: list[Chunk], share: float, update: bool) -> Result:
    """Add the gradients of a step's joint loss, one chunk in memory at a time; return its losses and outputs.

    Args:
        run: run that is trained.
        chunks: batches that are contrasted together, on the device.
        share: factor on the loss; the shares of an update's steps add up to 1.
        update: whether to change the weights afterwards.
    """
    settings, task, optimizer = run.settings, run.task, run.optimizer
    results: list[Result] = []
    for forward in chunk_forwards(task, chunks, run.autocast):
        last = update and len(results) + 1 == len(chunks)
        with nullcontext() if last or not run.process.distributed else task.no_sync():
            with run.autocast():
                result = forward()
            run.backward(
                result["loss"] * share,
                optimizer,
                clip_grad=settings.clip_grad,
                clip_mode=settings.clip_mode,
                parameters=task.get_clip_parameters(exclude_head="agc" in settings.clip_mode),
                create_graph=getattr(optimizer, "is_second_order", False),
                need_update=last,
            )
        results.append(detached(result))
    return joint_result(results)
