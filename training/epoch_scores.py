"""The scores after an epoch: model and averaged model on the validation split, and nearest neighbors."""

from __future__ import annotations

import logging
import time
from copy import deepcopy

from runtime.progress import progress_bar
from runtime.random_state import preserved_random_state
from timm import utils
from timm.task.attribute_evaluator import Metrics
from timm.task.evaluate import add_calibration, evaluate
from timm.task.nearest_neighbors import neighbor_metrics
from training.epoch_log import attribute_line, calibration_line, metrics_line, neighbors_lines
from training.run import Run
from training.summary import is_due, named_accuracies, no_metrics

_logger = logging.getLogger("train")


# metrics of the model and of its moving average, and scores of the nearest neighbors
EpochScores = tuple[Metrics, Metrics | None, dict[str, float]]


def score_epoch(run: Run, epoch: int) -> EpochScores:
    """Return the scores of an epoch, blank where nothing is due."""
    return *validate(run, epoch), evaluate_neighbors(run, epoch)


def score_last(run: Run, epoch: int, scores: EpochScores) -> EpochScores:
    """Make an epoch the run's last one, and return its scores with what is due after a last epoch.

    Args:
        run: the run, which stops.
        epoch: index of the epoch, from 0.
        scores: scores of the epoch so far.
    """
    settings, planned = run.settings, run.num_epochs
    run.num_epochs = epoch + 1
    evaluated, averaged, neighbors = scores
    if not is_due(epoch, settings.val_interval, planned):
        evaluated, averaged = validate(run, epoch)
    return evaluated, averaged, neighbors or evaluate_neighbors(run, epoch)


def share_batch_norm(run: Run) -> None:
    """Give every process the same running statistics, which the checkpoint will hold.

    The statistics of the processes differ since DDP last broadcast them, but one model must score all parts of the
    validation split. Averaged weights on another device are shared when they are scored.
    """
    models = [run.task.get_trainable_module()]
    if run.task.has_ema() and not ema_is_elsewhere(run):
        models.append(run.task.get_trainable_module(ema=True))
    if run.process.distributed:
        for model in models:
            utils.distribute_bn(model, run.process.world_size, run.settings.dist_bn == "reduce")


def validate(run: Run, epoch: int) -> tuple[Metrics, Metrics | None]:
    """Return the metrics of the model and of its moving average, blank in an epoch without validation."""
    if run.eval_loader is not None and is_due(epoch, run.settings.val_interval, run.num_epochs):
        return evaluate_epoch(run)
    blank = no_metrics(run.task.label_space.attributes, run.task.label_space.multi_valued)
    return blank, blank if run.task.has_ema() else None


def evaluate_epoch(run: Run) -> tuple[Metrics, Metrics | None]:
    """Score the model on the validation split, and its moving average if there is one; log both."""
    return _score(run, "Test", ema=False), _score(run, "Test (EMA)", ema=True) if run.task.has_ema() else None


def _score(run: Run, name: str, ema: bool) -> Metrics:
    """Score one model on the validation split, log its metrics, and keep its thresholds and temperatures."""
    task, process = run.task, run.process
    start = time.perf_counter()

    # the model, on the device of this process
    kept = task.get_eval_model(ema=ema)
    assert kept is not None
    model = kept
    if ema and ema_is_elsewhere(run):
        model = deepcopy(kept).to(process.device)  # only while it is scored: the steps need the memory
        if process.distributed:
            utils.distribute_bn(model, process.world_size, run.settings.dist_bn == "reduce")
            kept.load_state_dict(model.state_dict())

    # its metrics
    evaluator = task.create_evaluator(confusion=run.settings.counts_confusions)
    with progress_bar(len(run.eval_loader), name, enabled=process.is_primary) as bar:
        metrics = evaluate(
            model,
            run.eval_loader,
            evaluator,
            run.autocast,
            run.to_device,
            tta=run.settings.tta,
            distributed=process.distributed,
            after_batch=lambda *_: bar.update(),
        )
    rate = len(run.eval_loader.dataset) / (time.perf_counter() - start)

    # confusion matrices
    if run.settings.counts_confusions:
        matrices = evaluator.confusion_matrices(distributed=process.distributed)
        classes = {name: matrix for name, matrix in matrices.items() if name not in task.label_space.multi_valued}
        metrics["confusion"] = {name: matrix.numpy() for name, matrix in classes.items()}

    # thresholds and temperatures; an attribute without any label keeps its earlier ones
    suffix = "_ema" if ema else ""
    if several := task.label_space.multi_valued:
        found = {attribute: metrics["attributes"][attribute] for attribute in sorted(several)}
        thresholds = task.chosen.setdefault(f"thresholds{suffix}", {})
        thresholds.update({attribute: values["threshold"] for attribute, values in found.items() if values["count"]})
    temperatures = add_calibration(metrics, evaluator, {}, refit=True, distributed=process.distributed)
    task.chosen.setdefault(f"temperatures{suffix}", {}).update(temperatures)
    _logger.info(f"{name}: {metrics_line(metrics)}  ({rate:.1f}/s)")
    _logger.info(f"{' ' * len(name)}  {attribute_line(metrics)}")
    if temperatures:
        _logger.info(f"{' ' * len(name)}  {calibration_line(metrics)}")
    return metrics


def ema_is_elsewhere(run: Run) -> bool:
    """Return whether the averaged weights are kept on another device than the model."""
    return run.settings.ema_on_cpu and run.process.device.type != "cpu"


def evaluate_neighbors(run: Run, epoch: int) -> dict[str, float]:
    """Score the representation by its nearest neighbors and measure its spread, if the epoch is due.

    It restores the random state, so that it does not change the training.
    """
    if run.index_loader is None or not is_due(epoch, run.settings.knn_interval, run.num_epochs):
        return {}
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
    """Log each unreadable image once, whichever process found it."""
    for loader in filter(None, (run.train_loader, run.eval_loader)):
        if run.process.distributed:
            loader.dataset.share_unreadable(run.process.device)
        if run.process.is_primary:
            loader.dataset.report_unreadable()
        loader.dataset.check_readable()
