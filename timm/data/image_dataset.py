"""The images of a list as a data set: each one with its row number."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from catalog.decode import as_image, load_pixels
from catalog.image_list import ImageList


class ImageDataset(Dataset[tuple[Any, Tensor]]):
    """Each image with its row number; one that cannot be read is an empty picture, and marked.

    Args:
        lists: of `list_images`.
        channels: 3 for color, 1 for gray.
    """

    def __init__(self, lists: Sequence[ImageList], channels: int = 3) -> None:
        self.lists = list(lists)
        self.channels = channels
        self.ends = np.cumsum([len(images.paths) for images in self.lists]).tolist()
        self.unreadable = torch.zeros(len(self), dtype=torch.uint8).share_memory_()  # workers mark in the same memory
        self.transform: Callable[[Image.Image], Any] | None = None  # timm's loader sets it

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, row: int) -> tuple[Any, Tensor]:
        try:
            image = self.load(row)
        except OSError:
            self.unreadable[row] = 1
            image = Image.new("RGB" if self.channels == 3 else "L", (32, 32))
        return (self.transform(image) if self.transform else image), torch.tensor(row)

    @property
    def paths(self) -> pa.ChunkedArray:
        """Every row's path, as it is written to the predictions."""
        return pa.chunked_array([images.paths for images in self.lists], pa.large_string())

    def load(self, row: int) -> Image.Image:
        """Decode the image of a row.

        Raises:
            OSError: it is missing or no image.
        """
        index = bisect_right(self.ends, row)
        images = self.lists[index]
        path = images.paths[row - self.ends[index] + len(images.paths)].as_py()
        for root in images.roots[:-1]:
            try:
                return as_image(load_pixels(root / path, self.channels))
            except FileNotFoundError:
                continue
        return as_image(load_pixels(images.roots[-1] / path, self.channels))

    def errors(self) -> dict[int, str]:
        """Return why each image that turned out unreadable is, by row."""
        return {row: self._reason(row) for row in self.unreadable.nonzero().flatten().tolist()}

    def _reason(self, row: int) -> str:
        try:
            self.load(row)
        except OSError as error:
            return (error.strerror or str(error)) if isinstance(error, FileNotFoundError) else str(error)
        return "could not be read, but can be now"
