"""Rare classes made to count: weights of the classes, and margins that follow from how frequent they are.

- effective number of samples: Cui et al., 2019, https://arxiv.org/abs/1901.05555 (equation 2)
- logit adjustment: Menon et al., 2020, https://arxiv.org/abs/2007.07314 (equation 10)

Both follow from the labels of the training table, so that every process has the same, and act in training alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from timm.data.label_space import LabelSpace

BETA = 0.999  # of the effective number: the paper's for about a thousand images that differ within a class


def class_weights(targets: Tensor, label_space: LabelSpace, kind: str) -> list[Tensor] | None:
    """Return the weight of each class, for each attribute float32 [K], 1 in the mean over the training labels.

    Args:
        targets: int64 [rows, A] of the training table, below 0 where unknown.
        label_space: the attributes and their classes.
        kind: "inverse" weighs a class by one over its number of labels n, "effective" by (1 - b) / (1 - b^n), which
            grows no more where n is far beyond 1 / (1 - b), b = BETA; "none" returns None.
    """
    if kind == "none":
        return None
    weights = []
    for counts in _counts(targets, label_space):
        few = counts.clamp(min=1)  # a class without a label has no image to weigh
        raw = 1 / few if kind == "inverse" else (1 - BETA) / (1 - BETA**few)
        weights.append((raw * counts.sum() / (raw * counts).sum().clamp(min=1e-30)).float())
    return weights


def logit_margins(targets: Tensor, label_space: LabelSpace, tau: float) -> list[Tensor] | None:
    """Return what is added to the logits in training, tau x log of a class's share, for each attribute float32 [K].

    Args:
        targets: as in `class_weights`.
        label_space: the attributes and their classes.
        tau: 1 makes the loss one for balanced accuracy; 0 returns None.
    """
    if tau == 0:
        return None
    # A class without a label is taken for as rare as one with a single one: its logarithm has no end.
    return [tau * (n.clamp(min=1) / n.sum().clamp(min=1)).log().float() for n in _counts(targets, label_space)]


def _counts(targets: Tensor, label_space: LabelSpace) -> list[Tensor]:
    """Return how many labels each class has, for each attribute float64 [K]."""
    sizes = label_space.num_classes.values()
    return [
        torch.bincount(labels[labels >= 0], minlength=classes).double()
        for labels, classes in zip(targets.unbind(1), sizes, strict=True)
    ]
