"""Mixup (arXiv:1710.09412, 2017) and CutMix (arXiv:1905.04899, 2019) for several attributes with blank cells."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from catalog.label_space import LabelSpace
from timm.data import Mixup
from timm.data.target_codes import by_attribute, value_sets


class MultiLabelMixup:
    """timm's Mixup for images and, with the same shares, the labels of each attribute.

    A blank cell gives no mass: a soft target sums to the share of its labeled images. A multi-valued attribute has this
    share in a column after its values. Images without any label are not mixed, because half of one teaches nothing.
    But timm mixes in pairs: if the number of labeled images is odd, one unlabeled image joins them.

    Args:
        label_space: the attributes and their classes.
        options: mixup_alpha, cutmix_alpha, cutmix_minmax, prob, switch_prob and mode of timm.data.Mixup.
    """

    def __init__(self, label_space: LabelSpace, **options: Any) -> None:
        self.label_space = label_space
        sizes = label_space.num_classes.items()
        self.classes = [k + 1 if name in label_space.multi_valued else k for name, k in sizes]
        # Dense targets without smoothing are plain weighted sums after timm's mixing.
        self.mixup = Mixup(label_smoothing=0.0, num_classes=sum(self.classes), multi_label=True, **options)

    def set_enabled(self, enabled: bool) -> None:
        """Switch mixing on or off; targets stay soft, so that the loss is the same."""
        self.mixup.mixup_enabled = enabled

    def __call__(self, images: Tensor, target: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Mix in place.

        Args:
            images: [B, C, H, W], changed in place; B or the number of labeled images must be even.
            target: int64 [B, C] of the label space.

        Returns:
            The images, and for each attribute the soft targets float32 [B, K], or [B, K + 1] if multi-valued.
        """
        columns = by_attribute(target, self.label_space)
        dense = torch.cat([_dense(words, width) for words, width in zip(columns, self.classes, strict=True)], dim=1)
        rows = _rows_to_mix(target)
        if len(rows) == len(target):
            images, dense = self.mixup(images, dense)
        elif len(rows):
            images[rows], dense[rows] = self.mixup(images[rows], dense[rows])
        return images, list(dense.split(self.classes, dim=1))


def _rows_to_mix(target: Tensor) -> Tensor:
    """Return the rows with a label in order; if their number is odd, also one without a label."""
    labeled = (target >= 0).any(dim=1)
    if labeled.sum() % 2 and not labeled.all():
        labeled[labeled.int().argmin()] = True
    return labeled.nonzero().squeeze(1)


def _dense(words: Tensor, width: int) -> Tensor:
    """Return an attribute's targets as float32 [B, width], 0 in a row without a label."""
    if words.ndim == 1:
        return F.one_hot(words.clamp(min=0), width).float() * (words >= 0).unsqueeze(1)
    sets = value_sets(words, width - 1)
    return torch.cat([sets.values, sets.known[:, None]], dim=1).float()
