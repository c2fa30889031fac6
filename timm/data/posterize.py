"""Posterize to no bits at all, which timm's policies may ask for: a black image, as ever."""

from __future__ import annotations

from typing import Any

from PIL import Image

from timm.data.auto_augment import NAME_TO_OP, posterize

_UNTIL_BLACK = ("Posterize", "PosterizeIncreasing")  # timm's operations whose strength may leave 0 bits, or fewer


def posterize_or_black(image: Image.Image, bits_to_keep: int, **settings: Any) -> Image.Image:
    """Return an image with so many bits for each channel; black where none is left."""
    if bits_to_keep < 1:
        return Image.new(image.mode, image.size)
    posterized: Image.Image = posterize(image, bits_to_keep, **settings)
    return posterized


def allow_black() -> None:
    """Let timm's policies posterize to black: Pillow 13 raises instead, once in some hundred images of rand-m9-inc1."""
    NAME_TO_OP.update(dict.fromkeys(_UNTIL_BLACK, posterize_or_black))
