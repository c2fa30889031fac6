"""Crop and resize images as arrays of bytes, faster than through Pillow, to the same pixels.

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

cv2.setNumThreads(1)  # each loader worker has a core, and a thread pool does not survive a fork

# Those that torch resizes as Pillow does, antialiased; the others are left to Pillow.
_TORCH_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}


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
