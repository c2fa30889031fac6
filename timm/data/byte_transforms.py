"""timm's transforms of Pillow images, made to take arrays of bytes: the same draws, less work."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from PIL import Image
from torchvision.transforms import Compose

from catalog.decode import Pixels, as_image
from catalog.scaled_jpeg import ScaledJpeg
from timm.data.byte_operations import use_opencv_operations
from timm.data.resize_crop import as_tensor, resize_crop
from timm.data.simclr_view import Drawn, random_box
from timm.data.transforms import (
    MaybePILToTensor,
    MaybeToTensor,
    RandomResizedCropAndInterpolation,
    interp_mode_to_str,
    str_to_pil_interp,
)


def from_pixels(transform: Any, view: Callable[[Pixels], Pixels] | None = None) -> Any:
    """Return timm's transform, made to take pixels uint8 [H, W, C] instead of a Pillow image.

    Args:
        transform: transform of `timm.data.create_transform`; with AugMix's splits a tuple of three, whose first takes
            an image.
        view: replaces the transform's steps before the tensor; None keeps them.

    Raises:
        ValueError: there are both a view and AugMix's splits, whose augmentation the view would replace.
    """
    if isinstance(transform, tuple | list):
        if view is not None:
            raise ValueError("expected a transform in one part to make views in, got AugMix's splits")
        first, *others = transform
        for step in (step for other in others for step in other.transforms):
            use_opencv_operations(step)
        return (from_pixels(first), *others)
    if not isinstance(transform, Compose):
        return Compose([as_image, transform])
    first, *rest = transform.transforms
    if view is not None:
        place = next(i for i, step in enumerate(rest) if isinstance(step, MaybePILToTensor | MaybeToTensor))
        to_tensor, *normalize = rest[place:]
        return Compose([view, as_tensor if isinstance(to_tensor, MaybePILToTensor) else to_tensor, *normalize])
    for step in rest:
        use_opencv_operations(step)
    if isinstance(first, RandomResizedCropAndInterpolation):
        return Compose([RandomCrop(first), *rest])
    return Compose([as_image, first, *rest])


class RandomCrop:
    """timm's random resized crop, on pixels.

    Args:
        crop: timm's crop, whose parameters are taken.
    """

    def __init__(self, crop: RandomResizedCropAndInterpolation) -> None:
        self.size, self.scale, self.ratio = tuple(crop.size), tuple(crop.scale), tuple(crop.ratio)
        modes = crop.interpolation
        choices = modes if isinstance(modes, tuple | list) else [modes]
        self.interpolation = [str_to_pil_interp(interp_mode_to_str(mode)) for mode in choices]

    def __call__(self, pixels: Pixels | ScaledJpeg) -> Image.Image:
        """Return a random crop of an image [H, W, C], resized."""
        ahead = next(pixels.crops, None) if isinstance(pixels, ScaledJpeg) else None
        drawn = ahead or self.draw(pixels.shape[0], pixels.shape[1])
        return as_image(resize_crop(pixels, drawn.box, self.size, drawn.interpolation))

    def draw(self, height: int, width: int) -> Drawn:
        """Draw the crop of an image with this height and width in pixels."""
        box = random_box(height, width, self.scale, self.ratio)
        # timm draws no number if there is no choice.
        modes = self.interpolation
        return Drawn(box, random.choice(modes) if len(modes) > 1 else modes[0])

    def __repr__(self) -> str:
        return f"RandomCrop(size={self.size}, scale={self.scale}, ratio={self.ratio}, {self.interpolation})"
