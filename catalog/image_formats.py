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

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError
from PIL.features import check
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

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

# The bytes that decoding an image may take at its peak: 134 million pixels of a color JPEG, 167 million of a PNG, 55
# million of a WebP. Pillow allows 179 million pixels, and a WebP of that size takes 4 GiB.
MAX_DECODED_BYTES = 5 << 28
RAISED_BY = "SIMCLR_MAX_IMAGE_MIB"  # the environment variable, which loader processes inherit

# Bytes for each pixel: Pillow keeps 4 for a pixel in color, and one copy at a time is made of them.
_COLOR_BYTES = 4
_PIXEL_BYTES = 2 * _COLOR_BYTES
_CODEC_BYTES = {"WEBP": 24, "AVIF": 20, "HEIF": 20, "JPEG2000": 28}  # measured: these decoders hold copies of their own
_READ_WHOLE = ("WEBP", "AVIF", "HEIF", "TIFF")  # formats whose decoders hold the file too

_RAW = "a camera's raw file"
_START = 64  # bytes that show a file's format
_SIGNATURES = {
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    **dict.fromkeys((b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM"), _RAW),
}
_BRANDS = {b"avi": "AVIF", b"hei": "HEIF", b"hev": "HEIF", b"crx": _RAW}  # in the first box of ISO media files
_VAGUE = ("GBR", "PCX", "XBM")  # plugins that take files of other formats for their own
_CONVERT = "save it as JPEG or PNG"
_REMEDIES = {
    "AVIF": f"install Pillow 11.3 or newer (pip install -U pillow), or {_CONVERT}",
    "HEIF": f"install pillow-heif (pip install pillow-heif), or {_CONVERT}",
    _RAW: "develop it, and save it as JPEG or PNG",
}
_SHOWN = {"HEIF": "HEIC"}  # the name that users know
_RAW_ENDINGS = (".3fr", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw")
_NEW_SUBFILE_TYPE, _SUB_IFDS, _DNG_VERSION = 254, 330, 50706  # tags of TIFF
# What to do about files of a folder that are left out, by the ending of their names.
_HINTS = {
    (".heic", ".heif", ".hif"): ".heic is read after pip install pillow-heif",
    (".avif",): ".avif is read after pip install -U pillow",
    _RAW_ENDINGS: "raw files must be developed to JPEG or PNG",
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


def hint_for(endings: Collection[str]) -> str:
    """Return what makes files that are not read readable, by the endings of their names; "" if nothing does."""
    return "; ".join(hint for known, hint in _HINTS.items() if any(ending in known for ending in endings))


def open_image(file: BinaryIO) -> Image.Image:
    """Open an image of a format that is read, without decoding its pixels.

    Args:
        file: an open file that can seek.

    Returns:
        The image, whose pixels are decoded from the file when they are first used.

    Raises:
        OSError: if the file is not such an image, or takes more than `max_decoded_bytes`; the message says what it is
            and what to do, and does not name it.
        Exception: any type, if the header is damaged.
    """
    limit = max_decoded_bytes()
    if limit > MAX_DECODED_BYTES:
        Image.MAX_IMAGE_PIXELS = None  # Pillow's limit is lower
    if (size := file.seek(0, os.SEEK_END)) > limit:  # some decoders read the whole file at once
        raise _too_large(f"its file has {_mebibytes(size)}", limit, size)
    file.seek(0)
    try:
        image = Image.open(file, formats=readable_formats())
    except UnidentifiedImageError:
        file.seek(0)
        raise OSError(_refusal(file.read(_START))) from None
    except Image.DecompressionBombError as error:
        raise _too_large(str(error).rstrip("."), limit, 2 * limit) from None
    if image.format == "TIFF" and _is_raw(image, file):
        raise OSError(f"it is {_RAW}, of which only a preview could be read: {_REMEDIES[_RAW]}")
    stored = sum(image.tag_v2.get(BITSPERSAMPLE, (8,))) // 8 if isinstance(image, TiffImageFile) else 0
    needed = decoded_bytes(*image.size, image.mode, image.format or "", stored)
    if (needed := needed + (size if image.format in _READ_WHOLE else 0)) > limit:
        pixels = f"{image.width} x {image.height} pixels of mode {image.mode}"
        raise _too_large(f"decoding its {pixels} takes {_mebibytes(needed)}", limit, needed)
    return image


def decoded_bytes(width: int, height: int, mode: str, image_format: str, stored: int = 0) -> int:
    """Return the bytes that decoding an image takes at its peak, with the copies in other modes.

    Args:
        width: pixels in a row.
        height: number of rows.
        mode: Pillow's mode, such as "RGB", "L" or "I;16".
        image_format: Pillow's name of the format, such as "PNG".
        stored: bytes of a pixel in the file, where the decoder may hold them all at once.
    """
    each = _CODEC_BYTES.get(image_format, max(_PIXEL_BYTES, _COLOR_BYTES + stored))
    if image_format in ("JPEG", "MPO"):  # a progressive one holds coefficients of 16 bits
        each = max(_PIXEL_BYTES, _COLOR_BYTES + 2 * len(Image.getmodebandnames(mode)))
    return width * height * each


def max_decoded_bytes() -> int:
    """Return the bytes that decoding an image may take, in which an environment variable may raise the default.

    Raises:
        OSError: if the variable is not a number.
    """
    text = os.environ.get(RAISED_BY, "")
    if not text:
        return MAX_DECODED_BYTES
    if not (text.isdecimal() and 1 <= len(text) <= 7):
        raise OSError(f"{RAISED_BY}={text[:20]} is not a whole number of MiB below 10,000,000: correct it, or unset it")
    return int(text) << 20


def _too_large(reason: str, limit: int, needed: int) -> OSError:
    """Return the error for an image above the limit; `needed` is the limit in bytes that it would take."""
    value = f"={-(-needed >> 20)}" if needed < 2**40 else ""
    return OSError(
        f"{reason}, more than the {_mebibytes(limit)} allowed: shrink it, or set the environment variable "
        f"{RAISED_BY}{value}"
    )


def _is_raw(image: Image.Image, file: BinaryIO) -> bool:
    """Return whether a TIFF is a camera's raw file (DNG, NEF, ARW, CR2), whose first picture is a small preview."""
    tags = getattr(image, "tag_v2", {})
    place = file.tell()
    file.seek(8)
    is_canon = file.read(2) == b"CR"
    file.seek(place)
    return is_canon or _DNG_VERSION in tags or (tags.get(_NEW_SUBFILE_TYPE) == 1 and _SUB_IFDS in tags)


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
    shown = _SHOWN.get(name, name)
    if name in readable_formats():
        return f"a damaged or unusual {shown}: replace it, or {_CONVERT}"
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
