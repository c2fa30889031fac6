"""SimCLR's augmentation of a view, on bytes: crop, flip, color distortion, blur.

- SimCLR, Chen et al., 2020, https://arxiv.org/abs/2002.05709 (appendix A)

Each operation gives torchvision's result for the same parameters, up to the rounding of a byte, and clips to 0..255 as
torchvision does. The parameters have the paper's distributions. OpenCV does the work, several times as fast as Pillow.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np

from catalog.decode import Pixels
from catalog.scaled_jpeg import ScaledJpeg
from timm.data.resize_crop import resize_crop

SCALE = (0.08, 1.0)  # share of the image's area
RATIO = (3 / 4, 4 / 3)  # width over height
_JITTER = 0.8, 0.8, 0.8, 0.2  # brightness, contrast, saturation, hue, at strength 1
_JITTER_PROB, _GRAY_PROB, _BLUR_PROB = 0.8, 0.2, 0.5
_SIGMA = 0.1, 2.0  # pixels
TAILS = 3.5  # standard deviations; weights further out are less than half a level of 255


Jitter = Callable[[Pixels, float], Pixels]


@dataclass(frozen=True)
class Drawn:
    """The random choices for one view.

    Attributes:
        box: top, left, height and width of the crop, pixels.
        interpolation: Pillow's number of the interpolation.
        hflip: whether the view is mirrored.
        vflip: whether the view is turned upside down.
        jitters: changes of color, in order: the operation, and its amount.
        gray: whether the view is gray.
        sigma: standard deviation of the Gaussian blur, pixels; 0 for none.
    """

    box: tuple[int, int, int, int]
    interpolation: int
    hflip: bool = False
    vflip: bool = False
    jitters: tuple[tuple[Jitter, float], ...] = ()
    gray: bool = False
    sigma: float = 0.0


class SimCLRView:
    """Maker of a random view of an image.

    Args:
        size: height and width, pixels.
        scale: share of the image's area in the crop, from and to.
        ratio: width over height of the crop, from and to.
        interpolation: Pillow's `Image.Resampling` values; each view takes one at random.
        strength: factor on the color distortion; the paper uses 1 for ImageNet and 0.5 for CIFAR-10.
        keep_color: leave hue, saturation and gray out, for attributes that are about color.
        hflip: probability of mirroring.
        vflip: probability of turning upside down.
        distort: also change colors and blur; without it a view is a crop and a flip.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        interpolation: Sequence[int],
        scale: tuple[float, float] = SCALE,
        ratio: tuple[float, float] = RATIO,
        strength: float = 1.0,
        keep_color: bool = False,
        hflip: float = 0.5,
        vflip: float = 0.0,
        distort: bool = True,
    ) -> None:
        self.size = size
        self.interpolation = list(interpolation)
        self.scale, self.ratio = scale, ratio
        self.keep_color = keep_color
        self.hflip, self.vflip = hflip, vflip
        self.distort = distort
        brightness, contrast, saturation, hue = (amount * strength for amount in _JITTER)
        # Each operation with its lowest and its highest amount.
        self.jitters: Sequence[tuple[Jitter, float, float]] = [
            (adjust_brightness, max(0.0, 1 - brightness), 1 + brightness),
            (adjust_contrast, max(0.0, 1 - contrast), 1 + contrast),
            (adjust_saturation, max(0.0, 1 - saturation), 1 + saturation),
            (shift_hue, -min(0.5, hue), min(0.5, hue)),
        ][: 2 if keep_color else 4]
        self.largest_radius = largest_radius(size)

    def __call__(self, pixels: Pixels | ScaledJpeg) -> Pixels:
        """Return a view [size[0], size[1], C] of an image [H, W, C]."""
        ahead = next(pixels.crops, None) if isinstance(pixels, ScaledJpeg) else None
        return self.make(pixels, ahead or self.draw(pixels.shape[0], pixels.shape[1]))

    def draw(self, height: int, width: int) -> Drawn:
        """Draw the view of an image with this height and width in pixels."""
        box = random_box(height, width, self.scale, self.ratio)
        interpolation = random.choice(self.interpolation)
        flips = random.random() < self.hflip, random.random() < self.vflip
        if not self.distort:
            return Drawn(box, interpolation, *flips)
        jitters = self._draw_jitters() if random.random() < _JITTER_PROB else ()
        gray = not self.keep_color and random.random() < _GRAY_PROB
        sigma = random.uniform(*_SIGMA) if random.random() < _BLUR_PROB else 0.0
        return Drawn(box, interpolation, *flips, jitters, gray, sigma)

    def _draw_jitters(self) -> tuple[tuple[Jitter, float], ...]:
        """Draw the changes of brightness, contrast, saturation and hue, and their order."""
        order = random.sample(self.jitters, len(self.jitters))
        return tuple((adjust, random.uniform(low, high)) for adjust, low, high in order)

    def make(self, pixels: Pixels | ScaledJpeg, drawn: Drawn) -> Pixels:
        """Return the drawn view [size[0], size[1], C] of an image [H, W, C]."""
        view = resize_crop(pixels, drawn.box, self.size, drawn.interpolation)
        if drawn.hflip:
            view = _as_before(cv2.flip(view, 1), view)
        if drawn.vflip:
            view = _as_before(cv2.flip(view, 0), view)
        for adjust, amount in drawn.jitters:
            view = adjust(view, amount)
        if drawn.gray:
            view = adjust_saturation(view, 0.0)
        return blur(view, drawn.sigma, self.largest_radius) if drawn.sigma else view

    def __repr__(self) -> str:
        jitters = ", ".join(f"{adjust.__name__} {low:g}..{high:g}" for adjust, low, high in self.jitters)
        gray = "" if self.keep_color else f", gray {_GRAY_PROB}"
        return f"SimCLRView(size={self.size}, scale={self.scale}, ratio={self.ratio}, {jitters}{gray})"


