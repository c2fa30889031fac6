"""Posterizing down to no bits gives a black image, whatever Pillow thinks of it."""

import numpy as np
import pytest
from PIL import Image

from timm.data.auto_augment import AugmentOp
from timm.data.posterize import allow_black, posterize_or_black

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("bits", range(-2, 10))
def test_so_many_leading_bits_of_a_color_are_kept(bits: int) -> None:
    for pixels in (PIXELS, PIXELS[..., 0]):
        image = posterize_or_black(Image.fromarray(pixels), bits)
        mask = 256 - 2 ** (8 - min(max(bits, 0), 8))
        np.testing.assert_array_equal(np.array(image), pixels & mask)


@pytest.mark.parametrize(("name", "magnitude"), [("Posterize", 0), ("PosterizeIncreasing", 10)])
def test_timms_operations_go_down_to_black(name: str, magnitude: float) -> None:
    allow_black()
    image = AugmentOp(name, prob=1.0, magnitude=magnitude)(Image.fromarray(PIXELS))
    assert not np.array(image).any()
