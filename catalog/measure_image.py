"""What an audit measures of one image file, decoded once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from catalog.decode import Pixels, as_image, image_size, load_pixels
from catalog.embedded_images import read_embedded
from catalog.perceptual_hash import SIDE, perceptual_hashes

ENOUGH = 256  # pixels of the shorter side that are measured
COLOR_SIDE = 8  # pixels of the copy in color

_HASH_BYTES = 16
_STRONGEST = 0.995  # quantile of the edges that sharpness compares
_COARSE = 4  # pixels of the fine image in one of the coarse image, on each side
_LEAST_CONTRAST = 8.0  # levels of 255 from which sharpness is defined
_SMALLEST = 64  # pixels of the shorter side from which sharpness is defined

Floats = npt.NDArray[np.float32]


class Measurement(NamedTuple):
    """What is known of an image file. An unreadable one has only an error.

    Attributes:
        error: why it cannot be read; "" if it can.
        size: width and height in pixels, as stored.
        content: hash of the file's bytes.
        pixels: hash of the decoded pixels, which are a reduced copy if `reduced`.
        reduced: whether a JPEG was decoded to a fraction of its size.
        hashes: perceptual hashes: as it is, mirrored, cropped.
        gray: small gray copy, bytes of uint8 [32, 32].
        color: smaller copy in color, bytes of uint8 [8, 8, 3].
        chroma: difference between the largest and the smallest channel that 99 of 100 parts do not exceed, 0-255.
        bright: brightness that 95 of 100 parts do not exceed, 0-255.
        spread: standard deviation of the brightness.
        sharpness: strength of its strongest fine edges, relative to its contrast: about 0.3 to 1 in photographs and
            below 0.2 if blurred; NaN if it is too small or has no contrast.
    """

    error: str
    size: tuple[int, int] = (0, 0)
    content: bytes = bytes(_HASH_BYTES)
    pixels: bytes = bytes(_HASH_BYTES)
    reduced: bool = False
    hashes: tuple[int, int, int] = (0, 0, 0)
    gray: bytes = bytes(SIDE * SIDE)
    color: bytes = bytes(COLOR_SIDE * COLOR_SIDE * 3)
    chroma: float = 0.0
    bright: float = 0.0
    spread: float = 0.0
    sharpness: float = float("nan")


def measure_image(path: str) -> Measurement:
    """Return what is known of an image file. A bad file raises nothing.

    Args:
        path: the file.
    """
    try:
        pixels = load_pixels(path, shorter_side=ENOUGH)
        size = image_size(path)
        embedded = read_embedded(path)
        content = hashlib.blake2b(
            Path(path).read_bytes() if embedded is None else embedded, digest_size=_HASH_BYTES
        ).digest()
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL byte names no file
        return Measurement(_reason(error, path))
    image = as_image(pixels)
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    parts = np.asarray(small).astype(np.int16)
    gray = np.asarray(small.convert("L"))
    chroma = parts.max(axis=2) - parts.min(axis=2)
    cells = parts.reshape(COLOR_SIDE, SIDE // COLOR_SIDE, COLOR_SIDE, SIDE // COLOR_SIDE, 3)
    return Measurement(
        error="",
        size=size,
        content=content,
        pixels=_pixel_hash(pixels),
        reduced=sorted(pixels.shape[:2]) != sorted(size),
        hashes=perceptual_hashes(gray.astype(np.float32)),
        gray=gray.tobytes(),
        color=cells.mean(axis=(1, 3)).astype(np.uint8).tobytes(),
        chroma=float(np.quantile(chroma, 0.99)),
        bright=float(np.quantile(gray, 0.95)),
        spread=float(gray.std()),
        sharpness=_sharpness(image),
    )


def full_pixel_hash(path: str) -> bytes:
    """Return the hash of an image's pixels at its full size; equal only for equal pixels. Unreadable: b""."""
    try:
        return _pixel_hash(load_pixels(path))
    except OSError:
        return b""


def _pixel_hash(pixels: Pixels) -> bytes:
    shape = np.array(pixels.shape, dtype="<i8").tobytes()
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, key=shape, digest_size=_HASH_BYTES).digest()


def _reason(error: Exception, path: str) -> str:
    """Return why a file cannot be read, without its path, which the report shows beside it."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    _, named, reason = str(error).partition(f"image {path!r}: ")
    return reason if named else str(error)


def _sharpness(image: Image.Image) -> float:
    """Return the strength of the strongest edges at full scale, divided by the contrast at a quarter of it.

    Blur weakens fine edges and leaves coarse ones, and the range of brightness. Noise counts as fine edges, so a noisy
    blurred image passes.
    """
    side = min(image.size)
    if side < _SMALLEST:
        return float("nan")
    image = image.convert("L")
    if side > ENOUGH:
        width, height = image.size
        image = image.resize((width * ENOUGH // side, height * ENOUGH // side), Image.Resampling.BOX, reducing_gap=2.0)
    coarse = image.reduce(_COARSE)
    low, high = np.quantile(np.asarray(coarse), (0.02, 0.98))
    contrast = max(_strongest_edge(coarse), float(high - low))
    return _strongest_edge(image) / contrast if contrast >= _LEAST_CONTRAST else float("nan")


def _strongest_edge(image: Image.Image) -> float:
    """Return a high quantile of the discrete Laplacian's size."""
    gray: Any = np.asarray(image).astype(np.int16)
    edges = np.abs(4 * gray[1:-1, 1:-1] - gray[:-2, 1:-1] - gray[2:, 1:-1] - gray[1:-1, :-2] - gray[1:-1, 2:])
    counts = np.cumsum(np.bincount(edges.reshape(-1)))
    return float(np.searchsorted(counts, _STRONGEST * counts[-1]))
