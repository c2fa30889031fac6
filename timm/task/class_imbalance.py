"""Class weights and logit margins, which make rare classes count more in training.

- effective number of samples: Cui et al., 2019, https://arxiv.org/abs/1901.05555 (equation 2)
- logit adjustment: Menon et al., 2020, https://arxiv.org/abs/2007.07314 (equation 10)

Both come from the labels of the training table, so they are equal on every process. They act only in training.

Each value of a multi-valued attribute is a problem of two classes, present and absent. Its weight is the ratio of the
two class weights, and the margin of its single logit is the difference of the two class margins.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from catalog.label_space import LabelSpace
from timm.data.target_codes import by_attribute, value_sets

BETA = 0.999  # for the effective number: the paper's value for about 1,000 distinct images in a class


def class_weights(targets: Tensor, label_space: LabelSpace, kind: str) -> list[Tensor] | None:
    """Return the class weights of each attribute, float32 [K].

    Over the training labels of an attribute, their mean is 1. For a multi-valued attribute, a value's weight applies to
    the images that have it, relative to a weight of 1 for the other images.

    Args:
        targets: targets of the training table, int64 [rows, C], negative where unknown.
        label_space: the attributes and their classes.
        kind: "inverse" for 1 / n, where n is a class's number of labels; "effective" for (1 - b) / (1 - b^n), which
            approaches a constant for n far beyond 1 / (1 - b), with b = `BETA`; "none" returns None.
    """
    if kind == "none":
        return None
    weights = []
    for counts, absent_counts in _counts(targets, label_space):
        raw = _weight(counts.clamp(min=1), kind)
        if absent_counts is not None:
            weights.append((raw / _weight(absent_counts.clamp(min=1), kind)).float())
        else:
            weights.append((raw * counts.sum() / (raw * counts).sum().clamp(min=1e-30)).float())
    return weights


def _weight(counts: Tensor, kind: str) -> Tensor:
    return 1 / counts if kind == "inverse" else (1 - BETA) / (1 - BETA**counts)


def logit_margins(targets: Tensor, label_space: LabelSpace, tau: float) -> list[Tensor] | None:
    """Return the offsets that training adds to the logits of each attribute, tau * log(class share), float32 [K].

    Args:
        targets: targets of the training table, int64 [rows, C], negative where unknown.
        label_space: the attributes and their classes.
        tau: strength; 1 optimizes balanced accuracy, 0 returns None.
    """
    if tau == 0:
        return None
    # Treat a class without labels as if it had one, to avoid the logarithm of 0.
    return [
        tau * (n.clamp(min=1) / (n.sum() if absent is None else absent).clamp(min=1)).log().float()
        for n, absent in _counts(targets, label_space)
    ]


def class_shares(targets: Tensor, label_space: LabelSpace) -> list[Tensor]:
    """Return the share of each class among an attribute's labels, float64 [K]; 0 for an attribute without labels.

    For a multi-valued attribute, return the share of the known images that have each value.

    Args:
        targets: targets of the training table, int64 [rows, C], negative where unknown.
        label_space: the attributes and their classes.
    """
    return [
        counts / (counts.sum() if absent is None else counts + absent).clamp(min=1)
        for counts, absent in _counts(targets, label_space)
    ]


def _counts(targets: Tensor, label_space: LabelSpace) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield for each attribute the number of labels of each class, float64 [K].

    For a multi-valued attribute also yield the number of known images without each value, float64 [K]; else None.
    """
    for labels, classes in zip(by_attribute(targets, label_space), label_space.num_classes.values(), strict=True):
        if labels.ndim == 2:
            sets = value_sets(labels, classes)
            counts = sets.values.sum(dim=0).double()
            yield counts, sets.known.sum() - counts
        else:
            yield torch.bincount(labels[labels >= 0], minlength=classes).double(), None
