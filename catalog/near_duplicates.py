"""Pairs of images that show the same photograph: encoded anew, resized, brightened, slightly cropped, or mirrored.

Perceptual hashes find the candidates, and small copies decide. Photographs of different products before one background
often have near hashes; their small copies differ in detail or in color.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.measure_image import COLOR_SIDE
from catalog.perceptual_hash import MARGIN, SIDE, Hashes, near_hashes, zoom_matrix

_PLAIN, _MIRRORED, _CROPPED = range(3)  # the hashes of an image
RADIUS = 11  # bits of a hash in which candidates may differ; up to 11 take equally long

SIMILARITY = 0.82  # correlation of details from which two images are one photograph; docs/audit.md has the evidence
_COLOR = 0.75  # correlation of the small copies in color, unless an image has none
_HUE = 0.65  # similarity of their hues
_COLORLESS = 6.0  # chroma up to which an image has no color
_GRAYER = 10.0  # levels of brightness that an image and its copy without color differ in at most, in the mean
_UNIFORM = 4.0  # spread below which an image has no details to compare
# the crops that are tried, as shares of each side; a cropped hash says which of two images is the larger one
_MARGINS = {_PLAIN: (MARGIN / 2,), _MIRRORED: (MARGIN / 2,), _CROPPED: (MARGIN / 2, MARGIN, 1.5 * MARGIN)}
_PARTNERS = 100  # from which an image has enough; further pairs of two such images are not examined
_BLOCK = 1 << 13  # pairs that are examined at a time
_CACHED = 256  # pairs whose copies fit into the processor's cache
_NOISE = 0.25 * SIDE * SIDE  # half a level of 255 in each pixel, so that two flat images do not correlate

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Looks:
    """How images look, in arrays over the images.

    Attributes:
        hashes: perceptual hashes: as they are, mirrored, cropped, uint64 [images, 3].
        gray: small gray copies, uint8 [images, 32, 32].
        color: smaller copies in color, uint8 [images, 8, 8, 3].
        chroma: how much color they have, float [images].
        spread: standard deviation of the brightness, float [images].
    """

    hashes: Hashes
    gray: npt.NDArray[np.uint8]
    color: npt.NDArray[np.uint8]
    chroma: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]

    def take(self, images: Numbers) -> Looks:
        """Return the looks of some images, in their order."""
        return Looks(*(getattr(self, one.name)[images] for one in fields(self)))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of images, each once.

    Attributes:
        first: position of an image, int64 [pairs].
        second: position of another, int64 [pairs].
        score: how similar they are, at most 1, float [pairs].
        mirrored: whether one is a mirror image, bool [pairs].
    """

    first: Numbers
    second: Numbers
    score: npt.NDArray[np.float64]
    mirrored: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.first)

    def without(self, others: Pairs) -> Pairs:
        """Return the pairs that are not among others, in whatever order their two images are."""
        known = {tuple(sorted(ends)) for ends in zip(others.first.tolist(), others.second.tolist(), strict=True)}
        ends = zip(self.first.tolist(), self.second.tolist(), strict=True)
        kept = np.array([tuple(sorted(both)) not in known for both in ends], dtype=bool)
        return Pairs(*(getattr(self, one.name)[kept] for one in fields(self)))


def near_duplicates(looks: Looks, similarity: float = SIMILARITY) -> Pairs:
    """Return the pairs of images that show the same photograph.

    If an image has more than 100 partners, pairs with others that have as many may be missing.

    Args:
        looks: how the images look; those without any detail have no partner.
        similarity: correlation of their details, at most 1, from which two images are a pair.
    """
    found: dict[tuple[int, int], tuple[float, bool]] = {}
    partners = np.zeros(len(looks.gray), dtype=np.int64)
    for variant, first, second in _candidates(looks):
        few = np.minimum(partners[first], partners[second]) < _PARTNERS
        first, second = first[few], second[few]
        score = _scores(looks, first, second, variant)
        same = score >= similarity
        for one, other, value in zip(first[same].tolist(), second[same].tolist(), score[same].tolist(), strict=True):
            ends = min(one, other), max(one, other)
            if ends not in found:
                partners[list(ends)] += 1
            if ends not in found or value > found[ends][0]:
                found[ends] = value, variant == _MIRRORED
    both = np.array(list(found), dtype=np.int64).reshape(-1, 2)
    scores = np.array([value for value, _ in found.values()], dtype=np.float64)
    return Pairs(both[:, 0], both[:, 1], scores, np.array([flag for _, flag in found.values()], dtype=bool))


def _candidates(looks: Looks) -> Iterator[tuple[int, Numbers, Numbers]]:
    """Yield blocks of pairs with near hashes: which hash of the first images is near the plain one of the second."""
    detailed = np.flatnonzero(looks.spread >= _UNIFORM)
    plain = looks.hashes[detailed, _PLAIN]
    for variant in (_PLAIN, _MIRRORED, _CROPPED):
        for query, other in _joined(near_hashes(looks.hashes[detailed, variant], plain, RADIUS)):
            # two plain or mirrored hashes are near in both directions; a crop only in one
            kept = query != other if variant == _CROPPED else query < other
            yield variant, detailed[query[kept]], detailed[other[kept]]


