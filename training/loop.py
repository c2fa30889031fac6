"""The loop of train.py: epochs, their steps, what is scored after each, and what is written down.

train.py makes what a `Run` holds; `loop` does the rest.
"""

from __future__ import annotations

import json
import logging
import math
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reports.curves import draw_curves
from runtime.errors import UsageError
from runtime.process import memory_format
from runtime.progress import progress_bar
from runtime.random_state import RandomState, gather_objects, get_random_state, preserved_random_state, seed_all
from simclr import ProjectionMeter
from timm import utils
from timm.data.preprocessing import DataConfig
from timm.data.view_plan import ViewPlan
from timm.task.attribute_evaluator import Metrics
from timm.task.evaluate import evaluate
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
from timm.task.simclr_classification import SimCLRClassificationTask
from training.epoch_log import EpochLog, attribute_line, metrics_line
from training.health_check import HealthCheck
from training.loss_meter import LossMeter, NonFiniteLossGuard
from training.resume import restore_random_state
from training.summary import (
    Row,
    epoch_row,
    metric_value,
    no_metrics,
    ranked,
    write_summary,
)
from training.view_sheet import save_view_sheet
from training.watch import (
    is_due,
    is_measured,
    named_accuracies,
    neighbors_lines,
    projections_line,
    watched_columns,
    watched_row,
    weights_line,
)

_logger = logging.getLogger("train")


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
    watch: NonFiniteLossGuard
    alarm: HealthCheck
    folder: Path | None = None
    saver: Any = None
    rows: list[Row] = field(default_factory=list)
    progress: dict[str, Any] = field(default_factory=dict)
    next_drawing: float = 0.0

    def to_device(self, images: Tensor) -> Tensor:
        """Move a batch to the device, in the number format and the memory format of the model."""
        # Without the prefetcher images come in float32, whatever the model's weights are.
        images = images.to(self.device, self.task.dtype, non_blocking=True)
        return images.contiguous(memory_format=memory_format(self.args.channels_last)) if images.ndim == 4 else images


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
    batches, accum = len(run.train_loader), args.grad_accum_steps
    chunks_each = chunks_per_step(args.batch_size, args.contrastive_batch_size)
    steps = steps_per_epoch(batches, chunks_each)
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
        if args.save_images and log.is_due(step) and run.folder:
            sheet = run.folder / f"train-{epoch}-{step}.png"
            save_view_sheet(sheet, *chunks[0], run.plan.kinds, run.data_config, task.label_space.describe)
        log.data_ready()
        lr = max(group["lr"] for group in optimizer.param_groups)  # that of layers which --layer-decay does not slow
        per_update = accum * chunks_each
        share = len(chunks) / min(per_update, batches - step // accum * per_update)  # of the update's images
        result = backpropagate(run, chunks, share, update)
        rows = sum(len(target) for _, target in chunks)
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
            own = {attribute: metrics["attributes"][attribute] for attribute in sorted(several)}
            # Where no image of the split has a label, an earlier threshold, of a stage before this one, is the better.
            kept_thresholds = task.thresholds.setdefault("thresholds_ema" if ema else "thresholds", {})
            kept_thresholds.update({name: values["threshold"] for name, values in own.items() if values["count"]})
        _logger.info(f"{name}: {metrics_line(metrics)}  ({rate:.1f}/s)")
        _logger.info(f"{' ' * len(name)}  {attribute_line(metrics)}")
        return metrics

    return score("Test", ema=False), score("Test (EMA)", ema=True) if task.has_ema() else None


def evaluate_neighbors(run: Run) -> dict[str, float]:
    """Score the representation by its nearest neighbors, and measure its spread; training goes on as if it had not."""
    task, attributes = run.task, run.task.label_space.attributes
    start = time.perf_counter()
    model = utils.model.unwrap_model(task.get_trainable_module())
    with preserved_random_state():
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
    draw_sometimes(run, last=epoch + 1 == run.num_epochs)
    if run.args.log_wandb:
        import wandb

        wandb.log(row)
    best: tuple[float | None, int | None] = run.saver.save_checkpoint(epoch, metric=value)
    return best


def draw_sometimes(run: Run, last: bool) -> None:
    """Draw the curves after the last epoch, and before it as often as takes a twentieth of the time at most."""
    assert run.folder is not None
    start = time.perf_counter()
    if start < run.next_drawing and not last:
        return
    try:
        draw_curves(run.folder / "summary.csv", run.folder)
    except (UsageError, OSError) as error:
        _logger.warning(f"No curves this time: {error}")  # a picture must not end a run
    end = time.perf_counter()
    run.next_drawing = end + 20 * (end - start)
