"""The images of a table and their targets; single unreadable files are replaced."""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from catalog.data_error import DataError
from catalog.decode import Pixels, load_pixels
from catalog.find_images import with_found_images
from catalog.image_cache import ImageCache
from catalog.label_space import UNKNOWN
from catalog.scaled_jpeg import ScaledJpeg, open_pixels
from catalog.table import Table
from timm.data.device_views import CachedImage, CachedSizes
from timm.data.view_maker import ViewMaker
from timm.data.view_plan import ViewPlan

_logger = logging.getLogger(__name__)

Image = TypeVar("Image")

_TRIES = 10  # rows tried for a sample; after that it is an empty picture without labels
_ALWAYS_TOLERATED = 10  # unreadable images; a share of a small table would tolerate none
_NAMED = 10  # paths in one report


class TwoViewDataset(Dataset[tuple[Any, Tensor]]):
    """Image and target of each row.

    An unreadable image is marked, in memory that all workers share. In training another random row replaces it. In
    evaluation it becomes an empty picture whose labels are unknown, so that it counts in no metric. Workers raise
    nothing: `check_readable` raises in the process that calls it.

    Args:
        table: the rows.
        targets: int64 [rows, C] of catalog.targets.
        plan: the views of a training image; None for evaluation, with one view and no replacement.
        channels: 3 for color, 1 for gray.
        views: makes the views of a decoded image; None returns its pixels.
        max_unreadable: share of the rows that may be unreadable before `check_readable` raises, 0-1.

    Attributes:
        cache: decoded images; None decodes each image when it is read.
        features: the representation of each row, float32 [rows, D], returned instead of the images; None for images.
        on_device: the sizes of the images that the device holds, which workers do not read; None if they read them.
        scaled: whether JPEGs are decoded no larger than the views need; these must be random resized crops.
        numbers: int64 [rows], a number that each row's target carries in a further column, `UNKNOWN` for an empty
            picture; None for no further column.
    """

    def __init__(
        self,
        table: Table,
        targets: np.ndarray[Any, np.dtype[np.int64]],
        plan: ViewPlan | None = None,
        channels: int = 3,
        views: ViewMaker | None = None,
        max_unreadable: float = 0.01,
    ) -> None:
        self.targets = torch.from_numpy(targets)
        self.plan = plan
        self.channels = channels
        self.views = views
        self.max_unreadable = max_unreadable
        self.table, self.roots = with_found_images(table)
        self.cache: ImageCache | None = None
        self.features: Tensor | None = None
        self.on_device: CachedSizes | None = None
        self.scaled = False
        self.numbers: Tensor | None = None
        self.unreadable = torch.zeros(len(table), dtype=torch.uint8).share_memory_()
        self._reported = 0

    def with_views(
        self, views: ViewMaker, on_device: CachedSizes | None = None, scaled: bool = False
    ) -> TwoViewDataset:
        """Return the same rows, with the same marks of unreadable images, and another maker of views.

        Args:
            views: makes the views of a decoded image, or with `on_device` of a `CachedImage`.
            on_device: the sizes of the images that the device holds.
            scaled: whether JPEGs are decoded no larger than these views need.
        """
        rows = copy(self)
        rows.views, rows.on_device, rows.scaled = views, on_device, scaled
        return rows

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        if self.features is not None:
            return self.features[index], self._target(index)
        views, index = self._readable(index)
        target = self._target(index)
        if views is None:
            views, target = self._views(self._substitute()), torch.full_like(target, UNKNOWN)
        return views, target

    def _views(self, image: Pixels | ScaledJpeg | CachedImage) -> Any:
        return self.views(image) if self.views else image

    def _target(self, index: int) -> Tensor:
        """Return the target of a row, [C], or [C + 1] with its number."""
        target = self.targets[index]
        return target if self.numbers is None else torch.cat([target, self.numbers[index : index + 1]])

    def _readable(self, index: int) -> tuple[Any, int]:
        """Return the views of a row and the row; in training a random row replaces an unreadable one."""
        for _ in range(_TRIES if self.plan else 1):
            if not self.unreadable[index]:
                try:
                    # A scaled JPEG is decoded as its views are made.
                    return self._views(self._image(index)), index
                except OSError:
                    self.unreadable[index] = 1
            if self.plan:
                index = int(torch.randint(len(self), ()))
        return None, index

    def _substitute(self) -> Pixels | CachedImage:
        """Return a black picture, or the first image that the device holds."""
        if self.on_device is not None:
            return self.on_device.image(int(self.unreadable.argmin()))
        return np.zeros((32, 32, self.channels), np.uint8)

    def _image(self, index: int) -> Pixels | ScaledJpeg | CachedImage:
        """Return what the views of a row are made from.

        Raises:
            OSError: the file is missing, or is no image.
        """
        if self.on_device is not None:
            return self.on_device.image(index)
        return self._from_roots(index, open_pixels) if self.scaled and self.cache is None else self.load(index)

    def load(self, index: int) -> Pixels:
        """Return the decoded image of a row, uint8 [H, W, C], from the cache if it is there.

        Raises:
            OSError: the file is missing, or is no image.
        """
        pixels = None if self.cache is None else self.cache.get(index)
        return self.decode(index) if pixels is None else pixels

    def decode(self, index: int) -> Pixels:
        """Decode the image of a row, uint8 [H, W, C], from the first of the roots that has it.

        Raises:
            OSError: the file is missing, or is no image.
        """
        return self._from_roots(index, load_pixels)

    def _from_roots(self, index: int, read: Callable[[Path, int], Image]) -> Image:
        """Return what a function reads from the file of a row, below the first of the roots that has it."""
        path = self.table.image_path(index)
        for root in self.roots[:-1]:
            try:
                return read(root / path, self.channels)
            except FileNotFoundError:
                continue
        return read(self.roots[-1] / path, self.channels)

    def check_readable(self) -> None:
        """Raise if more images than tolerated were unreadable so far.

        Raises:
            DataError: past the limit.
        """
        count = int(self.unreadable.sum())
        if count > max(_ALWAYS_TOLERATED, self.max_unreadable * len(self)) or count == len(self):
            first = int(self.unreadable.argmax())
            raise DataError(
                f"{self.table.path}: {count} of the {len(self)} images could not be read so far, the first being "
                f"{self._reason(first)}: fix the files, or raise max_unreadable ({self.max_unreadable:g})"
            )

    def share_unreadable(self, device: torch.device) -> None:
        """Share the marks of unreadable images between all ranks; every rank must call this."""
        flags = self.unreadable.to(device)
        torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
        self.unreadable.copy_(flags)

    def report_unreadable(self) -> int:
        """Log the paths that became unreadable since the last report; return their total number."""
        found = self.unreadable.nonzero().flatten().tolist()
        if len(found) > self._reported:
            self._reported = len(found)
            for index in found[:_NAMED]:
                _logger.warning("Unreadable image: %s", self._reason(index))
            more = f", {_NAMED} are named above" if len(found) > _NAMED else ""
            instead = "other images took their place" if self.plan else "they count in no metric"
            _logger.warning(
                "%s: %d of %d images unreadable%s; %s", self.table.path, len(found), len(self), more, instead
            )
        return len(found)

    def _reason(self, index: int) -> str:
        name = self.table.image_name(index)
        try:
            self.load(index)
        except OSError as error:  # it names the path
            return str(error) if self.table.names is None else f"{name} in {self.table.place(index)} ({error})"
        return f"{name} (readable now)"
