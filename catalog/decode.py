"""Decoding of an image file to uint8 [H, W, C], in color or gray.

The pixels are what a screen shows: the image is upright, and transparent parts are white. 16-bit gray is scaled to 8
bits, not clipped. Only the first frame is read.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any, BinaryIO, cast

import numpy as np
import simplejpeg
from PIL import ExifTags, Image

from catalog.embedded_images import read_embedded
from catalog.image_formats import decoded_bytes, max_decoded_bytes, open_image
from runtime.regular_file import irregular_kind

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

_STRIP = 1 << 20  # pixels that are converted at a time, so that no step holds a third copy of an image
_LONGEST_JPEG = 1 << 29  # bytes of a file that is read at once
DIVISORS = (8, 4, 2, 1)  # they divide a JPEG's sides; other fractions have no fast transform
_MODES = {1: "L", 3: "RGB"}

# The operation that undoes each EXIF orientation. Pillow's `exif_transpose` also rewrites the metadata, so it fails on
# damaged metadata even if the pixels are sound.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_pixels(path: str | os.PathLike[str], channels: int = 3, shorter_side: int = 0) -> Pixels:
    """Decode an image file to pixels, as `load_image` decodes it.

    Args:
        path: the file.
        channels: 3 for color, 1 for gray.
        shorter_side: pixels that are enough for the shorter side. A larger JPEG is decoded to a fraction of its size
            that has at least as many, which is faster. 0 decodes in full.

    Returns:
        uint8 [H, W, C].

    Raises:
        OSError: if the file is missing or no image; the message names the file.
    """
    if channels == 3:
        with suppress(ValueError):  # damaged, or an impossible name: Pillow decodes it or raises a readable error
            content = jpeg_content(path)
            if is_plain_jpeg(content):
                return decode_jpeg(content, shorter_side=shorter_side)
    return as_pixels(load_image(path, channels, shorter_side))


def load_image(
    path_or_file: str | os.PathLike[str] | BinaryIO, channels: int = 3, shorter_side: int = 0
) -> Image.Image:
    """Decode an image file to a Pillow image. Pillow's warnings are suppressed, since they never concern the pixels.

    Args:
        path_or_file: the file's path, or an open binary file, which stays open.
        channels: 3 for mode "RGB", 1 for mode "L".
        shorter_side: pixels that are enough for the shorter side of a JPEG, as in `load_pixels`.

    Returns:
        The image, upright, in that mode.

    Raises:
        ValueError: if `channels` is another number.
        OSError: if the file is missing, truncated, no image of a format that is read, or takes more memory than
            `max_decoded_bytes` (`catalog.image_formats` has both); the message names the file. A bad file raises no
            other exception.
    """
    if channels not in _MODES:
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    mode = _MODES[channels]

    try:
        with warnings.catch_warnings(), _open(path_or_file) as file:
            warnings.simplefilter("ignore")
            return _decoded(file, mode, shorter_side)
    # Decoders raise SyntaxError, ValueError, struct.error and more on damaged files; callers catch one type.
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the system's errors, such as FileNotFoundError, already name the file
        is_path = isinstance(path_or_file, str | os.PathLike)
        name = str(path_or_file if is_path else getattr(path_or_file, "name", path_or_file))
        raise OSError(f"cannot read image {name!r}: {str(error) or type(error).__name__}") from error


def picture_pixels(picture: Image.Image, channels: int = 3) -> Pixels:
    """Return the pixels of any Pillow image, converted as `load_image` converts a file's.

    Args:
        picture: the image, in any mode.
        channels: 3 for color, 1 for gray.

    Returns:
        uint8 [H, W, C].

    Raises:
        OSError: if the image comes from a file that is damaged or gone.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return as_pixels(_upright(picture, _MODES[channels]))
    except Exception as error:  # any type, as in `load_image`
        raise OSError(f"cannot read the image: {str(error) or type(error).__name__}") from error


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read an image's size from its header, without decoding its pixels.

    Args:
        path: the file.

    Returns:
        Width and height in pixels, as stored; an EXIF orientation may swap them.

    Raises:
        OSError: if the file is missing, has no header of a format that is read, or is too large to decode. The pixels
            behind a sound header may be damaged.
    """
    try:
        with warnings.catch_warnings(), _open(path) as file:
            warnings.simplefilter("ignore")
            with open_image(file) as image:
                return image.size
    except Exception as error:  # any type, as in `load_image`
        raise OSError(f"cannot read the header of image {str(path)!r}: {error}") from error


def as_pixels(image: Image.Image) -> Pixels:
    """Return a copy of a Pillow image of mode "RGB" or "L" as uint8 [H, W, C]."""
    if image.width * image.height <= _STRIP:
        pixels = np.array(image)
        return pixels[:, :, None] if pixels.ndim == 2 else pixels
    pixels = np.empty((image.height, image.width, len(image.getbands())), np.uint8)
    for rows, strip in _strips(image):
        pixels[rows] = np.asarray(strip).reshape(-1, *pixels.shape[1:])
    return pixels


def as_image(pixels: Pixels) -> Image.Image:
    """Return a copy of pixels [H, W, C] as a Pillow image of mode "RGB" or "L"."""
    if pixels.shape[2] == 1:
        return Image.fromarray(pixels[:, :, 0]).copy()  # without the copy, Pillow shares the array's memory
    return Image.fromarray(pixels)


def decode_jpeg(content: bytes, by: int = 1, shorter_side: int = 0) -> Pixels:
    """Decode a plain JPEG in full, or to a fraction of its size.

    Args:
        content: its bytes.
        by: one of `DIVISORS`, which divides both sides; they are rounded up.
        shorter_side: pixels that are enough for the shorter side, which choose the divisor; 0 for none.

    Raises:
        ValueError: if it is damaged.
    """
    if by == 1 and not shorter_side:
        return cast(Pixels, simplejpeg.decode_jpeg(content))
    height, width = jpeg_size(content)
    if shorter_side:
        by = next((n for n in DIVISORS if -(-min(height, width) // n) >= shorter_side), 1)
    return cast(Pixels, simplejpeg.decode_jpeg(content, min_height=-(-height // by), min_width=-(-width // by)))


def jpeg_size(content: bytes) -> tuple[int, int]:
    """Return the height and width of a JPEG; raise a ValueError if its header is damaged."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(content)
    return int(height), int(width)


