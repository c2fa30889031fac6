"""Labeling images: the classes that models predict, and a report of the images without a prediction."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from reports.predictions import Predictions
from reports.probabilities import NoProbabilities
from serving.ensemble import Ensemble, Labels
from timm.data.image_dataset import ImageDataset

_logger = logging.getLogger("inference")

_NAMED = 10  # unreadable images in the log; the output file has all


def label(
    ensemble: Ensemble,
    batches: Iterable[tuple[Sequence[Tensor], Tensor]],
    dataset: ImageDataset,
    predictions: Predictions,
    distributions: NoProbabilities,
    *,
    thresholds: Mapping[str, float],
    tta: int,
    log_interval: int,
) -> None:
    """Predict the classes of every image.

    Args:
        ensemble: the models.
        batches: images of each model [B, C, H, W] and their rows [B], in order.
        dataset: the images, which marks those that could not be read.
        predictions: receives the predictions by row.
        distributions: receives the probabilities of all classes, batch by batch.
        thresholds: by attribute, the confidence at or below which a cell is blank.
        tta: 2 averages the logits of an image and its mirror image.
        log_interval: batches between two lines of the log.

    Raises:
        DataError: no image could be read.
    """
    start = last = time.perf_counter()
    done = total = 0
    for batch, (images, rows) in enumerate(batches):
        labels = ensemble.label(images, predictions.topk, tta)
        numbers = rows.cpu().numpy()
        put_labels(predictions, numbers, labels)
        for attribute in thresholds:
            unsure = ~(labels[attribute].confidence() > thresholds[attribute])  # also if it is no number
            predictions.blank(numbers[unsure], [attribute])
        readable = dataset.unreadable[rows.cpu()] == 0
        distributions.add({name: one.probabilities.cpu().numpy() for name, one in labels.items()}, readable.numpy())
        # the log
        total = total or math.ceil(len(dataset) / len(rows))
        done += len(rows)
        now, before, last = time.perf_counter(), last, time.perf_counter()
        if batch % log_interval == 0:
            _logger.info(
                f"Label: [{batch + 1:>4d}/{total}]  "
                f"Time: {now - before:.3f}s ({(now - start) / (batch + 1):.3f}s, {done / (now - start):>7.2f}/s)"
            )
    dataset.check_readable()


def put_labels(predictions: Predictions, rows: Any, labels: Mapping[str, Labels]) -> None:
    """Store the labels of a batch, by attribute, in its rows of the predictions."""
    for attribute, (probabilities, ranked, predicted) in labels.items():
        if ranked is None:
            assert predicted is not None
            predictions.put_set(attribute, rows, probabilities.cpu().numpy(), predicted.cpu().numpy())
        else:
            best = probabilities.gather(1, ranked)
            predictions.put(attribute, rows, ranked.cpu().numpy(), best.cpu().numpy())


def report_unreadable(dataset: ImageDataset, errors: Mapping[int, str]) -> None:
    """Log the images without a prediction.

    Args:
        dataset: the images.
        errors: the reason for each unreadable row.
    """
    for row in list(errors)[:_NAMED]:
        _logger.warning(f"Unreadable image: {dataset.name(row)} ({errors[row]})")
    if errors:
        more = f", the first {_NAMED} are named above" if len(errors) > _NAMED else ""
        _logger.warning(f"{len(errors)} of {len(dataset)} images unreadable{more}: blank, with the reason beside them")
