"""The slow operations of timm's augmentation policies, on bytes: shears, rotations, translations and sharpening.

timm's policies draw and name the operations. OpenCV does the work instead of Pillow, with the same result up to
rounding. It takes shears and rotations to a 32nd of a pixel, and fades the border of the turned image into the fill
color. Bicubic shears and rotations stay Pillow's, because OpenCV lacks its kernel.

Posterizing to no bits, which timm's policies may ask for, gives a black image here; Pillow 13 raises.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import cv2
import numpy as np
from PIL import Image

from catalog.decode import Pixels, as_image, as_pixels
from timm.data import auto_augment
from timm.data.auto_augment import NAME_TO_OP, posterize

Color = Sequence[int]
Operation = Callable[..., Image.Image]
Matrix = Callable[[float, int, int], Sequence[float]]  # takes an amount, a width and a height

_UNTIL_BLACK = ("Posterize", "PosterizeIncreasing")  # timm's operations whose strength may leave no bits


def use_opencv_operations(policy: Any) -> None:
    """Replace the operations of timm's policy (RandAugment, AutoAugment, AugMix) by faster equals, in place."""
    groups = getattr(policy, "policy", None) or [getattr(policy, "ops", [])]
    for op in (op for group in groups for op in group):
        if isinstance(op, auto_augment.AugmentOp):
            op.aug_fn = _OPERATIONS.get(op.name, op.aug_fn)


def posterize_or_black(image: Image.Image, bits_to_keep: int, **settings: Any) -> Image.Image:
    """Return an image with `bits_to_keep` bits per channel; below 1 it is black."""
    if bits_to_keep < 1:
        return Image.new(image.mode, image.size)
    posterized: Image.Image = posterize(image, bits_to_keep, **settings)
    return posterized


def allow_black() -> None:
    """Let timm's policies posterize to black, which rand-m9-inc1 does once in some hundred images."""
    NAME_TO_OP.update(dict.fromkeys(_UNTIL_BLACK, posterize_or_black))