def jpeg_content(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file, or of an image inside one; nothing if it is not a JPEG of usual length."""
    if (embedded := read_embedded(path)) is not None:
        return embedded if embedded.startswith(b"\xff\xd8\xff") else b""
    if irregular_kind(path):
        return b""
    with open(path, "rb") as file:  # noqa: PTH123 - building a Path takes a tenth of a small image's time
        is_jpeg = file.peek(3).startswith(b"\xff\xd8\xff") and os.fstat(file.fileno()).st_size <= _LONGEST_JPEG
        return file.read() if is_jpeg else b""


def is_plain_jpeg(content: bytes) -> bool:
    """Return whether this is a color JPEG within the size limits and without an orientation.

    Raises:
        ValueError: if a JPEG's header is damaged.
    """
    if not content or b"Exif\0\0" in content or b"tiff:Orientation" in content:
        return False
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(content)
    return colorspace == "YCbCr" and decoded_bytes(int(width), int(height), "RGB", "JPEG") <= max_decoded_bytes()


def _open(path_or_file: str | os.PathLike[str] | BinaryIO) -> AbstractContextManager[BinaryIO]:
    """Open a path that names a regular file; leave an open file to the caller.

    Pillow never gets a path, because it would map uncompressed images into memory. That garbles TIFFs that are stored
    sideways (Pillow 13), and kills the process with SIGBUS if the file shrinks meanwhile.
    """
    if isinstance(path_or_file, str | os.PathLike):
        if (embedded := read_embedded(path_or_file)) is not None:
            return io.BytesIO(embedded)
        if kind := irregular_kind(path_or_file):
            raise OSError(f"it is {kind}, not a regular file: replace it by an image file")
        return open(path_or_file, "rb")  # noqa: PTH123 - building a Path takes a tenth of a small image's time
    return nullcontext(path_or_file)


def _decoded(file: BinaryIO, mode: str, shorter_side: int) -> Image.Image:
    """Return a file's image in a mode, turned as its orientation says."""
    with open_image(file) as image:
        if shorter_side:
            image.draft(None, (shorter_side, shorter_side))  # has an effect on JPEG alone
        return _upright(image, mode)


def _upright(image: Image.Image, mode: str) -> Image.Image:
    """Return an image in a mode, turned as its orientation says."""
    image.load()
    orientation = _orientation(image)
    converted = _convert(image, mode)
    return converted.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else converted


def _orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation of a loaded image; None if there is none or the metadata are damaged.

    The pixels must be loaded first: a PNG may store its orientation behind them, and Pillow applies a TIFF's
    orientation and removes it while loading.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None
    return orientation if isinstance(orientation, int) else None


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """Return the image in a mode, unchanged if it has that mode already, as most JPEGs do."""
    change: Callable[[Image.Image], Image.Image] | None = None
    if image.mode[0] in "IF":  # "I", "F", and "I;16" in its byte orders
        change = partial(_to_8_bits, extent=_extent(image))
    elif image.has_transparency_data:
        change = _over_white
    elif image.mode == "LAB":
        change = partial(Image.Image.convert, mode="RGB")  # Pillow cannot convert LAB to "L"
    elif image.mode == mode:
        return image

    # a small image at once, a large one strip by strip
    if image.width * image.height <= _STRIP:
        changed = change(image) if change else image
        return changed if changed.mode == mode else changed.convert(mode)
    converted = Image.new(mode, image.size)
    for rows, strip in _strips(image):
        converted.paste((change(strip) if change else strip).convert(mode), (0, rows.start))
    return converted


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yield the rows and the content of an image, strip by strip."""
    height = max(1, _STRIP // image.width)
    for top in range(0, image.height, height):
        rows = slice(top, min(top + height, image.height))
        yield rows, image.crop((0, rows.start, image.width, rows.stop))


def _extent(image: Image.Image) -> tuple[float, float]:
    """Return the values that become black and white in a gray image of more than 8 bits.

    Integers are scaled from 16 bits. Floats are scaled from the first of these ranges that holds every value: 0 to 1, 0
    to 255, 16 bits. If none does, the smallest value becomes black and the largest white.
    """
    ranges = [(values.min(), values.max()) for values in (_values(strip) for _, strip in _strips(image))]
    low, high = min(0.0, *(lowest for lowest, _ in ranges)), max(highest for _, highest in ranges)
    nominal = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    return low, next((top for top in nominal if low == 0.0 and high <= top), high)


def _to_8_bits(image: Image.Image, extent: tuple[float, float]) -> Image.Image:
    """Scale a gray image of more than 8 bits to 8; Pillow's conversion of "I" and "F" clips at 255."""
    low, white = extent
    return Image.fromarray(np.rint((_values(image) - low) * (255.0 / ((white - low) or 1.0))).astype(np.uint8))


def _values(image: Image.Image) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the values of a gray image, [H, W]; those that are not finite become 0."""
    return np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)


def _over_white(image: Image.Image) -> Image.Image:
    """Return an image with transparency laid over white, as web shops show it, in mode "RGB"."""
    if image.mode == "La":  # premultiplied gray, which Pillow converts only to "LA"
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white
