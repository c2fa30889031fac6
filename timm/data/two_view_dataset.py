"""The images of a table with their targets, tolerant of single files that cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from catalog.data_error import DataError
from catalog.decode import Pixels, load_pixels
from catalog.image_cache import ImageCache
from catalog.image_roots import image_roots
from catalog.label_space import UNKNOWN
from catalog.table import Table
from timm.data.byte_transforms import from_pixels
from timm.data.draw_views import DrawViews
from timm.data.view_plan import Transform, ViewPlan, ViewTransform

_logger = logging.getLogger(__name__)

_TRIES = 10  # so many unreadable images in a row, and the sample goes on as an empty picture without labels
_ALWAYS_TOLERATED = 10  # images: a share of a small table would tolerate none
_NAMED = 10  # paths in one report


class TwoViewDataset(Dataset[tuple[Any, Tensor]]):
    """Image and target of each row.

    An image that cannot be read is marked, in memory that all workers share. In training another random row takes
    its place; in evaluation it becomes an empty picture whose labels are unknown, so that it counts in no metric.
    Nothing is raised in a worker: `check_readable` raises in the process that asks.

    Args:
        table: the rows.
        targets: int64 [rows, C]; catalog.label_space tells the codes.
        plan: the views of a training image; None gives one view and no replacement (evaluation).
        channels: 3 for color, 1 for gray.
        light_transform: makes the "light" views of the plan, of pixels.
        full_view: makes the "full" views, in place of the loader's augmentation; see `from_pixels`.
        max_unreadable: share of the rows that may be unreadable before `check_readable` raises, 0-1.

    Attributes:
        cache: where decoded images are kept; None to decode each anew.
        features: the representation of each row, float32 [rows, D], where a frozen backbone has made them: they take
            the images' place.
        draws: draws the views, which the device makes later, in place of the transform; None to make them here.
    """

    def __init__(
        self,
        table: Table,
        targets: np.ndarray[Any, np.dtype[np.int64]],
        plan: ViewPlan | None = None,
        channels: int = 3,
        light_transform: Transform | None = None,
        full_view: Callable[[Pixels], Pixels] | None = None,
        max_unreadable: float = 0.01,
    ) -> None:
        self.table = table
        self.targets = torch.from_numpy(targets)
        self.plan = plan
        self.channels = channels
        self.light_transform = light_transform
        self.full_view = full_view
        self.max_unreadable = max_unreadable
        self.roots: tuple[Path, ...] = image_roots(table)
        self.cache: ImageCache | None = None
        self.draws: DrawViews | None = None
        self.features: Tensor | None = None
        self.unreadable = torch.zeros(len(table), dtype=torch.uint8).share_memory_()
        self._reported = 0
        self._transform: Callable[[Pixels], Any] | None = None

    @property
    def transform(self) -> Callable[[Pixels], Any] | None:
        """What makes tensors of pixels; timm's loader sets its own for images, which becomes the views of the plan."""
        return self._transform

    @transform.setter
    def transform(self, transform: Any) -> None:
        if self.draws is not None:
            self._transform = self.draws
            return
        full = from_pixels(transform, self.full_view)
        self._transform = ViewTransform(self.plan, full, self.light_transform) if self.plan else full

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        if self.features is not None:
            return self.features[index], self.targets[index]
        if self.draws is not None and self.draws.resident is not None:
            return self._resident(index)
        pixels, index = self._readable(index)
        target = self.targets[index]
        if pixels is None:
            pixels = np.zeros((32, 32, self.channels), np.uint8)
            target = torch.full_like(target, UNKNOWN)
        return (self._transform(pixels) if self._transform else pixels), target

    def _readable(self, index: int) -> tuple[Pixels | None, int]:
        """Return the pixels of the image at an index, in training of the first random row that can be read."""
        for _ in range(_TRIES if self.plan else 1):
            if not self.unreadable[index]:
                try:
                    return self.load(index), index
                except OSError:
                    self.unreadable[index] = 1
            if self.plan:
                index = int(torch.randint(len(self), ()))
        return None, index

    def _resident(self, index: int) -> tuple[Any, Tensor]:
        """Return what was drawn for an image on the device, another one where it was unreadable, and its target."""
        assert self.draws is not None
        for _ in range(_TRIES):
            if not self.unreadable[index]:
                return self.draws.of_resident(index), self.targets[index]
            index = int(torch.randint(len(self), ()))
        index = int(self.unreadable.argmin())  # the first that is there
        return self.draws.of_resident(index), torch.full_like(self.targets[index], UNKNOWN)

    def load(self, index: int) -> Pixels:
        """Return the decoded image of a row, uint8 [H, W, C], from the cache where it is kept there.

        Raises:
            OSError: it is nowhere, or no image.
        """
        pixels = None if self.cache is None else self.cache.get(index)
        return self.decode(index) if pixels is None else pixels

    def decode(self, index: int) -> Pixels:
        """Decode the image of a row, uint8 [H, W, C], from the first of the roots that has it.

        Raises:
            OSError: it is nowhere, or no image.
        """
        path = self.table.image_path(index)
        for root in self.roots[:-1]:
            try:
                return load_pixels(root / path, self.channels)
            except FileNotFoundError:
                continue
        return load_pixels(self.roots[-1] / path, self.channels)

    def check_readable(self) -> None:
        """Raise where more images than tolerated have turned out unreadable so far.

        Raises:
            DataError: past the limit.
        """
        count = int(self.unreadable.sum())
        if count > max(_ALWAYS_TOLERATED, self.max_unreadable * len(self)) or count == len(self):
            first = int(self.unreadable.argmax())
            raise DataError(
                f"{self.table.path}: {count} of the {len(self)} images could not be read so far, the first being "
                f"{self._reason(first)}: mend the files, or raise the share that --max-unreadable allows "
                f"({self.max_unreadable:g})"
            )

    def share_unreadable(self, device: torch.device) -> None:
        """Tell each process which images the others could not read; every process must call it."""
        flags = self.unreadable.to(device)
        torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
        self.unreadable.copy_(flags)

    def report_unreadable(self) -> int:
        """Log the paths that turned out unreadable since the last report; return how many there are in all."""
        found = self.unreadable.nonzero().flatten().tolist()
        if len(found) > self._reported:
            self._reported = len(found)
            for index in found[:_NAMED]:
                _logger.warning("Unreadable image: %s", self._reason(index))
            more = f", of which {_NAMED} are named above" if len(found) > _NAMED else ""
            instead = "other images took their place" if self.plan else "they count in no metric"
            _logger.warning(
                "%s: %d of %d images unreadable%s; %s", self.table.path, len(found), len(self), more, instead
            )
        return len(found)

    def _reason(self, index: int) -> str:
        try:
            self.load(index)
        except OSError as error:
            return str(error)  # it names the path
        return f"{self.table.image_path(index)} (readable now)"
