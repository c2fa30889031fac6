"""Labeling images: the classes that a model predicts, and a report of the images without a prediction."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import torch

from reports.predictions import Predictions
from serving.calibration import probabilities
from serving.loading import EvaluationModel
from timm.data.image_dataset import ImageDataset
from timm.task.evaluate import predict
from timm.task.multi_valued_meter import predicted_values
from timm.task.top_classes import top_classes

_logger = logging.getLogger("inference")

_NAMED = 10  # unreadable images in the log; the output file has all


@torch.inference_mode()
def label(
    ready: EvaluationModel, loader: Any, predictions: Predictions, *, topk: int, tta: int, log_interval: int
) -> None:
    """Predict the classes of every image.

    Args:
        ready: the model.
        loader: batches of images [B, C, H, W] and their rows [B].
        predictions: receives the predictions by row.
        topk: number of classes to keep for each attribute.
        tta: 2 averages the logits of an image and its mirror image.
        log_interval: batches between two lines of the log.
    """
    start = last = time.perf_counter()
    done = 0
    for batch, (images, rows) in enumerate(loader):
        with ready.autocast():
            logits = predict(ready.run, ready.to_device(images), tta)
        rows = rows.cpu().numpy()
        # the predictions
        for attribute, values in logits.items():
            calibrated = probabilities(values, ready.temperatures[attribute], attribute in ready.thresholds)
            # The uncalibrated scores decide, so that no rounding of the temperature changes a prediction.
            if attribute in ready.thresholds:
                predicted = predicted_values(values, ready.thresholds[attribute])
                predictions.put_set(attribute, rows, calibrated.cpu().numpy(), predicted.cpu().numpy())
                continue
            best = top_classes(values.float(), topk)
            predictions.put(attribute, rows, best.cpu().numpy(), calibrated.gather(1, best).cpu().numpy())
        # the log
        done += len(rows)
        now, before, last = time.perf_counter(), last, time.perf_counter()
        if batch % log_interval == 0:
            _logger.info(
                f"Label: [{batch + 1:>4d}/{len(loader)}]  "
                f"Time: {now - before:.3f}s ({(now - start) / (batch + 1):.3f}s, {done / (now - start):>7.2f}/s)"
            )


def report_unreadable(dataset: ImageDataset, errors: Mapping[int, str]) -> None:
    """Log the images without a prediction.

    Args:
        dataset: the images.
        errors: the reason for each unreadable row.
    """
    for row in list(errors)[:_NAMED]:
        _logger.warning(f"Unreadable image: {dataset.paths[row].as_py()} ({errors[row]})")
    if errors:
        more = f", the first {_NAMED} are named above" if len(errors) > _NAMED else ""
        _logger.warning(f"{len(errors)} of {len(dataset)} images unreadable{more}: blank, with the reason beside them")