def _joined(blocks: Iterator[tuple[Numbers, Numbers]]) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield the pairs of blocks in blocks of one size, since a small one takes as much time as a large one."""
    waiting: list[Numbers] = []
    count = 0
    for block in chain(blocks, [None]):
        if block is not None:
            waiting.append(np.stack(block))
            count += len(block[0])
        if waiting and (block is None or count >= _BLOCK):
            pairs = np.concatenate(waiting, axis=1)
            for start in range(0, count, _BLOCK):
                yield pairs[0, start : start + _BLOCK], pairs[1, start : start + _BLOCK]
            waiting, count = [], 0


def _scores(looks: Looks, first: Numbers, second: Numbers, variant: int) -> npt.NDArray[np.float64]:
    """Return the correlation of details of each pair; 0 if the colors differ.

    Args:
        looks: how the images look.
        first: positions of images, int64 [pairs].
        second: positions of the others, int64 [pairs].
        variant: which hash of the first is near the plain one of the second.
    """
    scores = np.zeros(len(first))
    for start in range(0, len(first), _CACHED):
        block = slice(start, start + _CACHED)
        left, right = first[block], second[block]
        flip = -1 if variant == _MIRRORED else 1
        alike = _same_color(looks, left, right, flip)
        if alike.any():
            left, right = left[alike], right[alike]
            grays = looks.gray[left].astype(np.float32), looks.gray[right][:, :, ::flip].astype(np.float32)
            scores[start + np.flatnonzero(alike)] = _best_correlation(*grays, variant)
    return scores


def _same_color(looks: Looks, left: Numbers, right: Numbers, flip: int) -> npt.NDArray[np.bool_]:
    """Return for each pair whether the colors allow that both are one photograph, and not a product in two colors.

    Brightness, contrast and saturation may differ, and one image may have lost its color.
    """
    ours, theirs = looks.color[left].astype(np.float64), looks.color[right][:, :, ::flip].astype(np.float64)
    colors = _correlation(ours, theirs, noise=COLOR_SIDE**2 * 0.75)
    hues = _same_hues(_hues(ours), _hues(theirs))
    grays = np.abs(looks.gray[left].astype(np.float64) - looks.gray[right][:, :, ::flip]).mean(axis=(1, 2))
    colorless = (looks.chroma[left] <= _COLORLESS).astype(int) + (looks.chroma[right] <= _COLORLESS)
    same = (colors >= _COLOR) & (hues >= _HUE)
    return np.select([colorless == 2, colorless == 1], [True, grays <= _GRAYER], same)


def _same_hues(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the cosine between the hues of each pair, near 1 where both have little color."""
    left, right = left.reshape(len(left), -1), right.reshape(len(right), -1)
    little = COLOR_SIDE**2 * 8.0  # two levels in each of the two hues of each pixel
    size = np.sqrt(((left**2).sum(axis=1) + little) * ((right**2).sum(axis=1) + little))
    cosine: npt.NDArray[np.float64] = ((left * right).sum(axis=1) + little) / size
    return cosine


def _hues(colors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return red against green and yellow against blue, [images, 8, 8, 2]; both are 0 where there is no color."""
    red, green, blue = np.moveaxis(colors, -1, 0)
    return np.stack([red - green, (red + green) / 2 - blue], axis=-1)


def _best_correlation(left: Floats, right: Floats, variant: int) -> npt.NDArray[np.float64]:
    """Return the correlation of details of copies [pairs, 32, 32], the best over slight crops of them."""
    details = _detail(left), _detail(right)
    best = _product(*details)
    zoom: Any
    for margin in _MARGINS[variant]:
        zoom = zoom_matrix(margin)
        best = np.maximum(best, _product(_detail(zoom @ left @ zoom.T), details[1]))
        if variant != _CROPPED:
            best = np.maximum(best, _product(details[0], _detail(zoom @ right @ zoom.T)))
    return best


def _detail(gray: Floats) -> Floats:
    """Return what is finer than 5 x 5 pixels in copies [pairs, 32, 32], scaled to length 1."""
    padded = np.pad(gray, ((0, 0), (2, 2), (2, 2)), mode="edge")
    rows: Any = sum(padded[:, i : i + SIDE] for i in range(5))
    blurred: Any = sum(rows[:, :, i : i + SIDE] for i in range(5)) / 25
    fine = gray - blurred
    scaled: Floats = fine / np.sqrt((fine * fine).sum(axis=(1, 2), keepdims=True) + _NOISE)
    return scaled


def _product(left: Floats, right: Floats) -> npt.NDArray[np.float64]:
    products: npt.NDArray[np.float64] = np.einsum("pij,pij->p", left, right).astype(np.float64)
    return products


def _correlation(left: npt.NDArray[Any], right: npt.NDArray[Any], noise: float) -> npt.NDArray[np.float64]:
    """Return the correlation of the values of each pair."""
    flat = [np.reshape(one, (len(one), -1)).astype(np.float64) for one in (left, right)]
    flat = [one - one.mean(axis=1, keepdims=True) for one in flat]
    size = np.sqrt(((flat[0] ** 2).sum(axis=1) + noise) * ((flat[1] ** 2).sum(axis=1) + noise))
    correlation: npt.NDArray[np.float64] = (flat[0] * flat[1]).sum(axis=1) / size
    return correlation
