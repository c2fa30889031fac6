"""Mixup (arXiv:1710.09412, 2017) and CutMix (arXiv:1905.04899, 2019) for several attributes with blank cells."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from timm.data import Mixup
from timm.data.label_space import LabelSpace


class MultiLabelMixup:
    """Mixes images with timm's Mixup, and with the same shares their labels, attribute by attribute.

    A blank cell has no mass to give: a row's soft target for an attribute sums to the share of its labelled halves.

    Args:
        label_space: the attributes and their classes.
        options: timm.data.Mixup's mixup_alpha, cutmix_alpha, cutmix_minmax, prob, switch_prob and mode.
    """

    def __init__(self, label_space: LabelSpace, **options: Any) -> None:
        self.classes = list(label_space.num_classes.values())
        # Dense targets without smoothing pass through timm's mixing as plain weighted sums.
        self.mixup = Mixup(label_smoothing=0.0, num_classes=sum(self.classes), multi_label=True, **options)

    def set_enabled(self, enabled: bool) -> None:
        """Switch mixing on or off; targets stay soft, so that the loss is the same."""
        self.mixup.mixup_enabled = enabled

    def __call__(self, images: Tensor, target: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Mix in place.

        Args:
            images: [B, C, H, W], B even; changed in place.
            target: int64 [B, A], negative where unknown.

        Returns:
            The images, and for each attribute the soft targets [B, K], float32.
        """
        dense = [
            F.one_hot(column.clamp(min=0), k).float() * (column >= 0).unsqueeze(1)
            for column, k in zip(target.unbind(1), self.classes, strict=True)
        ]
        images, mixed = self.mixup(images, torch.cat(dense, dim=1))
        return images, list(mixed.split(self.classes, dim=1))
