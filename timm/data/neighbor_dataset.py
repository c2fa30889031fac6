"""The training images that a k-nearest-neighbor classifier searches, each in its evaluation view."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from catalog.label_space import UNKNOWN
from timm.data.two_view_dataset import TwoViewDataset
from timm.data.view_maker import ViewMaker


class NeighborDataset(Dataset[tuple[Any, Tensor]]):
    """A fixed sample of the labeled rows of a training table, each image once and in one view.

    An unreadable image is empty and without labels, so that it has no vote; training reports it. If no row has a label,
    the sample is drawn from all rows, so that the spread of their representations can be measured.

    Args:
        source: the training set, whose table, image files and cache are used.
        most: maximum number of rows.
        seed: seed of the sample.
        views: makes the view of a decoded image; None returns its pixels.
    """

    def __init__(self, source: TwoViewDataset, most: int, seed: int, views: ViewMaker | None = None) -> None:
        labeled = (source.targets != UNKNOWN).any(dim=1).nonzero().flatten()
        candidates = labeled if len(labeled) else torch.arange(len(source))
        order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed))
        self.source = source
        self.views = views
        self.rows = candidates[order[:most]].sort().values  # in the table's order, which disks read faster

    def with_views(self, views: ViewMaker) -> NeighborDataset:
        """Return the same rows with another maker of views."""
        rows = copy(self)
        rows.views = views
        return rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        row = int(self.rows[index])
        target = self.source.targets[row]
        try:
            pixels = self.source.load(row)
        except OSError:
            pixels = np.zeros((32, 32, self.source.channels), np.uint8)
            target = torch.full_like(target, UNKNOWN)
        return (self.views(pixels) if self.views else pixels), target
