"""Rare classes made to count: weights of the classes, and margins that follow from how frequent they are.

- effective number of samples: Cui et al., 2019, https://arxiv.org/abs/1901.05555 (equation 2)
- logit adjustment: Menon et al., 2020, https://arxiv.org/abs/2007.07314 (equation 10)

Both follow from the labels of the training table, so that every process has the same, and act in training alone.

A value of a multi-valued attribute is there or not: two classes. Its weight is that of having it over that of not
having it, and what is added to its one logit is the difference of the two margins.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from catalog.label_space import LabelSpace
from timm.data.target_codes import by_attribute, value_sets

BETA = 0.999  # of the effective number: the paper's for about a thousand images that differ within a class


def class_weights(targets: Tensor, label_space: LabelSpace, kind: str) -> list[Tensor] | None:
    """Return the weight of each class, for each attribute float32 [K], 1 in the mean over the training labels.

    Those of a multi-valued attribute weigh a value where an image has it, against 1 where it has not.

    Args:
        targets: int64 [rows, C] of the training table, below 0 where unknown.
        label_space: the attributes and their classes.
        kind: "inverse" weighs a class by one over its number of labels n, "effective" by (1 - b) / (1 - b^n), which
            grows no more where n is far beyond 1 / (1 - b), b = BETA; "none" returns None.
    """
    if kind == "none":
        return None
    weights = []
    for counts, others in _counts(targets, label_space):
        raw, of_others = (None if n is None else _weight(n.clamp(min=1), kind) for n in (counts, others))
        assert raw is not None
        if of_others is not None:
            weights.append((raw / of_others).float())
        else:
            weights.append((raw * counts.sum() / (raw * counts).sum().clamp(min=1e-30)).float())
    return weights


def _weight(counts: Tensor, kind: str) -> Tensor:
    return 1 / counts if kind == "inverse" else (1 - BETA) / (1 - BETA**counts)


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
    return [
        tau * (n.clamp(min=1) / (n.sum() if others is None else others).clamp(min=1)).log().float()
        for n, others in _counts(targets, label_space)
    ]


def _counts(targets: Tensor, label_space: LabelSpace) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield for each attribute how many labels each class has, float64 [K], and of a set how many images lack it."""
    for own, classes in zip(by_attribute(targets, label_space), label_space.num_classes.values(), strict=True):
        if own.ndim == 2:
            sets = value_sets(own, classes)
            counts = sets.values.sum(dim=0).double()
            yield counts, sets.known.sum() - counts
        else:
            yield torch.bincount(own[own >= 0], minlength=classes).double(), None
