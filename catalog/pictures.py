"""Images in memory: Pillow images and NumPy arrays, beside the ones that `catalog.image_list` finds in files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from catalog.data_error import DataError
from catalog.decode import Pixels, picture_pixels

Picture = Image.Image | npt.NDArray[np.uint8]

_CHANNELS = {1: "gray", 3: "RGB", 4: "RGB and transparency"}


class Pictures:
    """Images in memory, decoded to the same pixels as a file of them would be.

    Args:
        pictures: Pillow images in any mode, and arrays uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4].
        first: the index of the first one in what the user gave, for messages.

    Raises:
        DataError: an array is no image.
    """

    def __init__(self, pictures: Sequence[Picture], first: int = 0) -> None:
        for index, picture in enumerate(pictures, first):
            _check(picture, index)
        self.pictures = list(pictures)

    @property
    def paths(self) -> pa.LargeStringArray:
        """A null for each image."""
        return pa.nulls(len(self.pictures), pa.large_string())

    @property
    def names(self) -> pa.LargeStringArray:
        """A null for each image, which no file names."""
        return self.paths

    @property
    def keys(self) -> pa.LargeStringArray:
        """A null for each image: no soft label is found by it."""
        return self.paths

    def load(self, position: int, channels: int) -> Pixels:
        """Return the pixels of an image, uint8 [H, W, C].

        Raises:
            OSError: a Pillow image comes from a file that is damaged or gone.
        """
        picture = self.pictures[position]
        if not isinstance(picture, Image.Image):
            picture = Image.fromarray(picture[:, :, 0] if picture.shape[2:] == (1,) else picture)
        return picture_pixels(picture, channels)


def is_picture(value: Any) -> bool:
    """Return whether a value is an image in memory; an array of texts or objects is none."""
    return isinstance(value, Image.Image) or (isinstance(value, np.ndarray) and value.dtype.kind not in "OSU")


def _check(picture: Picture, index: int) -> None:
    """Raise a DataError for an array that is no image."""
    if isinstance(picture, Image.Image):
        return
    shape = picture.shape
    if picture.dtype != np.uint8:
        hint = "multiply by 255 and round" if picture.dtype.kind == "f" else "scale to 0-255"
        raise DataError(f"image {index} is an array of {picture.dtype}: give uint8 [H, W, 3] ({hint})")
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] in _CHANNELS)) or 0 in shape:
        kinds = ", ".join(f"{count} ({name})" for count, name in _CHANNELS.items())
        hint = "; transpose(1, 2, 0) moves the channels last" if len(shape) == 3 and shape[0] in _CHANNELS else ""
        raise DataError(
            f"image {index} is an array of shape {list(shape)}: give [H, W], or [H, W, C] with C = {kinds}{hint}"
        )
