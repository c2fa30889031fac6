"""The joint task of a run: made from model and losses, compiled, and distributed over processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from runtime.errors import UsageError, first_line
from runtime.process import Process
from timm.data.multi_label_mixup import MultiLabelMixup
from timm.data.view_plan import ViewPlan
from timm.models.multi_label import MultiLabelModel
from timm.task.class_imbalance import class_weights, logit_margins
from timm.task.contrastive_loss import ContrastiveLoss
from timm.task.simclr_classification import SimCLRClassificationTask


def make_task(
    model: MultiLabelModel,
    plan: ViewPlan,
    targets: Tensor,
    device: torch.device,
    dtype: torch.dtype,
    *,
    contrastive: Mapping[str, Any],
    mixup: Mapping[str, Any] | None,
    class_weighting: str,
    logit_adjustment: float,
    **losses: Any,
) -> SimCLRClassificationTask:
    """Return the task of a model and its losses.

    Args:
        model: model, on its device.
        plan: views of an image.
        targets: int64 [rows, C], the training table's, from which the frequency of classes follows.
        device: the model's device.
        dtype: the model's dtype.
        contrastive: arguments of `ContrastiveLoss`.
        mixup: arguments of `MultiLabelMixup`; None without mixing.
        class_weighting: how rare classes are weighted.
        logit_adjustment: strength of the margins between frequent and rare classes; 0 for none.
        losses: further arguments of `SimCLRClassificationTask`.

    Raises:
        UsageError: --cutmix-minmax leaves a single size of boxes.
    """
    if mixup is not None:
        low, high = mixup["cutmix_minmax"] or (0, 1)
        if any(int(side * low) >= int(side * high) for side in model.config["image_size"][1:]):
            raise UsageError(
                f"--cutmix-minmax {low:g} {high:g}: both are the same number of pixels, so choose them further apart"
            )
    return SimCLRClassificationTask(
        model,
        plan,
        contrastive=ContrastiveLoss(**contrastive) if plan.contrast is not None else None,
        mixup=MultiLabelMixup(model.label_space, **mixup) if mixup is not None else None,
        class_weights=class_weights(targets, model.label_space, class_weighting),
        logit_margins=logit_margins(targets, model.label_space, logit_adjustment),
        device=device,
        dtype=dtype,
        **losses,
    )


def compile_task(task: SimCLRClassificationTask, backend: str, mode: str | None) -> None:
    """Compile the model of a task.

    Raises:
        UsageError: PyTorch has no such backend or mode.
    """
    try:
        task.compile(backend=backend, mode=mode)
    except RuntimeError as error:  # about the backend or the mode only: the model is compiled at its first step
        words = f" --torchcompile-mode {mode}" if mode else ""
        raise UsageError(
            f"--torchcompile {backend}{words} cannot be used ({first_line(error)}): choose "
            "another backend or mode, or leave --torchcompile out"
        ) from error


def distribute_task(task: SimCLRClassificationTask, process: Process, broadcast_buffers: bool) -> None:
    """Wrap the model of a task in DistributedDataParallel.

    The heads get gradients of 0 where a batch has no label, so every parameter always takes part.

    Args:
        task: task, compiled or not.
        process: device of this process.
        broadcast_buffers: whether the first process's buffers are sent before each step.
    """
    task.prepare_distributed(device_ids=[str(process.device)] if process.device.type == "cuda" else None)
    if not broadcast_buffers:  # set as an attribute, because PyTorch has renamed the argument
        task.trainable_module.broadcast_buffers = False  # type: ignore[assignment]
