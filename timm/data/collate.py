"""Batches of views: view 0 of every image first, and one target an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate


def collate_bytes(batch: Sequence[tuple[Any, Tensor]]) -> tuple[Tensor, Tensor]:
    """Batch views uint8 [C, H, W], with the channels last in memory, as decoded images have them.

    Returns:
        uint8 [V*B, C, H, W], view 0 first, and the targets [B, ...].
    """
    views = [images if isinstance(images, tuple) else (images,) for images, _ in batch]
    ordered = [image.permute(1, 2, 0) for view in zip(*views, strict=True) for image in view]
    return torch.stack(ordered).permute(0, 3, 1, 2), default_collate([target for _, target in batch])


def collate_views(batch: Sequence[tuple[Any, Tensor]]) -> tuple[Tensor, Tensor]:
    """Batch float views: [V*B, C, H, W], view 0 first, and the targets [B, C]."""
    images, targets = default_collate(list(batch))
    return (images if isinstance(images, Tensor) else torch.cat(list(images))), targets
