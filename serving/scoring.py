"""Scoring a model on a table: its metrics, its confusion matrices, and the speed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catalog.label_space import LabelSpace
from catalog.separated_cells import with_separator
from catalog.table import Table
from catalog.targets import encode_targets
from reports.per_class import Matrix
from serving.loading import EvaluationModel, make_loader
from simclr.collectives import rank, world_size
from timm.data.two_view_dataset import TwoViewDataset
from timm.models.multi_label_checkpoint import Checkpoint
from timm.task.attribute_evaluator import AttributeEvaluator, Metrics
from timm.task.evaluate import add_calibration, evaluate

_logger = logging.getLogger("validate")


@dataclass(frozen=True)
class Scores:
    """The result of scoring a model on a table.

    Attributes:
        metrics: the metrics of each attribute and their means.
        images_per_second: images of all processes per second.
        confusion: confusion matrices by attribute, [K + 1, K] or [K + 1, 3] for a multi-valued one; empty unless asked.
        temperatures: temperatures fitted on this table, by attribute; empty unless asked.
    """

    metrics: Metrics
    images_per_second: float
    confusion: dict[str, Matrix]
    temperatures: dict[str, float]


def scored_dataset(
    table: Table, ready: EvaluationModel, max_unreadable: float, separator: str | None = None
) -> TwoViewDataset:
    """Return a table's images with their targets; a class that the model does not know counts as wrong.

    Args:
        table: the table to score.
        ready: the model.
        max_unreadable: largest share of unreadable images, 0-1.
        separator: the text between the values of a cell; None for the model's.
    """
    table = with_separator(table, separator or ready.label_space.separator, ready.label_space.multi_valued)
    targets = encode_targets(table, ready.label_space, strict=False)
    return TwoViewDataset(table, targets, None, ready.channels, max_unreadable=max_unreadable)


def attribute_weights(checkpoint: Checkpoint, label_space: LabelSpace) -> list[float]:
    """Return the weights of the attributes in the means: the weights of training, so that its scores are reproduced."""
    given = checkpoint.trained_flags.get("attribute_weights") or {}
    weights = [float(given.get(name, 1.0)) for name in label_space.attributes]
    if len(set(weights)) > 1:
        shown = ", ".join(f"{name} {weight:g}" for name, weight in zip(label_space.attributes, weights, strict=True))
        _logger.info(f"Means are weighted as in training: {shown}")
    return weights


def score_table(
    ready: EvaluationModel,
    checkpoint: Checkpoint,
    table: Table,
    *,
    max_unreadable: float,
    separator: str | None,
    loading: Mapping[str, Any],
    **settings: Any,
) -> Scores:
    """Score a model on a table.

    Args:
        ready: the model.
        checkpoint: where it comes from, whose run weights the attributes.
        table: the images and their labels.
        max_unreadable: largest share of unreadable images, 0-1.
        separator: what separates the values of the table's cells; None for the model's separator.
        loading: arguments of `make_loader` besides the model and the dataset.
        settings: further arguments of `score_model`.

    Raises:
        UsageError: too many images are unreadable.
    """
    dataset = scored_dataset(table, ready, max_unreadable, separator)
    _logger.info(f"{table.path}: {len(dataset)} images, {ready.data_config}")
    weights = attribute_weights(checkpoint, ready.label_space)
    return score_model(ready, dataset, make_loader(ready, dataset, **loading), weights, **settings)


def score_model(
    ready: EvaluationModel,
    dataset: TwoViewDataset,
    loader: Any,
    weights: Sequence[float],
    *,
    tta: int,
    log_interval: int,
    confusion: bool = False,
    calibrate: bool = False,
) -> Scores:
    """Score a model; with several processes each reads its share, and all return the same metrics.

    Args:
        ready: the model.
        dataset: the images and targets.
        loader: a loader of the dataset.
        weights: weights of the attributes in the means.
        tta: 2 averages the logits of an image and its mirror image.
        log_interval: batches between two lines of the log.
        confusion: whether to count confusion matrices.
        calibrate: whether to fit temperatures, instead of measuring the checkpoint's.

    Raises:
        UsageError: too many images are unreadable.
    """
    distributed = world_size() > 1
    evaluator = AttributeEvaluator(
        ready.label_space, weights, ready.device, confusion=confusion, thresholds=ready.thresholds
    )
    # the pass over the table
    start = time.perf_counter()
    metrics = evaluate(
        ready.run,
        loader,
        evaluator,
        ready.autocast,
        ready.to_device,
        tta=tta,
        distributed=distributed,
        after_batch=_progress(log_interval, len(loader)),
    )
    rate = len(dataset) / (time.perf_counter() - start)
    # images that could not be read
    settle_unreadable(dataset, ready)
    matrices = evaluator.confusion_matrices(distributed=distributed) if confusion else {}
    # calibration
    saved = ready.model.temperatures
    fitted = add_calibration(metrics, evaluator, saved, refit=calibrate, distributed=distributed)
    confusions = {attribute: matrix.numpy() for attribute, matrix in matrices.items()}
    return Scores(metrics, rate, confusions, fitted if calibrate else {})


def settle_unreadable(dataset: TwoViewDataset, ready: EvaluationModel) -> None:
    """Log each unreadable image once, whichever process found it.

    Raises:
        UsageError: too many images are unreadable.
    """
    if world_size() > 1:
        dataset.share_unreadable(ready.device)
    if rank() == 0:
        dataset.report_unreadable()
    dataset.check_readable()


def _progress(interval: int, batches: int) -> Callable[[int, AttributeEvaluator], None]:
    """Return a function that logs the scores of this process so far, at intervals; only the primary process logs."""
    start = last = time.perf_counter()

    def log(batch: int, evaluator: AttributeEvaluator) -> None:
        nonlocal last
        now, before, last = time.perf_counter(), last, time.perf_counter()
        if batch % interval == 0 and _logger.isEnabledFor(logging.INFO):
            so_far = evaluator.summary()
            rate = evaluator.num_samples / max(now - start, 1e-9)
            _logger.info(
                f"Test: [{batch + 1:>4d}/{batches}]  "
                f"Time: {now - before:.3f}s ({(now - start) / (batch + 1):.3f}s, {rate:>7.2f}/s)  "
                f"Loss: {so_far['loss']:>7.4f}  Acc@1: {so_far['top1']:>7.3f}  Acc@5: {so_far['top5']:>7.3f}"
            )

    return log
