"""The images of a list, each with its row number."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import Dataset

from catalog.data_error import DataError
from catalog.decode import Pixels
from catalog.image_list import ImageList
from catalog.pictures import Pictures
from timm.data.view_maker import ViewMaker


class ImageDataset(Dataset[tuple[Any, Tensor]]):
    """Each image with its row number; an unreadable image is marked and becomes an empty picture.

    Args:
        lists: the images, as `list_images` returns them, or as `Pictures` holds them in memory.
        channels: 3 for color, 1 for gray.
        views: makes the view of a decoded image; None returns its pixels.
    """

    def __init__(
        self, lists: Sequence[ImageList | Pictures], channels: int = 3, views: ViewMaker | None = None
    ) -> None:
        self.lists = list(lists)
        self.channels = channels
        self.ends = np.cumsum([len(images.paths) for images in self.lists]).tolist()
        self.unreadable = torch.zeros(len(self), dtype=torch.uint8).share_memory_()  # workers share the memory
        self.views = views

    def with_views(self, views: ViewMaker) -> ImageDataset:
        """Return the same rows, with the same marks of unreadable images, and another maker of views."""
        rows = copy(self)
        rows.views = views
        return rows

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, row: int) -> tuple[Any, Tensor]:
        try:
            pixels = self.load(row)
        except OSError:
            self.unreadable[row] = 1
            pixels = np.zeros((32, 32, self.channels), np.uint8)
        return (self.views(pixels) if self.views else pixels), torch.tensor(row)

    @property
    def paths(self) -> pa.ChunkedArray:
        """The path of each row, as the predictions name it; null for an image in memory."""
        return pa.chunked_array([images.names for images in self.lists], pa.large_string())

    @property
    def keys(self) -> pa.ChunkedArray:
        """The path of each row as the input spells it, FILE#ROW for images inside a Parquet file."""
        return pa.chunked_array([images.keys for images in self.lists], pa.large_string())

    def load(self, row: int) -> Pixels:
        """Decode the image of a row, uint8 [H, W, C].

        Raises:
            OSError: the file is missing, or is no image.
        """
        index = bisect_right(self.ends, row)
        images = self.lists[index]
        return images.load(row - self.ends[index] + len(images.paths), self.channels)

    def name(self, row: int) -> str:
        """Return the path of a row, or "image 3" for the one in memory at index 3."""
        return self.paths[row].as_py() or f"image {row}"

    def check_readable(self) -> None:
        """Raise if no image at all could be read; call it after all were.

        Raises:
            DataError: every image is unreadable.
        """
        if self.unreadable.all():
            first = f"{self.name(0)} ({self._reason(0)})"
            raise DataError(
                f"none of the {len(self)} images could be read, the first being {first}: fix the files, or name others"
            )

    def errors(self) -> dict[int, str]:
        """Return the reason of each unreadable image, by row."""
        return {row: self._reason(row) for row in self.unreadable.nonzero().flatten().tolist()}

    def _reason(self, row: int) -> str:
        try:
            self.load(row)
        except OSError as error:
            return (error.strerror or str(error)) if isinstance(error, FileNotFoundError) else str(error)
        return "could not be read, but can be now"
