"""Reading one image file into the pixels a model is fed, whatever its format and mode.

What an image looks like on screen decides: it is turned upright, its transparent parts are white, its first frame
counts, and 16-bit gray is scaled and not clipped.
"""

from __future__ import annotations

import math
import os
import warnings
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, BinaryIO, cast

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

_MODES = {1: "L", 3: "RGB"}

# What undoes each EXIF orientation. Pillow's own `exif_transpose` rewrites the metadata too, which fails where a file's
# is damaged though its pixels are sound.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_pixels(path: str | os.PathLike[str], channels: int = 3) -> Pixels:
    """Reads an image file, upright, as `load_image` does.

    Args:
        path: where it is.
        channels: 3 for color, 1 for gray.

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
        return Image.fromarray(pixels[:, :, 0]).copy()  # Pillow lays a gray image into the array's memory
    return Image.fromarray(pixels)


def load_image(path_or_file: str | os.PathLike[str] | BinaryIO, channels: int = 3) -> Image.Image:
    """Reads and converts an image. Never warns: what Pillow warns of (size, damaged metadata) harms no pixel.

    Args:
        path_or_file: Where the image is, or an open binary file. A file that the caller opened stays open.
        channels: 3 for mode "RGB", 1 for mode "L".

    Returns:
        The decoded image, upright, in that mode.

    Raises:
        ValueError: If `channels` is another number.
        OSError: If it is missing, truncated, no image, or too large (Pillow's limit against decompression bombs);
            the message names the file. No other exception leaves here for a bad file.
    """
    if channels not in _MODES:
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    mode = _MODES[channels]
    try:
        with warnings.catch_warnings(), _open(path_or_file) as file:
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                image.load()
                orientation = _orientation(image)
                converted = _convert(image, mode)
    # On damaged files decoders raise SyntaxError, ValueError, struct.error and more; callers catch one type.
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the system's own, such as FileNotFoundError, name the file already
        is_path = isinstance(path_or_file, str | os.PathLike)
        name = str(path_or_file if is_path else getattr(path_or_file, "name", path_or_file))
        reason = "not an image that Pillow knows" if isinstance(error, UnidentifiedImageError) else str(error)
        raise OSError(f"cannot read image {name!r}: {reason or type(error).__name__}") from error
    return converted.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else converted


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Reads an image's size from its header, without decoding it.

    Args:
        path: Where the image is.

    Returns:
        Width and height in pixels, as stored: what EXIF turns upright may have them the other way round.

    Raises:
        OSError: If it is missing or its header is no image's. The pixels behind a sound header may still be damaged.
    """
    try:
        with warnings.catch_warnings(), _open(path) as file:
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                return image.size
    except Exception as error:  # as in `load_image`
        raise OSError(f"cannot read the header of image {str(path)!r}: {error}") from error


def _open(path_or_file: str | os.PathLike[str] | BinaryIO) -> AbstractContextManager[BinaryIO]:
    """Opens a path; leaves an open file to its owner.

    Pillow is never handed a path: it would map uncompressed images into memory, which garbles TIFFs that are stored
    sideways (Pillow 13) and kills the process with SIGBUS if the file shrinks meanwhile.
    """
    if isinstance(path_or_file, str | os.PathLike):
        return open(path_or_file, "rb")  # noqa: PTH123 - building a Path takes a tenth of a small image's time
    return nullcontext(path_or_file)


def _orientation(image: Image.Image) -> int | None:
    """Returns the EXIF orientation of a loaded image; None if there is none or the metadata is damaged.

    It is read after the pixels: a PNG may keep it behind them, and of a TIFF Pillow has applied and removed it by then.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None
    return orientation if isinstance(orientation, int) else None


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """Returns the image in this mode; the very same object if it is in that mode already, as most JPEGs are."""
    if image.mode[0] in "IF":  # "I", "F", and "I;16" in its byte orders
        image = _to_8_bits(image)
    elif image.has_transparency_data:
        image = _over_white(image)
    elif image.mode == "LAB":
        image = image.convert("RGB")  # Pillow has no way from here to "L"
    return image if image.mode == mode else image.convert(mode)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scales a gray image of more than 8 bits to 8; Pillow's own conversion of "I" and "F" clips at 255.

    Integers span 16 bits, floats 0 to 1, 0 to 255 or 16 bits, whichever is the first to hold every value. Values that
    exceed all of these, or are negative, say nothing of their range: then black is the least and white the greatest.
    """
    pixels = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = min(0.0, pixels.min()), pixels.max()
    nominal = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    white = next((top for top in nominal if low == 0.0 and high <= top), high)
    scaled = (pixels - low) * (255.0 / ((white - low) or 1.0))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    """Lays an image with transparency over white, as web shops show it, and returns it in mode "RGB"."""
    if image.mode == "La":  # premultiplied gray, which Pillow converts to nothing but this
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white
