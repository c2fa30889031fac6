"""An image that somebody sends: bounded in bytes and pixels, decoded as an image file is, and never written to disk."""

from __future__ import annotations

import io
import warnings

from PIL import Image

from catalog.data_error import DataError
from catalog.decode import load_image
from catalog.image_formats import open_image

MOST_BYTES = 32 << 20
MOST_PIXELS = 100_000_000


def read_upload(content: bytes, channels: int = 3) -> Image.Image:
    """Return an image that was sent, upright, in mode "RGB" or "L".

    The name that its sender gave is not asked for: the bytes alone say what it is.

    Args:
        content: the bytes of an image file.
        channels: 3 for color, 1 for gray.

    Raises:
        DataError: it is empty, too large, damaged, or of a format that is not read.
    """
    if not content:
        raise DataError("the image is empty: send another one")
    if len(content) > MOST_BYTES:
        raise DataError(too_many_bytes())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about images that are refused below
            with open_image(io.BytesIO(content)) as image:
                width, height = image.size
    except Exception as error:  # decoders raise any type on damaged headers
        raise DataError(f"this cannot be read as an image: {_reason(error)}") from None
    if width * height > MOST_PIXELS:
        raise DataError(
            f"the image has {width:,} x {height:,} pixels, more than the {MOST_PIXELS // 10**6} million that are "
            "read: shrink it"
        )
    try:
        return load_image(io.BytesIO(content), channels)
    except OSError as error:
        raise DataError(f"this cannot be read as an image: {_reason(error.__cause__ or error)}") from None


def too_many_bytes() -> str:
    """Return the sentence about an image of too many bytes."""
    return f"the image has more than the {MOST_BYTES >> 20} MiB that are read: shrink it"


def _reason(error: BaseException) -> str:
    """Return what is wrong, on one line; Pillow's words about a file in memory hold its address."""
    text = " ".join(str(error).split())
    if "decompression bomb" in text:
        return f"it has more than the {MOST_PIXELS // 10**6} million pixels that are read: shrink it"
    return text if text and "object at 0x" not in text else "it is damaged, or of a format that is not read"
