"""Outlines of the sample catalog's shapes, as lists of points."""

from collections.abc import Sequence

import numpy as np

Point = tuple[float, float]
Points = Sequence[Point]


def rounded(points: Points, times: int) -> list[Point]:
    """Cut the corners of a closed outline (Chaikin, 1974); a repeated point stays a corner."""
    outline = np.asarray(points, dtype=np.float64)
    for _ in range(times):
        following = np.roll(outline, -1, axis=0)
        outline = np.stack([0.75 * outline + 0.25 * following, 0.25 * outline + 0.75 * following], 1).reshape(-1, 2)
    return [(x, y) for x, y in outline.tolist()]


def mirrored(half: Points) -> list[Point]:
    """Close an outline from its right half, top to bottom."""
    return [*half, *((-x, y) for x, y in reversed(half))]


def oval(x: float, y: float, width: float, height: float, power: float = 2.0) -> list[Point]:
    """Return an ellipse by its center and half axes; a larger power makes it squarer."""
    angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    across, down = np.cos(angles), np.sin(angles)
    xs = x + width * np.sign(across) * np.abs(across) ** (2 / power)
    ys = y + height * np.sign(down) * np.abs(down) ** (2 / power)
    return list(zip(xs.tolist(), ys.tolist(), strict=True))


def stretched(points: Points, height: float, below: float = 0.3) -> list[Point]:
    """Scale the heights of an outline around the level `below`."""
    return [(x, below + (y - below) * height) for x, y in points]
