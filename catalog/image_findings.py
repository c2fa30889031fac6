"""Findings about single images: unreadable, tiny, oddly shaped, uniform, dark, blurred, without color."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalog.audited_rows import AuditedRows
from catalog.finding import Finding
from catalog.image_facts import ImageFacts

_DARK = 60  # brightness of 255 that 95 of 100 parts do not exceed in a dark image
_UNIFORM = 2.0  # standard deviation of the brightness of an image of one color
_GRAY = 3.0  # chroma of an image without color; encoding as JPEG adds one or two levels


@dataclass(frozen=True)
class Limits:
    """From when on an image is remarkable.

    Attributes:
        shortest: pixels of the shorter side below which an image is tiny.
        longest: sides' ratio above which an image is oddly shaped.
        sharpness: `Measurement.sharpness` below which an image is blurred.
    """

    shortest: int = 32
    longest: float = 3.0
    sharpness: float = 0.2


def image_findings(rows: AuditedRows, facts: ImageFacts, limits: Limits) -> Iterator[Finding]:
    """Yield the findings about single images, for each row that has the image.

    Args:
        rows: the rows.
        facts: what is known of their files.
        limits: from when on an image is remarkable.
    """
    for row, file in enumerate(rows.file.tolist()):
        if file in facts.errors:
            yield Finding("unreadable", facts.errors[file], row)
    width, height = facts.size.T
    short, long = np.minimum(width, height), np.maximum(width, height)
    bright, spread, sharpness = facts.bright, facts.looks.spread, facts.sharpness
    uniform = facts.readable & (spread < _UNIFORM)
    detailed = facts.readable & ~uniform
    masks: dict[str, tuple[npt.NDArray[np.bool_], str]] = {
        "tiny": (facts.readable & (short < limits.shortest), "{width} x {height} pixels"),
        "shape": (facts.readable & (long > limits.longest * short), "{width} x {height} pixels"),
        "uniform": (uniform, "brightness varies by {spread:.1f} of 255"),
        "dark": (detailed & (bright < _DARK), "95% of it is darker than {bright:.0f} of 255"),
        "blurred": (detailed & (sharpness < limits.sharpness), "sharpness {sharpness:.2f}"),
        "gray": (detailed & (facts.looks.chroma <= _GRAY), "no color"),
    }
    for kind, (mask, detail) in masks.items():
        for row in np.flatnonzero(mask[rows.file]).tolist():
            file = int(rows.file[row])
            values = {
                "width": width[file],
                "height": height[file],
                "spread": spread[file],
                "bright": bright[file],
                "sharpness": sharpness[file],
            }
            yield Finding(kind, detail.format(**values), row)
