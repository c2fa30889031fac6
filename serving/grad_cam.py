"""Grad-CAM: the regions of an image that speak for a class.

A map of features is weighted by the mean gradient of the class's logit by channel, summed over the channels, and what
speaks against the class is cut off (Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization, 2017, https://arxiv.org/abs/1610.02391).

One forward serves all attributes and classes. The map of features is the last one with at least 4 x 4 cells: a small
image leaves 2 x 2 in the last stage. For a transformer with a class token it is the input of the last block, since no
later one has a gradient at the other tokens (the same place as in pytorch-grad-cam's examples).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from runtime.errors import UsageError
from serving.loading import EvaluationModel

LEAST_CELLS = 4  # a side of the map

Floats = npt.NDArray[np.float32]


def grad_cam(
    ready: EvaluationModel, image: Tensor, classes: Sequence[tuple[str, int]], least: int = LEAST_CELLS
) -> Floats:
    """Return a map for each class, float32 [classes, h, w], at least 0; all 0 if no region speaks for the class.

    Args:
        ready: the model.
        image: an image [1, C, H, W] as the model takes it.
        classes: attributes, each with the position of one of its classes.
        least: cells that a side of the map has, if any stage of the backbone has as many.

    Raises:
        UsageError: the backbone has no map of features.
    """
    model, image = ready.network, ready.to_device(image)
    with torch.enable_grad(), ready.autocast():
        module = _mapped_module(model.backbone, image, least)
        features, h = _forward_from(module, model.backbone, image)
        logits = model.forward_heads(h)
        maps = [_map(features, logits[name][0, code], image, model.backbone) for name, code in classes]
    found: Floats = torch.stack(maps).float().cpu().numpy()
    return found


def _map(features: Tensor, logit: Tensor, image: Tensor, backbone: Any) -> Tensor:
    """Return the map [h, w] of a logit, a scalar that was computed from the features."""
    (gradient,) = torch.autograd.grad(logit, features, retain_graph=True)
    activation = _grid(features.detach(), image, backbone)
    weight = _grid(gradient, image, backbone).mean(dim=(1, 2), keepdim=True)
    return (activation * weight).sum(dim=0).relu()


def _forward_from(module: nn.Module, backbone: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a module of the backbone returns, and h [1, D], computed from it with a gradient."""
    found: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Tensor) -> Tensor:
        found.append(output.detach().requires_grad_())
        return found[-1].clone()  # a later operation in place must not change the leaf

    handle = module.register_forward_hook(keep)
    try:
        h: Tensor = backbone(image)
    finally:
        handle.remove()
    return found[-1], h


@torch.no_grad()
def _mapped_module(backbone: Any, image: Tensor, least: int) -> nn.Module:
    """Return the module of the backbone whose output is the map of features.

    Raises:
        UsageError: there is none.
    """
    name = type(backbone).__name__
    blocks = getattr(backbone, "blocks", None)
    if getattr(backbone, "num_prefix_tokens", 0) and blocks is not None and hasattr(blocks[-1], "norm1"):
        module: nn.Module = blocks[-1].norm1
        return module
    modules: dict[str, nn.Module] = dict(backbone.named_modules())
    stages = [modules[one["module"]] for one in getattr(backbone, "feature_info", ()) if one["module"] in modules]
    outputs: dict[nn.Module, Any] = {}
    handles = [one.register_forward_hook(lambda stage, _, output: outputs.update({stage: output})) for one in stages]
    try:
        backbone(image)
    finally:
        for handle in handles:
            handle.remove()
    sides = {}
    for stage in stages:
        if isinstance(output := outputs.get(stage), Tensor) and output.ndim in (3, 4):
            sides[stage] = min(_grid(output, image, backbone).shape[1:])
    if not sides:
        raise UsageError(f"{name} keeps no map of the image's regions, so where it looked cannot be shown")
    fine = [stage for stage, side in sides.items() if side >= least]
    return fine[-1] if fine else max(sides, key=sides.__getitem__)


def _grid(output: Tensor, image: Tensor, backbone: Any) -> Tensor:
    """Return a module's output [1, C, h, w], [1, h, w, C] or [1, tokens, C] as [C, h, w].

    Raises:
        UsageError: its tokens are no grid.
    """
    if output.ndim == 4:
        widths = {one["num_chs"] for one in getattr(backbone, "feature_info", ())}
        last = output.shape[1] not in widths and output.shape[3] in widths
        return output[0].permute(2, 0, 1) if last else output[0]
    height, width = image.shape[2:]
    for first in (getattr(backbone, "num_prefix_tokens", 0), 0):  # some blocks do not have the class token yet
        tokens = output.shape[1] - first
        rows = round((tokens * height / width) ** 0.5)
        if rows and not tokens % rows:
            return output[0, first:].T.reshape(-1, rows, tokens // rows)
    raise UsageError(
        f"{type(backbone).__name__} keeps {tokens} regions, which are no grid, so where it looked cannot be shown"
    )
