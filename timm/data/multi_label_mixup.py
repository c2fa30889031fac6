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
    """Mixes images with timm's Mixup, and with the same shares their labels, attribute by attribute.

    A blank cell has no mass to give: a row's soft target for an attribute sums to the share of its labeled halves. Of
    a multi-valued attribute this share is a column of its own, behind those of the values. Images without any label are
    left out, as half of one would teach nothing: the others are mixed with one another. Only where these are an odd
    number, one without a label is among them, since timm mixes in pairs.

    Args:
        label_space: the attributes and their classes.
        options: timm.data.Mixup's mixup_alpha, cutmix_alpha, cutmix_minmax, prob, switch_prob and mode.
    """

    def __init__(self, label_space: LabelSpace, **options: Any) -> None:
        self.label_space = label_space
        sizes = label_space.num_classes.items()
        self.classes = [k + 1 if name in label_space.multi_valued else k for name, k in sizes]
        # Dense targets without smoothing pass through timm's mixing as plain weighted sums.
        self.mixup = Mixup(label_smoothing=0.0, num_classes=sum(self.classes), multi_label=True, **options)

    def set_enabled(self, enabled: bool) -> None:
        """Switch mixing on or off; targets stay soft, so that the loss is the same."""
        self.mixup.mixup_enabled = enabled

    def __call__(self, images: Tensor, target: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Mix in place.

        Args:
            images: [B, C, H, W], B even or with a label in an even number; changed in place.
            target: int64 [B, C] of the label space.

        Returns:
            The images, and for each attribute the soft targets [B, K], of a multi-valued one [B, K + 1], float32.
        """
        columns = by_attribute(target, self.label_space)
        dense = torch.cat([_dense(own, width) for own, width in zip(columns, self.classes, strict=True)], dim=1)
        rows = _rows_to_mix(target)
        if len(rows) == len(target):
            images, dense = self.mixup(images, dense)
        elif len(rows):
            images[rows], dense[rows] = self.mixup(images[rows], dense[rows])
        return images, list(dense.split(self.classes, dim=1))


def _rows_to_mix(target: Tensor) -> Tensor:
    """Return the rows with a label, and where these are an odd number one without, in their order."""
    labeled = (target >= 0).any(dim=1)
    if labeled.sum() % 2 and not labeled.all():
        labeled[labeled.int().argmin()] = True
    return labeled.nonzero().squeeze(1)


def _dense(own: Tensor, width: int) -> Tensor:
    """Return an attribute's targets as float32 [B, width], 0 in a row without a label."""
    if own.ndim == 1:
        return F.one_hot(own.clamp(min=0), width).float() * (own >= 0).unsqueeze(1)
    sets = value_sets(own, width - 1)
    return torch.cat([sets.values, sets.known[:, None]], dim=1).float()
