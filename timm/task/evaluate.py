"""One evaluation pass over a split, for train.py after each epoch and for validate.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from timm.task import evaluation_sample_limit
from timm.task.attribute_evaluator import AttributeEvaluator, Metrics

Logits = dict[str, Tensor]


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Iterable[Any],
    evaluator: AttributeEvaluator,
    autocast: Callable[[], AbstractContextManager[Any]],
    to_device: Callable[[Tensor], Tensor],
    *,
    tta: int = 0,
    distributed: bool = False,
    after_batch: Callable[[int, AttributeEvaluator], None] = lambda batch, evaluator: None,
) -> Metrics:
    """Score a model on a loader and return the metrics, which are the same on every process.

    Args:
        model: model that returns logits by attribute in evaluation mode; it is left in that mode.
        loader: batches of images [B, C, H, W] and targets [B, C]; with several processes, this process's share.
        evaluator: evaluator that counts; it is reset first.
        autocast: factory of the context that sets the precision of the forward pass.
        to_device: function that moves images to the model's device and memory format.
        tta: 2 averages the logits of an image and its mirror image; 0 does not.
        distributed: whether the processes of torch.distributed share the split.
        after_batch: callback after each batch, with the batch's index and the evaluator, for logging.
    """
    model.eval()
    evaluator.reset()
    evaluator.max_samples = evaluation_sample_limit(loader)
    for batch, (images, target) in enumerate(loader):
        with autocast():
            logits = predict(model, to_device(images), tta)
        evaluator.update(logits, target.to(evaluator.device, non_blocking=True))
        after_batch(batch, evaluator)
    return evaluator.compute(distributed=distributed)


def add_calibration(
    metrics: Metrics,
    evaluator: AttributeEvaluator,
    saved: Mapping[str, float],
    *,
    refit: bool = False,
    distributed: bool = False,
) -> dict[str, float]:
    """Add to the metrics how honest the probabilities are, and return the temperatures that were measured.

    Each attribute gets what `CalibrationMeter.measure` returns. The metrics get `ece` and, where an attribute has a
    temperature, `calibrated_ece`: weighted means over the attributes that have labels.

    Args:
        metrics: the result of `evaluate`.
        evaluator: the evaluator that counted.
        saved: the checkpoint's temperature by attribute; empty for none.
        refit: fit each temperature on this split instead, and measure it on the half that it was not fitted on.
        distributed: whether the processes of torch.distributed share the split.
    """
    assert evaluator.calibration is not None
    measured = evaluator.calibration.measure(saved, refit, distributed)
    for attribute, measures in measured.items():
        metrics["attributes"][attribute] |= measures
    temperatures = {name: values["temperature"] for name, values in measured.items() if "temperature" in values}
    metrics["ece"] = evaluator.mean([values["ece"] for values in measured.values()])
    if temperatures:
        after = [values.get("calibrated_ece", values["ece"]) for values in measured.values()]
        metrics["calibrated_ece"] = evaluator.mean(after)
    return temperatures


def predict(model: nn.Module, images: Tensor, tta: int = 0) -> Logits:
    """Return the logits of each attribute, [B, K].

    Args:
        model: model in evaluation mode.
        images: images on the model's device, [B, C, H, W].
        tta: 2 averages the logits of an image and its mirror image; 0 does not.
    """
    logits: Logits = model(images)
    if tta == 2:
        mirrored: Logits = model(images.flip(-1))
        logits = {name: (values + mirrored[name]) / 2 for name, values in logits.items()}
    return logits
