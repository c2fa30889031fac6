"""The batch norm flags: TensorFlow's settings, statistics for each view, statistics over all processes."""

from __future__ import annotations

from torch import nn

from runtime.errors import UsageError
from timm.layers import convert_splitbn_model, convert_sync_batchnorm
from timm.models.multi_label import MultiLabelModel

_TENSORFLOW = {"momentum": 0.01, "eps": 1e-3}  # its decay of 0.99, told as PyTorch does


def set_batch_norm(model: MultiLabelModel, tensorflow: bool, momentum: float | None, eps: float | None) -> None:
    """Change the settings of every batch norm, in the backbone and in the projection head, and note them in the config.

    Args:
        model: whose.
        tensorflow: take TensorFlow's momentum and epsilon where these are not given.
        momentum: share of the newest batch in the running statistics; None keeps it.
        eps: added to the variance; None keeps it.

    Raises:
        UsageError: the model has no batch norm.
    """
    given = {name: value for name, value in (("momentum", momentum), ("eps", eps)) if value is not None}
    settings = (_TENSORFLOW if tensorflow else {}) | given
    if settings:
        require_batch_norm(model, model)
        model.config["batch_norm"] = settings  # evaluation divides by the same epsilon
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            for name, value in settings.items():
                setattr(norm, name, value)


def split_batch_norm(model: MultiLabelModel, views: int) -> None:
    """Give the backbone's batch norms statistics of their own for each view; evaluation uses those of view 0.

    Raises:
        UsageError: there is one view only, or no batch norm.
    """
    require_batch_norm(model, model.backbone)
    if views < 2:
        raise UsageError("--split-bn needs two views or more: with -wls 0 add --aug-splits")
    convert_splitbn_model(model.backbone, views)


def synchronize_batch_norm(model: MultiLabelModel, device_type: str) -> None:
    """Let batch norms measure the joint batch of all processes.

    Raises:
        UsageError: PyTorch cannot on this device, or there is no batch norm.
    """
    require_batch_norm(model, model)
    if device_type != "cuda":
        raise UsageError("--sync-bn needs GPUs: PyTorch has no synchronized batch norm for the CPU")
    model.backbone = convert_sync_batchnorm(model.backbone)
    if model.projector is not None:
        model.projector = convert_sync_batchnorm(model.projector)


def require_batch_norm(model: MultiLabelModel, part: nn.Module) -> None:
    """Raise where a batch norm flag would do nothing.

    Args:
        model: named in the message.
        part: of the model, where a batch norm must be.

    Raises:
        UsageError: there is none.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in part.modules()):
        raise UsageError(f"{model.config.get('arch', 'the model')} has no batch norm: leave the batch norm flags out")
