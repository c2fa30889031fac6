"""A JPEG that is decoded no larger than the parts that are cut from it need.

A JPEG stores blocks of 8 x 8 pixels by frequency. libjpeg-turbo can leave the high frequencies out and decode a block
to 4 x 4, 2 x 2 or 1 pixels, each about the mean of the pixels that it replaces. Reading the compressed data remains.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from catalog.decode import (
    DIVISORS,
    Pixels,
    as_pixels,
    decode_jpeg,
    is_plain_jpeg,
    jpeg_content,
    jpeg_size,
    load_image,
    load_pixels,
)

Box = tuple[int, int, int, int]


class ScaledJpeg:
    """A color JPEG, decoded when it is known which part of it is wanted, and how large.

    Args:
        path: the file.
        content: its bytes.

    Attributes:
        shape: height, width and 3, of the whole image.
        crops: what was drawn for the next views of the image, if it was drawn ahead.

    Raises:
        ValueError: the header is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], content: bytes) -> None:
        height, width = jpeg_size(content)
        self.shape = height, width, 3
        self._path, self._content = path, content
        self.crops: Iterator[Any] = iter(())
        self._most = DIVISORS[0]
        self._decoded: dict[int, Pixels] = {}

    def expect(self, boxes: Iterable[Box], size: tuple[int, int]) -> None:
        """Note parts that will be asked for, so that the image is decoded only once, as large as all of them need."""
        self._most = min([self._most, *(_divisor(box, size) for box in boxes)])

    def part(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Box]:
        """Return the image at the smallest scale at which a rectangle keeps a size, and the rectangle there.

        The edges of the rectangle move to whole pixels of that scale. If the image was decoded before, and large
        enough, it is taken again.

        Args:
            box: top, left, height and width of the rectangle in the whole image.
            size: height and width that it will be resized to.

        Returns:
            uint8 [H, W, 3] and the rectangle there.

        Raises:
            OSError: the file is damaged.
        """
        enough = min(self._most, _divisor(box, size))
        by = max((n for n in self._decoded if n <= enough), default=enough)
        if by not in self._decoded:
            try:
                self._decoded[by] = decode_jpeg(self._content, by)
            except ValueError:  # damaged: Pillow decodes it or raises a readable error
                by = 1
                self._decoded[by] = as_pixels(load_image(self._path))
        pixels = self._decoded[by]
        if by == 1:
            return pixels, box
        top, left, height, width = box
        bottom = min(pixels.shape[0], round((top + height) / by))
        right = min(pixels.shape[1], round((left + width) / by))
        top, left = round(top / by), round(left / by)
        return pixels, (top, left, bottom - top, right - left)


def _divisor(box: Box, size: tuple[int, int]) -> int:
    """Return the largest divisor that leaves a rectangle the height and width of a size; else 1."""
    return next((n for n in DIVISORS if box[2] >= n * size[0] and box[3] >= n * size[1]), 1)


def open_pixels(path: str | os.PathLike[str], channels: int = 3) -> Pixels | ScaledJpeg:
    """Return a plain color JPEG to be decoded later; any other image decoded, uint8 [H, W, C].

    Args:
        path: the file.
        channels: 3 for color, 1 for gray.

    Raises:
        OSError: the file is missing or no image; the message names the file.
    """
    if channels == 3:
        with suppress(ValueError):  # damaged, or an impossible name, as in `load_pixels`
            content = jpeg_content(path)
            if is_plain_jpeg(content):
                return ScaledJpeg(path, content)
    return load_pixels(path, channels)