def largest_radius(size: tuple[int, int]) -> int:
    """Return the largest radius of the blur in pixels, for views of this height and width."""
    # The kernel is a tenth of the side, as in the paper, and odd, so that it has a middle.
    return max(1, round(min(size) * 0.1) // 2)


def random_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Draw the rectangle of a random resized crop.

    The area and the logarithm of the ratio are uniform. If ten rectangles do not fit, the result is the largest central
    rectangle whose ratio is allowed.

    Args:
        height: height of the image, pixels.
        width: width of the image, pixels.
        scale: share of the area, from and to.
        ratio: width over height, from and to.

    Returns:
        top, left, height, width.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = height * width * random.uniform(*scale)
        aspect = math.exp(random.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    return (height - h) // 2, (width - w) // 2, h, w


def adjust_brightness(pixels: Pixels, factor: float) -> Pixels:
    """Multiply by a factor; 0 is black."""
    return _as_before(cv2.addWeighted(pixels, factor, pixels, 0, 0), pixels)


def adjust_contrast(pixels: Pixels, factor: float) -> Pixels:
    """Move each pixel away from the mean of the image's gray values; 0 is uniform gray."""
    mean = cv2.mean(_gray(pixels))[0]
    return _as_before(cv2.addWeighted(pixels, factor, pixels, 0, (1 - factor) * mean), pixels)


def adjust_saturation(pixels: Pixels, factor: float) -> Pixels:
    """Move each pixel away from its gray value; 0 is a gray image."""
    if pixels.shape[2] == 1:
        return pixels
    gray = cv2.cvtColor(_gray(pixels), cv2.COLOR_GRAY2RGB)
    return cast(Pixels, cv2.addWeighted(pixels, factor, gray, 1 - factor, 0) if factor else gray)


def shift_hue(pixels: Pixels, amount: float) -> Pixels:
    """Rotate the color circle by a share of it, -0.5 to 0.5."""
    if pixels.shape[2] == 1:
        return pixels
    # Bytes would round a hue to 1/256 of the circle, up to seven levels of a strong color, and be no faster.
    hsv: Any = cv2.cvtColor(pixels.astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[:, :, 0] += np.float32(amount % 1 * 360)  # OpenCV takes degrees above 360, but none below 0
    return cast(Pixels, cv2.convertScaleAbs(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)))  # rounds, and clips


def blur(pixels: Pixels, sigma: float, largest_radius: int) -> Pixels:
    """Blur with a Gaussian.

    Args:
        pixels: uint8 [H, W, C].
        sigma: standard deviation, pixels.
        largest_radius: the kernel has at most 2 * largest_radius + 1 weights a side.

    Returns:
        uint8 [H, W, C].
    """
    radius = min(largest_radius, math.ceil(TAILS * sigma))
    kernel = cv2.getGaussianKernel(2 * radius + 1, sigma, cv2.CV_32F)
    return _as_before(cv2.sepFilter2D(pixels, -1, kernel, kernel), pixels)


def _gray(pixels: Pixels) -> Pixels:
    return pixels if pixels.shape[2] == 1 else cast(Pixels, cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))


def _as_before(changed: cv2.typing.MatLike, before: Pixels) -> Pixels:
    """Return OpenCV's result, with the single channel that it drops."""
    return cast(Pixels, changed.reshape(before.shape))