def warp(pixels: Pixels, matrix: Sequence[float], fill: Color) -> Pixels:
    """Return the image under an affine map, with bilinear interpolation.

    Args:
        pixels: uint8 [H, W, C].
        matrix: (a, b, c, d, e, f): the result at (x, y) is the image at (ax + by + c, dx + ey + f). The origin is the
            corner of the image, as in Pillow.
        fill: the color outside the image, C values.

    Returns:
        uint8 [H, W, C].
    """
    a, b, c, d, e, f = matrix
    # OpenCV's origin is the middle of the first pixel.
    centered = np.array([[a, b, (a + b - 1) / 2 + c], [d, e, (d + e - 1) / 2 + f]])
    size, flags = pixels.shape[1::-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cast(
        Pixels, cv2.warpAffine(pixels, centered, size, flags=flags, borderValue=tuple(fill)).reshape(pixels.shape)
    )


def translate(pixels: Pixels, distance: float, axis: int, resampling: int, fill: Color) -> Pixels:
    """Return the image moved, as Pillow's affine transform moves it.

    Args:
        pixels: uint8 [H, W, C].
        distance: pixels to the left, or with axis 0 upwards; may be negative or fractional.
        axis: 1 moves along a row, 0 along a column.
        resampling: Pillow's BILINEAR or BICUBIC.
        fill: the color of the uncovered border, C values.

    Returns:
        uint8 [H, W, C].
    """
    whole, part = math.floor(distance), distance % 1
    reach, length = 3, pixels.shape[axis]
    border = (0, 0, reach, reach) if axis == 1 else (reach, reach, 0, 0)
    wide = cv2.copyMakeBorder(pixels, *border, cv2.BORDER_REPLICATE).reshape(
        pixels.shape[0] + sum(border[:2]), pixels.shape[1] + sum(border[2:]), -1
    )
    if part:
        weights, one = _weights(part, resampling), np.ones(1, np.float32)
        along_rows, along_columns = (weights, one) if axis == 1 else (one, weights)
        anchor = (1, 0) if axis == 1 else (0, 1)
        wide = cv2.sepFilter2D(wide, -1, along_rows, along_columns, anchor=anchor).reshape(wide.shape)
    result = np.empty_like(pixels)
    result[:] = fill
    # Pixels of the result whose middle lies in the image: 0 <= x + 0.5 + distance < length.
    first, last = max(0, math.ceil(-0.5 - distance)), min(length, math.ceil(length - 0.5 - distance))
    if first < last:
        inside, source = slice(first, last), slice(first + whole + reach, last + whole + reach)
        if axis == 1:
            result[:, inside] = wide[:, source]
        else:
            result[inside] = wide[source]
    return result


def _weights(part: float, resampling: int) -> Any:
    """Return the weights of the pixels at -1, 0, 1 and 2 in the value at `part`, 0-1."""
    if resampling == Image.Resampling.BILINEAR:
        weights = [0.0, 1 - part, part, 0.0]
    else:  # Keys' cubic convolution (1981) with a = -1, as in Pillow's transforms; Pillow's resizes use -1/2
        near = [t**3 - 2 * t**2 + 1 for t in (part, 1 - part)]
        far = [-(t**3) + 5 * t**2 - 8 * t + 4 for t in (1 + part, 2 - part)]
        weights = [far[0], near[0], near[1], far[1]]
    return np.array(weights, np.float32)


def sharpen(pixels: Pixels, factor: float) -> Pixels:
    """Return the image moved away from its smoothed copy, as Pillow's Sharpness does; the border stays.

    Args:
        pixels: uint8 [H, W, C].
        factor: 0 is the smoothed image, 1 the image itself.
    """
    smooth = pixels.copy()
    if min(pixels.shape[:2]) > 2:
        kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
        filtered = cv2.filter2D(pixels, -1, kernel).reshape(pixels.shape)
        smooth[1:-1, 1:-1] = filtered[1:-1, 1:-1]
    return cast(Pixels, cv2.addWeighted(pixels, factor, smooth, 1 - factor, 0).reshape(pixels.shape))


def _affine(
    name: str, matrix_of: Matrix, image: Image.Image, amount: float, *, resample: Any, fillcolor: Any
) -> Image.Image:
    """Shear or rotate; leave other interpolations than bilinear to Pillow."""
    resampling = _choose(resample)
    if resampling != Image.Resampling.BILINEAR:
        return _pillow_operation(name)(image, amount, resample=resampling, fillcolor=fillcolor)
    pixels = as_pixels(image)
    return as_image(warp(pixels, matrix_of(amount, *image.size), fillcolor))


def _shift(name: str, axis: int, image: Image.Image, amount: float, *, resample: Any, fillcolor: Any) -> Image.Image:
    """Move by pixels, or by a share of the side if the name ends in "Rel"."""
    resampling = _choose(resample)
    if resampling not in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
        return _pillow_operation(name)(image, amount, resample=resampling, fillcolor=fillcolor)
    pixels = as_pixels(image)
    distance = amount * pixels.shape[axis] if name.endswith("Rel") else amount
    return as_image(translate(pixels, distance, axis, resampling, fillcolor))


def _sharpness(image: Image.Image, factor: float, **_: Any) -> Image.Image:
    return as_image(sharpen(as_pixels(image), factor))


def _pillow_operation(name: str) -> Operation:
    return cast(Operation, auto_augment.NAME_TO_OP[name])


def _choose(resample: Any) -> int:
    """Return the resampling; draw it if there are several, as timm's operations do."""
    return cast(int, random.choice(resample) if isinstance(resample, list | tuple) else resample)


def _shear_x(shear: float, width: int, height: int) -> Sequence[float]:
    return 1, shear, 0, 0, 1, 0


def _shear_y(shear: float, width: int, height: int) -> Sequence[float]:
    return 1, 0, 0, shear, 1, 0


def _turn(degrees: float, width: int, height: int) -> Sequence[float]:
    """Return the map of a counter-clockwise rotation around the middle."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y


# Partial functions, because closures cannot be sent to a spawned worker.
_OPERATIONS: dict[str, Operation] = {
    "ShearX": partial(_affine, "ShearX", _shear_x),
    "ShearY": partial(_affine, "ShearY", _shear_y),
    "Rotate": partial(_affine, "Rotate", _turn),
    "TranslateX": partial(_shift, "TranslateX", 1),
    "TranslateY": partial(_shift, "TranslateY", 0),
    "TranslateXRel": partial(_shift, "TranslateXRel", 1),
    "TranslateYRel": partial(_shift, "TranslateYRel", 0),
    "Sharpness": _sharpness,
    "SharpnessIncreasing": _sharpness,
}
