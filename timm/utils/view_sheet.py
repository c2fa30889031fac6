"""A picture of what the model sees: the views of a batch, an image's views side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.utils import save_image

_IMAGES = 16


def save_view_sheet(path: Path, images: Tensor, views: int, data_config: Mapping[str, Any]) -> None:
    """Write a PNG of a batch's first images.

    Args:
        path: of the PNG.
        images: [V*B, C, H, W], normalised, view 0 first.
        views: V.
        data_config: its `mean` and `std` undo the normalisation.
    """
    mean, std = (torch.tensor(data_config[key], device=images.device).view(-1, 1, 1) for key in ("mean", "std"))
    by_image = images.float().view(views, -1, *images.shape[1:])[:, :_IMAGES].transpose(0, 1)
    pixels = (by_image.flatten(0, 1) * std + mean).clamp(0, 1)
    save_image(pixels, path, nrow=views * max(1, 8 // views))
