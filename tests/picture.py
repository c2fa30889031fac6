"""A picture for tests that resembles a photograph: shades from black to white, edges, and a little noise."""

from functools import cache

import numpy as np


@cache
def _picture(height, width, channels, seed):
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    red = 127 + 110 * np.sin(x / 17 + y / 40 + seed)
    green = 127 + 110 * np.cos(y / 13)
    blue = 255 * (x + y) / (height + width)
    shades = np.stack([red, green, blue], axis=-1) + random.normal(0, 4, (height, width, 3))
    shades[height // 6 : height // 2, width // 5 : width // 2] = 250, 10, 40  # a strong color
    shades[height // 2 : height * 2 // 3, width // 2 : width * 3 // 4] = 255
    shades[height * 5 // 6 :] = 0
    return shades.clip(0, 255).astype(np.uint8)[:, :, :channels]


def picture(height=97, width=120, channels=3, seed=0):
    """Return the picture, uint8 [height, width, channels], as a new array each time."""
    return _picture(height, width, channels, seed).copy()


def differences(left, right):
    """Return the absolute differences of two arrays of bytes, in levels of 255."""
    left, right = np.asarray(left), np.asarray(right)
    assert left.dtype == right.dtype == np.uint8
    assert left.shape == right.shape
    return np.abs(left.astype(int) - right.astype(int))
