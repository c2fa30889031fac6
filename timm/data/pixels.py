"""Images as arrays of bytes: decoded, cropped and resized faster than through Pillow, to the same pixels.

An array is uint8 [H, W, C], C 3 or 1. What is no ordinary JPEG is read by `timm.data.image`, which knows every kind.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from typing import Any, cast

import cv2
import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from timm.data.image import load_image

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

cv2.setNumThreads(1)  # each loader worker has a core, and a thread pool does not survive a fork

# Those that torch resizes as Pillow does, antialiased; the others are left to Pillow.
_TORCH_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}


def load_pixels(path: str | os.PathLike[str], channels: int = 3) -> Pixels:
    """Reads an image file, upright, as `timm.data.image.load_image` does.

    Args:
        path: where it is.
        channels: 3 for colour, 1 for grey.

    Returns:
        uint8 [H, W, C].

    Raises:
        OSError: if it is missing or no image; the message names the file.
    """
    if channels == 3:
        with suppress(ValueError):  # a damaged image, or a name that no file has: below Pillow says so, or knows a way
            content = _content_of_jpeg(path)
            if _is_ordinary(content):
                return cast(Pixels, simplejpeg.decode_jpeg(content))
    return as_pixels(load_image(path, channels))


def _content_of_jpeg(path: str | os.PathLike[str]) -> bytes:
    """Returns what a file holds, nothing if it is no JPEG."""
    with open(path, "rb") as file:  # noqa: PTH123 - building a Path takes a tenth of a small image's time
        return file.read() if file.peek(3).startswith(b"\xff\xd8\xff") else b""


def _is_ordinary(content: bytes) -> bool:
    """Whether a file is a color JPEG of a size that Pillow takes, without metadata that could turn it.

    Raises:
        ValueError: if a JPEG's header is damaged.
    """
    if not content or b"Exif\0\0" in content or b"tiff:Orientation" in content:
        return False
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(content)
    return colorspace == "YCbCr" and int(height) * int(width) <= (Image.MAX_IMAGE_PIXELS or math.inf)


def as_pixels(image: Image.Image) -> Pixels:
    """Returns the pixels of a Pillow image of mode "RGB" or "L", a copy, [H, W, C]."""
    pixels = np.array(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def as_image(pixels: Pixels) -> Image.Image:
    """Returns pixels [H, W, C] as a Pillow image of mode "RGB" or "L", a copy."""
    if pixels.shape[2] == 1:
        return Image.fromarray(pixels[:, :, 0]).copy()  # Pillow lays a grey image into the array's memory
    return Image.fromarray(pixels)


def as_bytes(image: Tensor) -> Pixels:
    """Returns a tensor uint8 [C, H, W] as pixels [H, W, C] in the same memory."""
    return cast(Pixels, image.permute(1, 2, 0).numpy())


def as_tensor(pixels: Pixels) -> Tensor:
    """Returns writable pixels [H, W, C] as a tensor uint8 [C, H, W] in the same memory."""
    return torch.from_numpy(pixels).permute(2, 0, 1)


def resize_crop(pixels: Pixels, box: tuple[int, int, int, int], size: tuple[int, int], interpolation: int) -> Pixels:
    """Cuts out a rectangle and resizes it, antialiased where it shrinks.

    Equal to Pillow's resize of the crop: bilinearly to one level of 255, bicubically to two, else exactly. Of Pillow 13
    that is: older ones may resize along the other axis first, and so clip other overshoots of the bicubic kernel.

    Args:
        pixels: uint8 [H, W, C]; stays as it is, and may be read-only.
        box: top, left, height and width of the rectangle, within the image.
        size: height and width of the result.
        interpolation: one of Pillow's `Image.Resampling`.

    Returns:
        uint8 [size[0], size[1], C], contiguous, in memory of its own.
    """
    top, left, height, width = box
    crop = pixels[top : top + height, left : left + width]
    resampling = Image.Resampling(interpolation)
    if resampling == Image.Resampling.BILINEAR and height <= size[0] and width <= size[1]:
        grown = cv2.resize(crop, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)  # twice as fast where all grow
        return grown.reshape(*size, -1)  # type: ignore[return-value]  # OpenCV drops a single channel
    if resampling not in _TORCH_MODES:
        return as_pixels(as_image(crop).resize((size[1], size[0]), resampling))
    batch, mode = _batch_of(crop), _TORCH_MODES[resampling]
    # torch resizes along rows first; here Pillow begins with the columns, and what a pass clips the other cannot see.
    if height - size[0] > max(0, 2 * (width - size[1])):
        batch = F.interpolate(batch, size=(size[0], width), mode=mode, antialias=True)
    return as_bytes(F.interpolate(batch, size=size, mode=mode, antialias=True)[0])


def _batch_of(crop: Pixels) -> Tensor:
    """Returns pixels [H, W, C] as a batch uint8 [1, C, H, W], in the same memory unless that is read-only.

    torch takes its fast path, and returns the same layout, if the strides say that channels come last; those of
    `as_tensor(crop)[None]` do not, for the batch's own is too small.
    """
    image = as_tensor(crop if crop.flags.writeable else crop.copy())
    return image.as_strided((1, *image.shape), (image.shape[1] * image.stride(1), *image.stride()))
