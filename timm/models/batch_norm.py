"""Batch norm: TensorFlow's settings, frozen statistics, statistics for each view, statistics over all processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from torch import nn

from runtime.errors import UsageError
from timm.layers import convert_splitbn_model, convert_sync_batchnorm

_TENSORFLOW = {"momentum": 0.01, "eps": 1e-3}  # TensorFlow's decay of 0.99 is PyTorch's momentum of 0.01


class _Model(Protocol):
    """The parts of a MultiLabelModel that have batch norms."""

    backbone: Any
    projector: nn.Sequential | None
    config: dict[str, Any]

    def modules(self) -> Iterator[nn.Module]: ...

    def keep_statistics(self) -> None: ...


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """Return the batch norms inside a module, in any form that timm gives them."""
    return [norm for norm in module.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]


def set_batch_norm(model: _Model, tensorflow: bool, momentum: float | None, eps: float | None) -> None:
    """Change the settings of every batch norm in backbone and projection head, and record them in the config.

    Args:
        model: a MultiLabelModel.
        tensorflow: use TensorFlow's momentum and epsilon as defaults for the next two.
        momentum: weight of the newest batch in the running statistics, 0-1; None keeps it.
        eps: constant added to the variance; None keeps it.

    Raises:
        UsageError: the model has no batch norm.
    """
    given = {name: value for name, value in (("momentum", momentum), ("eps", eps)) if value is not None}
    settings = (_TENSORFLOW if tensorflow else {}) | given
    if settings:
        require_batch_norm(model, model.modules())
        model.config["batch_norm"] = settings  # evaluation divides by the same epsilon
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            for name, value in settings.items():
                setattr(norm, name, value)


def freeze_batch_norm(model: _Model) -> None:
    """Let the backbone's batch norms keep their statistics; their scales and shifts train, the projector's norms too.

    timm's `freeze_batch_norm_2d` replaces the layers, so that scales and shifts are buffers. Here layers, parameters
    and the checkpoint stay as they are, and only the mode of the layers differs in training.

    Raises:
        UsageError: the backbone has no batch norm.
    """
    require_batch_norm(model, model.backbone.modules())
    model.keep_statistics()


def split_batch_norm(model: _Model, views: int) -> None:
    """Give the backbone's batch norms separate statistics for each view; evaluation uses the statistics of view 0.

    Raises:
        UsageError: there is only one view, or no batch norm.
    """
    require_batch_norm(model, model.backbone.modules())
    if views < 2:
        raise UsageError("split_bn needs two views or more: set aug_splits, or simclr_loss_weight above 0")
    convert_splitbn_model(model.backbone, views)


def synchronize_batch_norm(model: _Model, device_type: str) -> None:
    """Let batch norms measure the joint batch of all processes.

    Raises:
        UsageError: PyTorch has no synchronized batch norm for this device, or there is no batch norm.
    """
    require_batch_norm(model, model.modules())
    if device_type != "cuda":
        raise UsageError("sync_bn needs GPUs: PyTorch has no synchronized batch norm for the CPU")
    model.backbone = convert_sync_batchnorm(model.backbone)
    if model.projector is not None:
        model.projector = convert_sync_batchnorm(model.projector)


def require_batch_norm(model: _Model, modules: Iterator[nn.Module]) -> None:
    """Raise where a batch norm setting would have no effect.

    Args:
        model: the model that the message names.
        modules: the modules that must include a batch norm.

    Raises:
        UsageError: there is no batch norm.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules):
        raise UsageError(f"{model.config.get('arch', 'the model')} has no batch norm: leave the batch norm flags out")
