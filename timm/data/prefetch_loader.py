"""timm's prefetching loader with normalization in long rows, and erasing that knows the views of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from timm.data.loader import PrefetchLoader
from timm.data.preprocessing import DataConfig
from timm.data.random_erasing import RandomErasing
from timm.data.view_maker import Augmentation
from timm.data.view_plan import ViewPlan

Erasing = Callable[[Tensor], Tensor]


class RowPrefetchLoader(PrefetchLoader):
    """timm's prefetching loader, which normalizes faster to the same values.

    Args:
        loader: torch's loader of uint8 batches.
        config: `mean`, `std` and `input_size` of the model's images.
        device: where the batches go.
        img_dtype: number format of the images.
        erasing: erases rectangles of a normalized batch [V*B, C, H, W] in place; None erases nothing.
    """

    def __init__(
        self,
        loader: Any,
        config: DataConfig,
        device: torch.device,
        img_dtype: torch.dtype,
        erasing: Erasing | None = None,
    ) -> None:
        channels, _, width = config["input_size"]
        super().__init__(loader, tuple(config["mean"]), tuple(config["std"]), channels, device, img_dtype)
        self.mean, self.std = in_rows(self.mean, width), in_rows(self.std, width)
        self.random_erasing: Any = erasing


def in_rows(statistic: Tensor, width: int) -> Tensor:
    """Return a statistic of each channel [1, C, 1, 1] repeated along a row, [1, C, 1, W], channels last in memory.

    Images have their channels last too, so a row's numbers lie side by side in both. torch then computes in vectors,
    several times as fast as a loop over three channels.
    """
    return statistic.expand(1, -1, 1, width).contiguous(memory_format=torch.channels_last)


class FullViewErasing:
    """Random erasing that spares the light views of a batch, which come before or after the full ones.

    Args:
        erasing: erases in the other views.
        plan: the views of the batch.
    """

    def __init__(self, erasing: RandomErasing, plan: ViewPlan) -> None:
        self.erasing = erasing
        self.views, self.first, self.full = len(plan), plan.kinds.index("full"), plan.kinds.count("full")

    def __call__(self, images: Tensor) -> Tensor:
        """Erase in the full views of a batch [V*B, C, H, W] in place; return the batch."""
        rows = len(images) // self.views  # images per view
        self.erasing(images[rows * self.first : rows * (self.first + self.full)])
        return images


def make_erasing(augmentation: Augmentation, plan: ViewPlan, device: torch.device) -> Erasing | None:
    """Return the random erasing of a batch's views, None without it."""
    if not augmentation.re_prob or augmentation.no_aug:
        return None
    light = "light" in plan.kinds
    if light and "full" not in plan.kinds:
        return None
    splits = 0
    if augmentation.re_split:  # timm spares the first split; with several views that is view 0
        splits = augmentation.num_aug_splits or 2 if light else max(len(plan), 2)
    erasing = RandomErasing(
        probability=augmentation.re_prob,
        mode=augmentation.re_mode,
        max_count=augmentation.re_count,
        num_splits=splits,
        device=device,
    )
    return FullViewErasing(erasing, plan) if light else erasing
