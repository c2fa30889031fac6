"""Perceptual hashes: near for images that look the same, and every pair within a radius is found."""

import numpy as np
import pytest
from drawn_photograph import photograph

from catalog.perceptual_hash import SIDE, count_bits, near_hashes, perceptual_hashes, zoom_matrix


def hashes_of(image):
    gray = np.asarray(image.convert("L").resize((SIDE, SIDE), 4), np.float32)
    return perceptual_hashes(gray)


def skewed_hashes(rng, count):
    """Return random hashes with clusters of few differing bits, as real ones have."""
    centers = rng.integers(0, 1 << 63, 5, dtype=np.uint64)
    flips = np.zeros(count, np.uint64)
    for _ in range(9):
        flips ^= np.uint64(1) << rng.integers(0, 64, count, dtype=np.uint64)
    random = rng.integers(0, 1 << 63, count, dtype=np.uint64)
    return np.where(rng.random(count) < 0.7, centers[rng.integers(0, 5, count)] ^ flips, random)


@pytest.mark.parametrize("radius", [0, 3, 4, 7, 11, 13])
def test_every_pair_within_the_radius_is_found_once_as_by_comparing_all(radius):
    rng = np.random.default_rng(radius)
    queries, hashes = skewed_hashes(rng, 90), skewed_hashes(rng, 130)
    hashes[:40] = queries[:40]
    blocks = [np.stack(block, axis=1) for block in near_hashes(queries, hashes, radius)]
    found = [tuple(pair) for block in blocks for pair in block.tolist()]
    expected = [
        (i, j)
        for i, one in enumerate(queries.tolist())
        for j, other in enumerate(hashes.tolist())
        if bin(one ^ other).count("1") <= radius
    ]
    assert len(expected) >= 40
    assert sorted(found) == expected


def test_a_block_of_pairs_stays_small(monkeypatch):
    monkeypatch.setattr("catalog.perceptual_hash._BLOCK", 50)
    same = np.zeros(40, np.uint64)
    blocks = [len(query) for query, _ in near_hashes(same, same, 0)]
    assert sum(blocks) == 40 * 40
    assert max(blocks) <= 50


def test_bits_are_counted_without_numpy_2(monkeypatch):
    numbers = np.array([0, 1, 2**64 - 1, 0b1011 << 40], np.uint64)
    expected = [0, 1, 64, 3]
    assert count_bits(numbers).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert count_bits(numbers).tolist() == expected


def test_the_hash_of_a_mirror_image_is_the_mirrored_hash():
    image = photograph(1)
    plain, mirrored, _ = hashes_of(image)
    assert bin(hashes_of(image.transpose(0))[0] ^ mirrored).count("1") <= 2
    assert bin(plain ^ mirrored).count("1") > 11


def test_the_hash_of_a_cropped_image_is_near_the_cropped_hash():
    image = photograph(2)
    cropped = image.crop((10, 13, 230, 307))  # 4 percent on each side
    assert bin(hashes_of(cropped)[0] ^ hashes_of(image)[2]).count("1") <= 8


def test_brightness_and_size_change_few_bits():
    image = photograph(3)
    changed = image.point(lambda value: value * 0.7).resize((90, 120))
    assert bin(hashes_of(changed)[0] ^ hashes_of(image)[0]).count("1") <= 6


def test_a_zoom_without_margin_changes_nothing():
    assert np.allclose(zoom_matrix(0.0), np.eye(SIDE), atol=1e-6)
    assert np.allclose(zoom_matrix(0.04).sum(axis=1), 1)
