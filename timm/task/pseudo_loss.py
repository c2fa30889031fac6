"""The loss on soft targets of unlabeled cells: each attribute's weighted cross-entropy over its blank cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalog.label_space import UNKNOWN, LabelSpace
from simclr.collectives import sum_over_processes, world_size
from timm.data.target_codes import by_attribute


class SoftTargets(NamedTuple):
    """The soft targets of N rows, a list with one entry per attribute.

    Attributes:
        values: float32 [N, K], probabilities that sum to 1; for a multi-valued attribute the probability of each value.
        weights: float32 [N], weight of each cell, from 0.
        cells: bool [N], cells that count as unlabeled. The loss ignores the values and weights of the others.
    """

    values: list[Tensor]
    weights: list[Tensor]
    cells: list[Tensor]

    def repeated(self, views: int) -> SoftTargets:
        """Return the targets of [views * N] rows: one copy for each view, view 0 first."""
        return SoftTargets(
            [values.repeat(views, 1) for values in self.values],
            [weights.repeat(views) for weights in self.weights],
            [cells.repeat(views) for cells in self.cells],
        )


def blank_cells(target: Tensor, label_space: LabelSpace) -> list[Tensor]:
    """Return the unlabeled cells of each attribute, bool [N].

    Args:
        target: int64 [N, C].
        label_space: the attributes and their classes.
    """
    return [(labels if labels.ndim == 1 else labels[:, 0]) == UNKNOWN for labels in by_attribute(target, label_space)]


class PseudoLoss(nn.Module):
    """The loss of each attribute on soft targets: a mean over its unlabeled cells on all processes.

    A cell's loss is its weight times the cross-entropy between its soft target and the student's prediction. The mean
    counts every unlabeled cell, including cells of weight 0, so that fewer certain targets mean a smaller loss
    (arXiv:2001.07685, equation 4). With W processes, each returns W times its local sum, divided by the number of cells
    on all processes, as in `AttributeLoss`.

    Args:
        label_space: the attributes and their classes.
        margins: offsets added to the logits of each attribute, float32 [K], or None; see `timm.task.class_imbalance`.
    """

    def __init__(self, label_space: LabelSpace, margins: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        self.label_space = label_space
        self.attributes = tuple(label_space.attributes)
        self.losses: Sequence[SoftCrossEntropy] = nn.ModuleList()  # type: ignore[assignment]  # a ModuleList
        for index, name in enumerate(self.attributes):
            margin = None if margins is None else margins[index]
            loss = SoftCrossEntropy(name in label_space.multi_valued, margin)
            self.losses.append(loss)  # type: ignore[attr-defined]

    def forward(self, logits: Mapping[str, Tensor], targets: SoftTargets, counts: Tensor | None = None) -> Tensor:
        """Return the loss of each attribute, [A], in float64 for float64 logits and in float32 for all others.

        An attribute without an unlabeled cell in the joint batch has loss 0 and gradient 0.

        Args:
            logits: the student's logits of each attribute, [N, K], any floating dtype.
            targets: soft targets of the same N rows.
            counts: for a chunk of a batch, the result of `joint_counts` for the whole batch, so that the losses of its
                chunks add up to the loss of the batch. None for a whole batch.
        """
        if not self.attributes:
            return torch.zeros(0)
        sums = [
            (loss(logits[name], values) * weights * cells).sum()
            for name, loss, values, weights, cells in zip(self.attributes, self.losses, *targets, strict=True)
        ]
        counts = self.joint_counts([targets]) if counts is None else counts
        return torch.stack(sums) * world_size() / counts.clamp(min=1)

    def joint_counts(self, targets: Sequence[SoftTargets]) -> Tensor:
        """Return the number of unlabeled cells of each attribute in a batch, over all processes, float32 [A].

        Every process must make this call.

        Args:
            targets: the soft targets of each chunk of this process's batch, with the rows that `forward` reads.
        """
        if not self.attributes:
            return torch.zeros(0)
        counts = torch.stack([torch.stack([cells.sum() for cells in chunk.cells]) for chunk in targets])
        return sum_over_processes(counts.sum(dim=0).float())


class SoftCrossEntropy(nn.Module):
    """The cross-entropy of one attribute with soft targets, for each row.

    Args:
        multi_valued: whether each value has a probability of its own; the loss is then the mean over the values.
        margin: offsets added to the logits, float32 [K], or None.
    """

    margin: Tensor | None

    def __init__(self, multi_valued: bool, margin: Tensor | None = None) -> None:
        super().__init__()
        self.multi_valued = multi_valued
        self.register_buffer("margin", margin, persistent=False)

    def forward(self, logits: Tensor, values: Tensor) -> Tensor:
        """Return the cross-entropy of each row, [N].

        Args:
            logits: logits of K classes, [N, K].
            values: probabilities [N, K].
        """
        shifted = self.shifted(logits)
        values = values.to(shifted.dtype)
        if self.multi_valued:
            return F.binary_cross_entropy_with_logits(shifted, values, reduction="none").mean(dim=1)
        return -(values * F.log_softmax(shifted, dim=1)).sum(dim=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the prediction that `forward` compares with soft targets, [N, K], given logits [N, K]."""
        shifted = self.shifted(logits)
        return shifted.sigmoid() if self.multi_valued else shifted.softmax(dim=1)

    def shifted(self, logits: Tensor) -> Tensor:
        """Return the logits [N, K] with their margins, in float32 or float64."""
        precise = logits if logits.dtype == torch.float64 else logits.float()
        return precise if self.margin is None else precise + self.margin
