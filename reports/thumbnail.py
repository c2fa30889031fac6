"""Small copies of images inside a page."""

from __future__ import annotations

import base64
import io

from PIL import Image

from catalog.decode import load_image

SIDE = 112  # pixels of the longer side

_QUALITY = 70


def thumbnail(path: str) -> str:
    """Return an image as the address of a small JPEG that holds its own data; "" if it cannot be read.

    Args:
        path: the image file.
    """
    image = small_image(path)
    if image is None:
        return ""
    return picture_address(image)


def picture_address(image: Image.Image) -> str:
    """Return an image, which shrinks, as the address of a small JPEG that holds its own data."""
    # A strip a thousand times as long as wide would have no pixel on one side.
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def small_image(path: str, side: int = SIDE) -> Image.Image | None:
    """Return a small copy of an image; None if it cannot be read.

    Args:
        path: the image file.
        side: pixels of the longer side.
    """
    try:
        image = load_image(path, shorter_side=side)
    except (OSError, ValueError):  # ValueError: a path with a NUL byte names no file
        return None
    # A strip a thousand times as long as wide would have no pixel on one side.
    image.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=2.0)
    return image
