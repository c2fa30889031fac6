"""The source of soft targets that were computed before: each image's are looked up by its row number."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from catalog.label_space import LabelSpace
from catalog.soft_labels import SoftLabels
from timm.task.pseudo_loss import SoftTargets, blank_cells
from timm.task.simclr_classification import Chunk

_ON_DEVICE = 1 << 30  # bytes of probabilities that are kept on the model's device


class SoftLabelSource:
    """Soft targets for the blank cells of a step; a cell without soft labels does not count.

    Args:
        labels: the soft labels of the training table's rows.
        label_space: the attributes and their classes.
        device: the model's device.
    """

    def __init__(self, labels: SoftLabels, label_space: LabelSpace, device: torch.device) -> None:
        self.label_space, self.device = label_space, device
        here = device if labels.values.nbytes <= _ON_DEVICE else torch.device("cpu")
        self.row_of = torch.from_numpy(labels.row_of).to(here)
        self.values = torch.from_numpy(labels.values).to(here)
        self.weights = torch.from_numpy(labels.weights).to(here)

    def __call__(self, chunks: Sequence[Chunk]) -> list[SoftTargets]:
        """Return the soft targets of each chunk's images.

        Args:
            chunks: images, and targets int64 [B, C + 1] whose last column is the row in the table.
        """
        return [self._targets(target) for _, target in chunks]

    def factor(self) -> float:
        """Return the share of the loss's weight: all of it, as the targets are good from the start."""
        return 1.0

    def numbers(self) -> dict[str, float]:
        """Return nothing: the targets do not change."""
        return {}

    def _targets(self, target: Tensor) -> SoftTargets:
        rows = target[:, -1].to(self.row_of.device)
        found = torch.where(rows < 0, -1, self.row_of[rows.clamp(min=0)])
        at = found.clamp(min=0)
        values, weights = (part[at].to(self.device) for part in (self.values, self.weights))
        known = (found >= 0).to(self.device)[:, None] & (weights >= 0)  # [B, A]
        blank = torch.stack(blank_cells(target, self.label_space), dim=1)
        sizes = list(self.label_space.num_classes.values())
        return SoftTargets(
            list(values.split(sizes, dim=1)), list(weights.clamp(min=0).unbind(1)), list((blank & known).unbind(1))
        )
