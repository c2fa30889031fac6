"""What a split made: rows, classes that a table lacks, rows kept together, and the largest deviations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from catalog.data_error import quoted
from catalog.stratify import Labels

Rows = npt.NDArray[np.int64]

_MANY = 100  # images of a class whose share is expected to be close
_NAMED = 5  # classes in a line


def split_lines(parts: Rows, labels: Labels, made: Mapping[int, str], shares: Mapping[int, float]) -> Iterator[str]:
    """Yield the lines about a split's rows and classes.

    Args:
        parts: part of each row, int64 [rows].
        labels: the labels.
        made: name of each part's table.
        shares: share of the labeled rows that each part should have.
    """
    labeled = np.zeros(len(parts), bool)
    labeled[labels.rows] = True
    for part, name in made.items():
        inside = parts == part
        blank = int((inside & ~labeled).sum())
        unlabeled = f", {blank:,} of them unlabeled" if blank and labeled.any() else ""
        yield f"{name}: {inside.sum():,} rows ({100 * inside.mean():.1f}%){unlabeled}"
    counts = np.stack(
        [np.bincount(labels.classes[parts[labels.rows] == part], minlength=len(labels.names)) for part in made], axis=1
    )
    for attribute in dict.fromkeys(name for name, _ in labels.names):
        yield _attribute_line(attribute, labels, counts, list(made.values()))
    yield from _deviation_lines(labels, counts, list(made.values()), np.array([shares[part] for part in made]))


def together_line(codes: Rows, what: str, divided: int) -> str:
    """Return the line about rows that stay together; "" if there are none.

    Args:
        codes: group or image of each row, int64 [rows].
        what: what the rows share: "group" or "image".
        divided: how many of them are in several tables.
    """
    sizes = np.bincount(codes)
    several = sizes[sizes > 1]
    if not len(several):
        return ""
    state = f"{divided:,} of them are divided as DATA says" if divided else "each in one table"
    return f"{len(several):,} {what}s have several rows ({several.sum():,} in all): {state}"


def _attribute_line(attribute: str, labels: Labels, counts: Rows, names: list[str]) -> str:
    """Return the classes of an attribute that a table lacks."""
    rows = [index for index, (name, _) in enumerate(labels.names) if name == attribute]
    lacking = []
    for column, name in enumerate(names):
        absent = [labels.names[row][1] or "no value" for row in rows if not counts[row, column]]
        if absent:
            lacking.append(f"{len(absent)} not in {name} ({quoted(absent, _NAMED)})")
    return f"{attribute}: {len(rows)} classes, {'; '.join(lacking) if lacking else 'all in every table'}"


def _deviation_lines(labels: Labels, counts: Rows, names: list[str], shares: npt.NDArray[np.float64]) -> Iterator[str]:
    """Yield the largest deviation from the shares, among the large classes and among all."""
    totals = counts.sum(axis=1)
    for least, what in ((_MANY, f"classes of {_MANY} images or more"), (1, "all classes")):
        large = np.flatnonzero(totals >= least)
        if not len(large):
            continue
        found = counts[large] / totals[large, None]
        row, part = np.unravel_index(np.argmax(np.abs(found - shares)), found.shape)
        attribute, name = labels.names[large[row]]
        yield (
            f"Largest deviation of {what}: {attribute} {name!r} has {100 * found[row, part]:.1f}% of its "
            f"{totals[large[row]]:,} images in {names[part]}, not {100 * shares[part]:.1f}%"
        )
