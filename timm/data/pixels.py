"""Images as arrays of bytes: decoded, cropped and resized faster than through Pillow, to the same pixels.

An array is uint8 [H, W, C], C 3 or 1. What is no ordinary JPEG is read by `timm.data.image`, which knows every kind.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
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
        content = Path(path).read_bytes()
        if _is_ordinary_jpeg(content):
            with suppress(ValueError):  # damaged: Pillow says how, or knows a way
                return cast(Pixels, simplejpeg.decode_jpeg(content))
    return as_pixels(load_image(path, channels))


def _is_ordinary_jpeg(content: bytes) -> bool:
    """Whether a file is a color JPEG without metadata that could turn it."""
    if not content.startswith(b"\xff\xd8\xff") or b"Exif\0\0" in content:
        return False
    try:
        return simplejpeg.decode_jpeg_header(content)[2] == "YCbCr"
    except ValueError:
        return False


def as_pixels(image: Image.Image) -> Pixels:
    """Returns the pixels of a Pillow image of mode "RGB" or "L", a copy, [H, W, C]."""
    pixels = np.array(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def as_image(pixels: Pixels) -> Image.Image:
    """Returns pixels [H, W, C] as a Pillow image of mode "RGB" or "L", a copy."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def as_bytes(image: Tensor) -> Pixels:
    """Returns a tensor uint8 [C, H, W] as pixels [H, W, C] in the same memory."""
    return cast(Pixels, image.permute(1, 2, 0).numpy())


def as_tensor(pixels: Pixels) -> Tensor:
    """Returns pixels [H, W, C] as a tensor uint8 [C, H, W] in the same memory."""
    return torch.from_numpy(pixels).permute(2, 0, 1)


def resize_crop(pixels: Pixels, box: tuple[int, int, int, int], size: tuple[int, int], interpolation: int) -> Pixels:
    """Cuts out a rectangle and resizes it, antialiased where it shrinks.

    Equal to Pillow's resize of the crop to a level or two of 255.

    Args:
        pixels: uint8 [H, W, C].
        box: top, left, height and width of the rectangle, within the image.
        size: height and width of the result.
        interpolation: one of Pillow's `Image.Resampling`.

    Returns:
        uint8 [size[0], size[1], C].
    """
    top, left, height, width = box
    crop = pixels[top : top + height, left : left + width]
    resampling = Image.Resampling(interpolation)
    if resampling == Image.Resampling.BILINEAR and height <= size[0] and width <= size[1]:
        grown = cv2.resize(crop, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)  # twice as fast where all grow
        return grown.reshape(*size, -1)  # type: ignore[return-value]  # OpenCV drops a single channel
    if resampling not in _TORCH_MODES:
        return as_pixels(as_image(crop).resize((size[1], size[0]), resampling))
    resized = F.interpolate(as_tensor(crop)[None], size=size, mode=_TORCH_MODES[resampling], antialias=True)
    return as_bytes(resized[0])
