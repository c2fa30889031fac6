"""The training images that a k-nearest-neighbor classifier looks among: which they are, seen as in evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from catalog.decode import Pixels
from catalog.label_space import UNKNOWN
from timm.data.byte_transforms import from_pixels
from timm.data.two_view_dataset import TwoViewDataset


class NeighborDataset(Dataset[tuple[Any, Tensor]]):
    """A fixed sample of the labeled rows of a training table, each image once and in one view.

    An image that cannot be read is empty and without labels, so that it has no vote; training tells of it.

    Args:
        source: the training set, whose tables, image files and cache of decoded images are used.
        most: so many rows at most: a random sample, always the same for a seed. Where no row has a label the sample is
            of them all, so that the representations can be measured still.
        seed: of the sample.
    """

    def __init__(self, source: TwoViewDataset, most: int, seed: int) -> None:
        labeled = (source.targets != UNKNOWN).any(dim=1).nonzero().flatten()
        candidates = labeled if len(labeled) else torch.arange(len(source))
        order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed))
        self.source = source
        self.rows = candidates[order[:most]].sort().values  # in the table's order, in which disks are faster
        self._transform: Callable[[Pixels], Any] | None = None

    @property
    def transform(self) -> Callable[[Pixels], Any] | None:
        """What makes tensors of pixels; timm's loader sets its own for images."""
        return self._transform

    @transform.setter
    def transform(self, transform: Any) -> None:
        self._transform = from_pixels(transform)

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
        return (self._transform(pixels) if self._transform else pixels), target
