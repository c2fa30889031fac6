"""One pass over a split: what train.py does after an epoch and validate.py on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    """Score a model on a loader; the same metrics on every process.

    Args:
        model: gives logits by attribute in evaluation mode, in which it is left.
        loader: batches of images [B, C, H, W] and targets [B, C]; on several processes each its share.
        evaluator: counts; it is reset first.
        autocast: the precision's context.
        to_device: moves images to the model's device and memory format.
        tta: 2 averages the logits of an image and its mirror image.
        distributed: whether other processes hold the rest of the split.
        after_batch: called with the batch's index, for the log.
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


def predict(model: nn.Module, images: Tensor, tta: int = 0) -> Logits:
    """Return logits by attribute [B, K], with `tta` 2 the mean over an image [B, C, H, W] and its mirror image."""
    logits: Logits = model(images)
    if tta == 2:
        mirrored: Logits = model(images.flip(-1))
        logits = {name: (values + mirrored[name]) / 2 for name, values in logits.items()}
    return logits
