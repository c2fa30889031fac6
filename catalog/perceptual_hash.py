"""Perceptual hashes: numbers of 64 bits that differ in few bits if two images look the same.

A hash has a bit for each of the 63 lowest frequencies of a small gray copy: whether it is above their median. Encoding,
resizing and brightness change few bits. A mirrored and a cropped image have hashes of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

SIDE = 32  # pixels of the gray copy
MARGIN = 0.04  # share of each side that the cropped copy lacks

Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]
Pairs = npt.NDArray[np.int64]

_FREQUENCIES = 8
_CHUNK_BITS = 16
_CHUNKS = 64 // _CHUNK_BITS
_BLOCK = 1 << 21  # pairs that are compared at a time: 16 bytes each


def perceptual_hashes(gray: Floats) -> tuple[int, int, int]:
    """Return the hashes of an image, of its mirror image, and of its center without a margin.

    Args:
        gray: float32 [32, 32].
    """
    zoom: Any = zoom_matrix(MARGIN)
    return _hash(gray), _hash(gray[:, ::-1]), _hash(zoom @ gray @ zoom.T)


@cache
def zoom_matrix(margin: float) -> Floats:
    """Return the matrix that stretches the center of 32 samples over all of them, float32 [32, 32].

    Args:
        margin: share of the samples that is cut off at each end.
    """
    places = np.clip((np.arange(SIDE) + 0.5) * (1 - 2 * margin) + SIDE * margin - 0.5, 0, SIDE - 1)
    lower = np.minimum(places.astype(np.int64), SIDE - 2)
    weights: Floats = np.zeros((SIDE, SIDE), np.float32)
    weights[np.arange(SIDE), lower] = 1 - (places - lower)
    weights[np.arange(SIDE), lower + 1] += places - lower
    return weights


def _hash(gray: Floats) -> int:
    cosines = _cosines()
    spectrum = (cosines @ gray @ cosines.T).reshape(-1)[1:]  # without the mean brightness
    bits = np.append(False, spectrum > np.median(spectrum))
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@cache
def _cosines() -> Floats:
    """Return the lowest frequencies of the discrete cosine transform (type II), float32 [8, 32]."""
    angles = np.outer(np.arange(_FREQUENCIES), 2 * np.arange(SIDE) + 1) * (np.pi / (2 * SIDE))
    cosines: Floats = np.cos(angles).astype(np.float32)
    return cosines


def near_hashes(queries: Hashes, hashes: Hashes, radius: int) -> Iterator[tuple[Pairs, Pairs]]:
    """Yield all pairs of a query and a hash that differ in at most `radius` bits, in blocks.

    This is multi-index hashing (Norouzi et al., 2012, https://doi.org/10.1109/CVPR.2012.6248043). Two hashes within the
    radius differ in at most `radius // 4` bits in one of their four chunks of 16 bits, so each chunk looks up the few
    values that are so near. No pair within the radius is missed, and none is yielded twice.

    Args:
        queries: uint64 [M].
        hashes: uint64 [N].
        radius: largest number of bits that differ.

    Yields:
        The positions of the queries and of the hashes, int64 each, of equal length.
    """
    for chunk in range(_CHUNKS):
        shift = np.uint64(chunk * _CHUNK_BITS)
        values = _chunk_of(hashes, shift)
        order = np.argsort(values, kind="stable")
        ends = np.cumsum(np.bincount(values, minlength=1 << _CHUNK_BITS))
        starts = ends - np.bincount(values, minlength=1 << _CHUNK_BITS)
        wanted = _chunk_of(queries, shift)
        for flips in _flips(radius // _CHUNKS):
            buckets = wanted ^ flips
            counts = ends[buckets] - starts[buckets]
            for rows in _blocks(counts):
                query = np.repeat(rows, counts[rows])
                first = np.repeat(starts[buckets[rows]] - (np.cumsum(counts[rows]) - counts[rows]), counts[rows])
                other = order[first + np.arange(len(query))]
                differing = queries[query] ^ hashes[other]
                near = count_bits(differing) <= radius
                query, other = query[near], other[near]
                # an earlier chunk has yielded the pair if it is near in that chunk too
                fresh = np.ones(len(query), dtype=bool)
                for earlier in range(chunk):
                    part = _chunk_of(differing[near], np.uint64(earlier * _CHUNK_BITS))
                    fresh &= count_bits(part.astype(np.uint64)) > radius // _CHUNKS
                if fresh.any():
                    yield query[fresh], other[fresh]


def count_bits(numbers: Hashes) -> npt.NDArray[np.uint8]:
    """Return how many bits of each number are set, uint8."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        counts: npt.NDArray[np.uint8] = np.bitwise_count(numbers)
        return counts
    octets = np.ascontiguousarray(numbers)[..., None].view(np.uint8)
    bits: npt.NDArray[np.uint8] = np.unpackbits(octets, axis=-1).sum(axis=-1, dtype=np.uint8)
    return bits


def _chunk_of(hashes: Hashes, shift: np.uint64) -> Pairs:
    return (hashes >> shift & np.uint64((1 << _CHUNK_BITS) - 1)).astype(np.int64)


@cache
def _flips(most: int) -> tuple[int, ...]:
    """Return the masks of 16 bits with at most `most` bits set."""
    bits = [1 << bit for bit in range(_CHUNK_BITS)]
    return tuple(sum(chosen) for count in range(most + 1) for chosen in combinations(bits, count))


def _blocks(counts: npt.NDArray[np.int64]) -> Iterator[Pairs]:
    """Yield the positions with a count above 0 in blocks whose counts sum to about `_BLOCK` at most."""
    rows = np.flatnonzero(counts)
    total: Any = np.cumsum(counts[rows])
    start = 0
    while start < len(rows):
        before = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, before + _BLOCK, side="right")))
        yield rows[start:stop]
        start = stop
