"""What an audit measures of many image files, in parallel processes, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from catalog.image_cache import in_processes
from catalog.measure_image import COLOR_SIDE, Measurement, full_pixel_hash, measure_image
from catalog.near_duplicates import Looks
from catalog.perceptual_hash import SIDE

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """Facts about image files, in arrays over the files; an unreadable file has zeros.

    Attributes:
        errors: why a file cannot be read, by its position.
        size: width and height in pixels, int64 [files, 2].
        same: position of the first file with the same pixels, which may be the file itself, int64 [files].
        looks: what near duplicates are found by.
        bright: brightness that 95 of 100 parts do not exceed, 0-255, float [files].
        sharpness: as `Measurement` has it, float [files].
    """

    errors: dict[int, str]
    size: Numbers
    same: Numbers
    looks: Looks
    bright: npt.NDArray[np.float64]
    sharpness: npt.NDArray[np.float64]

    @cached_property
    def readable(self) -> npt.NDArray[np.bool_]:
        """Which files can be read, bool [files]."""
        mask = np.ones(len(self.size), dtype=bool)
        mask[list(self.errors)] = False
        return mask


def collect_image_facts(files: Sequence[str], workers: int, show: bool) -> ImageFacts:
    """Decode each file once and return what is known of it.

    About 1.3 kB are kept for a file, and no pixels.

    Args:
        files: paths.
        workers: processes that decode; 0 decodes in this process.
        show: whether to show a progress bar.
    """
    count = len(files)
    errors: dict[int, str] = {}
    size = np.zeros((count, 2), np.int64)
    hashes = np.zeros((count, 3), np.uint64)
    gray = np.zeros((count, SIDE, SIDE), np.uint8)
    color = np.zeros((count, COLOR_SIDE, COLOR_SIDE, 3), np.uint8)
    numbers = np.zeros((count, 4))  # chroma, spread, bright, sharpness
    keys: list[tuple[bytes, bytes, bool]] = []
    measured = in_processes(measure_image, files, count, workers, "Looking at images", show)
    for index, one in enumerate(measured):
        if one.error:
            errors[index] = one.error
        size[index], hashes[index] = one.size, one.hashes
        gray[index].reshape(-1)[:] = np.frombuffer(one.gray, np.uint8)
        color[index].reshape(-1)[:] = np.frombuffer(one.color, np.uint8)
        numbers[index] = one.chroma, one.spread, one.bright, one.sharpness
        keys.append(_key(index, one))
    same = _same_pixels(files, size, keys, workers, show)
    looks = Looks(hashes, gray, color, numbers[:, 0], numbers[:, 1])
    return ImageFacts(errors, size, same, looks, numbers[:, 2], numbers[:, 3])


def _key(index: int, one: Measurement) -> tuple[bytes, bytes, bool]:
    """Return a file's hashes; an unreadable file equals no other."""
    own = str(index).encode() if one.error else b""
    return own or one.content, own or one.pixels, one.reduced


def _same_pixels(
    files: Sequence[str], size: Numbers, keys: Sequence[tuple[bytes, bytes, bool]], workers: int, show: bool
) -> Numbers:
    """Return the position of the first file with the same pixels, int64 [files].

    Files whose reduced copies are equal are decoded again, in full, unless their bytes are equal too.
    """
    contents = [content for content, _, _ in keys]
    pixels = [(pixels, *area) for (_, pixels, _), area in zip(keys, np.sort(size, axis=1).tolist(), strict=True)]
    kinds: dict[tuple[bytes, int, int], dict[bytes, int]] = {}
    for index, key in enumerate(pixels):
        kinds.setdefault(key, {}).setdefault(contents[index], index)
    doubtful = [index for one in kinds.values() if len(one) > 1 for index in one.values() if keys[index][2]]
    full = in_processes(
        full_pixel_hash, [files[index] for index in doubtful], len(doubtful), workers, "Comparing", show
    )
    decided = {contents[index]: found or contents[index] for index, found in zip(doubtful, full, strict=True)}
    first: dict[tuple[object, ...], int] = {}
    return np.array(
        [first.setdefault((key, decided.get(contents[index])), index) for index, key in enumerate(pixels)], np.int64
    )
