"""The image formats that are read: an allow-list of Pillow's, for pixels and for sizes.

An image file may come from anybody, whatever its name ends in. So a format is on the list only if its decoder
- works inside this process, and starts no other program;
- reads this file alone, and follows no reference to another;
- takes as much memory as the size in the header says.
Photographs are kept in these formats. Pillow opens some thirty others, which are refused by name. For example:
- EPS runs Ghostscript. IPTC wraps a file of any format, EPS included. The operating system draws WMF and EMF.
- BUFR, GRIB and HDF5 call a handler that another package installs.
- FITS unpacks gzip without a limit. ICNS and ICO hold images of other sizes than their headers say.
- FPX and MIC are containers of files. A SPIDER file may be one of a series.
- IM, XPM, XV thumbnails, PCX, SGI, QOI, DDS and the rest are rare, and each is one more decoder to attack.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError
from PIL.features import check

# In the order in which they are tried: TGA is last, because its files have no signature.
FORMATS = (
    "JPEG",  # cameras and web shops; with MPO, the JPEGs of several pictures that telephones write
    "PNG",  # web shops and cut-outs
    "WEBP",  # web shops
    "GIF",  # old web shops
    "TIFF",  # scanners and print, with 8, 16 or 32 bits
    "BMP",  # scanners; also DIB, which is BMP without its first header
    "DIB",
    "AVIF",  # web shops; in Pillow from 11.3 on
    "HEIF",  # telephones' .heic; if the package pillow-heif is installed
    "JPEG2000",  # archives
    "PPM",  # simple programs; with PGM, PBM and PFM
    "PSD",  # photographers; its flattened picture is read
    "TGA",  # renderers
)
_CODECS = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}  # parts that a build of Pillow may lack
_OTHER_NAMES = {"MPO": "JPEG"}  # formats that Pillow registers extensions for, and opens as another

# The bytes that an image may take when it is decoded: 134 million pixels of RGB, 89 million of 16 bits, 67 million of
# RGBA or float. Pillow's own limit is 179 million pixels of any mode, which may take several times as much.
MAX_DECODED_BYTES = 1 << 29
_COLOR_BYTES = 4  # bytes that Pillow keeps for a pixel in color
_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}  # other modes: as in color

_START = 64  # bytes that show a file's format
_SIGNATURES = {
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
}
_BRANDS = {b"avi": "AVIF", b"hei": "HEIF", b"hev": "HEIF", b"crx": "CR3"}  # in the first box of ISO media files
_VAGUE = ("GBR", "PCX", "XBM")  # plugins that take files of other formats for their own
_CONVERT = "save it as JPEG or PNG"
_REMEDIES = {
    "AVIF": f"install Pillow 11.3 or newer (pip install -U pillow), or {_CONVERT}",
    "HEIF": f"install pillow-heif (pip install pillow-heif), or {_CONVERT}",
}


@cache
def readable_formats() -> tuple[str, ...]:
    """Return the formats of the list that can be opened here, in order; pillow-heif is loaded if it is installed."""
    Image.init()
    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN and (name not in _CODECS or check(_CODECS[name])))


def image_extensions() -> frozenset[str]:
    """Return the extensions, in lower case with their dots, of the formats that are read."""
    formats = readable_formats()
    registered = Image.registered_extensions().items()
    return frozenset(extension for extension, name in registered if _OTHER_NAMES.get(name, name) in formats)


def open_image(file: BinaryIO) -> Image.Image:
    """Open an image of a format that is read, without decoding its pixels.

    Args:
        file: an open file that can seek.

    Returns:
        The image, whose pixels are decoded from the file when they are first used.

    Raises:
        OSError: if the file is not such an image, or decodes to more than `MAX_DECODED_BYTES`; the message says what it
            is and what to do, and does not name it.
        Exception: any type, if the header is damaged.
    """
    try:
        image = Image.open(file, formats=readable_formats())
    except UnidentifiedImageError:
        file.seek(0)
        raise OSError(_refusal(file.read(_START))) from None
    except Image.DecompressionBombError as error:
        reason = str(error).rstrip(".")
        raise OSError(f"it takes more than the {_mebibytes(MAX_DECODED_BYTES)} allowed ({reason}): shrink it") from None
    if (needed := decoded_bytes(*image.size, image.mode)) > MAX_DECODED_BYTES:
        raise OSError(
            f"its {image.width} x {image.height} pixels of mode {image.mode} take {_mebibytes(needed)} decoded, more "
            f"than the {_mebibytes(MAX_DECODED_BYTES)} allowed: shrink it"
        )
    return image


def decoded_bytes(width: int, height: int, mode: str) -> int:
    """Return the bytes that an image takes when it is decoded, with its copy in color if it has another mode.

    Args:
        width: pixels in a row.
        height: number of rows.
        mode: Pillow's mode, such as "RGB", "L" or "I;16".
    """
    copy = 0 if mode == "RGB" else _COLOR_BYTES
    return width * height * (_PIXEL_BYTES.get(mode, _COLOR_BYTES) + copy)


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def _refusal(start: bytes) -> str:
    """Return why a file is not read, and what to do.

    Args:
        start: its first bytes.
    """
    name = _format_of(start)
    if name is None:
        return f"not an image that Pillow knows: replace it, or {_CONVERT}"
    if name in readable_formats():
        return f"a damaged or unusual {name}: replace it, or {_CONVERT}"
    shown = "HEIC" if name == "HEIF" else name
    return f"it is {shown}, a format that is not read: {_REMEDIES.get(name, _CONVERT)}"


def shows_format(content: bytes) -> bool:
    """Return whether bytes begin as an image of some format does, also of one that is not read."""
    readable_formats()
    return _format_of(content[:_START]) is not None


def _format_of(start: bytes) -> str | None:
    """Return the format that a file's first bytes show; None if they show none. No decoder sees the file."""
    if start[4:8] == b"ftyp":
        return next((name for brand, name in _BRANDS.items() if brand in start[8:]), None)
    if name := next((name for signature, name in _SIGNATURES.items() if start.lstrip().startswith(signature)), None):
        return name
    plugins = ((name, accept) for name, (_, accept) in Image.OPEN.items() if accept and name not in _VAGUE)
    return next((name for name, accept in plugins if _accepts(accept, start)), None)


def _accepts(accept: Callable[[bytes], bool | str], start: bytes) -> bool:
    """Return whether a plugin of Pillow takes a file with these first bytes for its own."""
    try:
        return bool(accept(start[:16]))
    except Exception:  # some plugins expect 16 bytes
        return False
