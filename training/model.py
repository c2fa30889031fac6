"""The model of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from catalog.label_space import LabelSpace
from runtime.errors import UsageError
from runtime.process import memory_format
from timm.data.preprocessing import resolve_preprocessing
from timm.data.view_plan import ViewPlan
from timm.models.batch_norm import (
    batch_norms,
    freeze_batch_norm,
    require_batch_norm,
    set_batch_norm,
    split_batch_norm,
    synchronize_batch_norm,
)
from timm.models.initial_checkpoint import load_initial_checkpoint
from timm.models.multi_label import MultiLabelModel, create_multi_label_model
from timm.models.pretrained_weights import DownloadError
from training.flag_names import naming_flags


def check_batch_norm(model: torch.nn.Module, rows: int) -> None:
    """Raise if a batch norm would have to compute statistics of a single image.

    Args:
        model: the model; frozen batch norms compute none.
        rows: views in a batch of one process.

    Raises:
        UsageError: there is one view, and a batch norm that trains.
    """
    norms = (one for one in model.modules() if isinstance(one, torch.nn.modules.batchnorm._BatchNorm))
    if rows == 1 and any(norm.training and norm.affine for norm in norms):
        raise UsageError("--batch-size 1: batch norm needs two images or more: use --batch-size 2 or --freeze-bn")


@naming_flags(
    "pretrained_path",
    "initial_checkpoint",
    "grad_checkpointing",
    "split_bn",
    "sync_bn",
    "simclr_loss_weight",
    "aug_splits",
    "img_size",
    arch="--model",
    global_pool="--gp",
)
def make_model(
    plan: ViewPlan,
    label_space: LabelSpace,
    device: torch.device,
    *,
    fresh: bool,
    freeze_bn: bool | None,
    arch: str,
    pretrained: bool,
    pretrained_path: str | None,
    initial_checkpoint: str | None,
    image_size: tuple[int, int, int] | None,
    preprocessing: Mapping[str, Any],
    backbone_kwargs: Mapping[str, Any],
    head_kwargs: Mapping[str, Any],
    batch_norm: Mapping[str, Any],
    freeze_backbone: bool,
    detach_heads: bool,
    grad_checkpointing: bool,
    channels_last: bool,
) -> MultiLabelModel:
    """Return the model on the CPU; its config holds the preprocessing that it is trained with.

    Args:
        plan: the views.
        label_space: the attributes and their classes.
        device: where the model will be trained; synchronized batch norm depends on it.
        fresh: whether the model needs first weights; with False a checkpoint will overwrite them all.
        freeze_bn: whether the backbone's batch norms keep their running statistics; None where it has batch norms.
        arch: name of the backbone in timm.
        pretrained: whether the backbone starts from pretrained weights.
        pretrained_path: file of the pretrained weights; None downloads them.
        initial_checkpoint: file of the first weights, loaded after the pretrained ones; None for none.
        image_size: (C, H, W) of the images; None for the backbone's.
        preprocessing: crop_pct, crop_mode, mean, std and interpolation; None or "" for the backbone's.
        backbone_kwargs: further arguments of `create_multi_label_model` about the backbone.
        head_kwargs: arguments of `MultiLabelModel`.
        batch_norm: arguments of `configure_batch_norm`.
        freeze_backbone: whether the heads alone are trained.
        detach_heads: whether the heads' gradients stop at the representation.
        grad_checkpointing: whether the backward pass recomputes the backbone's activations.
        channels_last: whether convolutions are laid out with the channels last.
    """
    # backbone and heads
    pretrained = pretrained and fresh
    with _download_advice():
        model = create_multi_label_model(
            arch,
            label_space,
            pretrained=pretrained,
            pretrained_path=pretrained_path if pretrained else None,
            image_size=image_size,
            **backbone_kwargs,
            **(head_kwargs if plan.contrast else {**head_kwargs, "projection_dim": 0}),
        )
    with naming_flags("mean", "std", "input_size"):
        model.config["data_config"] = resolve_preprocessing(
            model.pretrained_cfg, {**preprocessing, "input_size": model.config["image_size"]}
        )
    if initial_checkpoint and fresh:
        load_initial_checkpoint(model, initial_checkpoint)

    # how they are trained
    if freeze_backbone:
        model.freeze_backbone()
    model.detach_heads = detach_heads
    freeze = bool(batch_norms(model.backbone)) if freeze_bn is None else freeze_bn
    configure_batch_norm(model, device, views=plan.forwarded, freeze=freeze, **batch_norm)
    if grad_checkpointing:
        model.set_grad_checkpointing(True)
    return model.to(memory_format=memory_format(channels_last))


@contextmanager
def _download_advice() -> Iterator[None]:
    """Add the remedy to the error of a failed download."""
    try:
        yield
    except DownloadError as error:
        raise UsageError(
            f"--pretrained: {error}: give a local file with --pretrained-path FILE, or leave --pretrained out to "
            "train from scratch"
        ) from error


def configure_batch_norm(
    model: MultiLabelModel,
    device: torch.device,
    *,
    views: int,
    tensorflow: bool,
    momentum: float | None,
    eps: float | None,
    freeze: bool,
    split: bool,
    synchronize: bool,
    distribute: bool,
) -> None:
    """Change the batch norms of a model in place.

    Args:
        model: backbone and heads.
        device: where the model will be trained.
        views: number of views of an image.
        tensorflow: whether momentum and epsilon default to TensorFlow's.
        momentum: share of the newest batch in the running statistics; None keeps the model's.
        eps: number added to the variance; None keeps the model's.
        freeze: whether the backbone keeps its running statistics.
        split: whether each view has its own statistics.
        synchronize: whether the statistics of a step are over all processes.
        distribute: whether the running statistics are shared after each epoch, which needs a batch norm.

    Raises:
        UsageError: the model has no batch norm to change, or the device cannot synchronize it.
    """
    set_batch_norm(model, tensorflow, momentum, eps)
    if split:
        split_batch_norm(model, views)
    if synchronize:
        synchronize_batch_norm(model, device.type)
    if freeze:
        freeze_batch_norm(model)
    if distribute:
        require_batch_norm(model, model.modules())
