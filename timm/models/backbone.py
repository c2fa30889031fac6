"""Making a timm backbone without its classifier, with readable errors."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from runtime.errors import UsageError, first_line
from timm.models import create_model, get_pretrained_cfg, list_models


def create_backbone(arch: str, *, pretrained: bool = False, **kwargs: Any) -> Any:
    """Return `timm.create_model` without a classifier.

    Args:
        arch: a name that `timm.create_model` knows.
        pretrained: load the weights that timm's configuration names.
        kwargs: further arguments of `timm.create_model`.

    Raises:
        UsageError: timm has no such model, or the model does not take an argument.
        KeyError, OSError, RuntimeError: pretrained weights are unavailable or do not fit.
    """
    if taken := {"num_classes", "features_only"} & kwargs.keys():
        name = taken.pop()
        raise UsageError(f"leave {name} out of the backbone's arguments: the classes decide the sizes of the heads")
    try:
        return create_model(arch, num_classes=0, pretrained=pretrained, **kwargs)
    except TypeError as error:
        if refused := re.search(r"unexpected keyword argument '(\w+)'", str(error)):
            raise UsageError(f"{arch} does not take {refused[1]}={kwargs.get(refused[1])!r}: leave it out") from error
        raise UsageError(_refusal(arch, kwargs, error)) from error
    except RuntimeError as error:
        if "Unknown model" in str(error):
            near = difflib.get_close_matches(arch.partition(".")[0], list_models(), 3)
            advice = f"is it {' or '.join(near)}?" if near else "timm.list_models() lists all"
            raise UsageError(f"timm has no model {arch!r}: {advice}") from error
        if "Invalid pretrained tag" in str(error) or "No pretrained weights exist" in str(error):
            raise UsageError(f"{arch}: {first_line(error)}") from error
        raise
    except (AssertionError, ValueError) as error:
        raise UsageError(f"{arch}: {first_line(error)}") from error
    except (KeyError, OSError) as error:
        if pretrained:  # timm.models.pretrained_weights explains missing weights
            raise
        raise UsageError(_refusal(arch, kwargs, error)) from error


def _refusal(arch: str, kwargs: Mapping[str, Any], error: Exception) -> str:
    """Return the sentence for arguments that a model does not take; an overlay holds weights, too much to show."""
    shown = {name: value for name, value in kwargs.items() if name != "pretrained_cfg_overlay"}
    return f"{arch} cannot be made with {shown} ({first_line(error)}): change these arguments, or leave some out"


def own_size(arch: str) -> int | None:
    """Return the side of the images that an architecture's weights were made for, in pixels; None if timm has none."""
    cfg = get_pretrained_cfg(arch) or get_pretrained_cfg(arch.partition(".")[0])
    return None if cfg is None else int(cfg.input_size[-1])


def size_kwargs(arch: str, image_size: tuple[int, int, int]) -> dict[str, Any]:
    """Return the arguments that set the image size where weights depend on it (ViT, Swin, MaxViT, ...)."""
    cfg = get_pretrained_cfg(arch.partition(".")[0])  # the tag of the weights is irrelevant, and may be misspelled
    fixed = cfg is not None and cfg.fixed_input_size
    return {"img_size": list(image_size[1:])} if fixed else {}


@torch.no_grad()
def measure_features(backbone: nn.Module, image_size: tuple[int, int, int]) -> int:
    """Return D, measured on one empty image: some poolings double it, and timm has no attribute for the result.

    Args:
        backbone: a model that pools; its mode and statistics stay as they are.
        image_size: (C, H, W).

    Raises:
        UsageError: the backbone does not take this size, or does not pool.
    """
    training = backbone.training
    parameter = next(backbone.parameters())
    try:
        h = backbone.eval()(torch.zeros(1, *image_size, device=parameter.device, dtype=parameter.dtype))
    except (AssertionError, RuntimeError, ValueError) as error:
        size = "x".join(map(str, image_size))
        raise UsageError(
            f"the backbone takes no images of {size} (C, H, W) ({first_line(error)}): change img_size"
        ) from error
    backbone.train(training)
    if h.ndim != 2:
        raise UsageError(
            f"the backbone gives features of shape {tuple(h.shape)}, not [B, D]: choose a global_pool such as avg"
        )
    return int(h.shape[1])
