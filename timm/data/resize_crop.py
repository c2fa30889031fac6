"""Crop and resize arrays of bytes, with Pillow's result and faster.

An array is uint8 [H, W, C], C 3 or 1.
"""

from __future__ import annotations

from typing import cast

import cv2
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from catalog.decode import Pixels, as_image, as_pixels
from catalog.scaled_jpeg import ScaledJpeg

cv2.setNumThreads(1)  # each loader worker has one core, and a thread pool does not survive a fork

# Modes that torch resizes as Pillow does, antialiased; Pillow does the others.
_TORCH_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}


def as_bytes(image: Tensor) -> Pixels:
    """Return a tensor uint8 [C, H, W] as pixels [H, W, C] in the same memory."""
    return cast(Pixels, image.permute(1, 2, 0).numpy())


def as_tensor(pixels: Pixels) -> Tensor:
    """Return writable pixels [H, W, C] as a tensor uint8 [C, H, W] in the same memory."""
    return torch.from_numpy(pixels).permute(2, 0, 1)


def resize_crop(
    pixels: Pixels | ScaledJpeg, box: tuple[int, int, int, int], size: tuple[int, int], interpolation: int
) -> Pixels:
    """Cut out a rectangle and resize it, antialiased if it shrinks.

    The result equals Pillow 13's resize of the crop: within one level of 255 if bilinear, two if bicubic, else exactly.
    An older Pillow may resize along the other axis first, and so clip other overshoots of the bicubic kernel.

    Args:
        pixels: uint8 [H, W, C]; not changed, may be read-only. A `ScaledJpeg` is decoded no larger than the result
            needs, which changes the pixels by a level or two on average.
        box: top, left, height and width of the rectangle, within the image.
        size: height and width of the result.
        interpolation: one of Pillow's `Image.Resampling`.

    Returns:
        uint8 [size[0], size[1], C], contiguous, in new memory.
    """
    if isinstance(pixels, ScaledJpeg):
        pixels, box = pixels.part(box, size)
    top, left, height, width = box
    crop = pixels[top : top + height, left : left + width]
    resampling = Image.Resampling(interpolation)
    if resampling == Image.Resampling.BILINEAR and height <= size[0] and width <= size[1]:
        grown = cv2.resize(crop, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)  # twice as fast if both sides grow
        return grown.reshape(*size, -1)  # type: ignore[return-value]  # OpenCV drops a single channel
    if resampling not in _TORCH_MODES:
        return as_pixels(as_image(crop).resize((size[1], size[0]), resampling))
    batch, mode = _batch_of(crop), _TORCH_MODES[resampling]
    # torch resizes along rows first, Pillow along columns here; the second pass cannot see what the first clipped.
    if height - size[0] > max(0, 2 * (width - size[1])):
        batch = F.interpolate(batch, size=(size[0], width), mode=mode, antialias=True)
    return as_bytes(F.interpolate(batch, size=size, mode=mode, antialias=True)[0])


def _batch_of(crop: Pixels) -> Tensor:
    """Return pixels [H, W, C] as a batch uint8 [1, C, H, W], in the same memory unless that is read-only.

    torch takes its fast path, and returns the same layout, if the strides say that channels come last. The strides of
    `as_tensor(crop)[None]` do not, because the stride of its batch dimension is too small.
    """
    image = as_tensor(crop if crop.flags.writeable else crop.copy())
    return image.as_strided((1, *image.shape), (image.shape[1] * image.stride(1), *image.stride()))
