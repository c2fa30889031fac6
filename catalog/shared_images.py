"""Images that several tables share: the same file, or the same content in another."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from catalog.find_images import with_found_images
from catalog.identical_images import content_codes
from catalog.repeated_images import file_paths
from catalog.table import Table

_logger = logging.getLogger(__name__)

_SHOWN = 2  # places in a warning

Rows = npt.NDArray[np.int64]


def image_codes(tables: Sequence[Table]) -> list[Rows]:
    """Return a number for the image of each row of each table, equal for the same content, int64 [rows].

    Raises:
        DataError: no image of a table exists.
    """
    paths = [file_paths(with_found_images(table)[0]).to_pylist() for table in tables]
    codes = content_codes([path for some in paths for path in some])
    return np.split(codes, np.cumsum([len(some) for some in paths])[:-1])


def warn_of_shared_images(held_out: Table, codes: Rows, other: Table, others: Rows, consequence: str) -> None:
    """Warn of images of a hold-out that another table has too.

    Args:
        held_out: the hold-out.
        codes: the code of each of its images.
        other: the other table.
        others: the code of each of that one's images; -1 for rows that do not count.
        consequence: what follows, and what to do.
    """
    shared = np.flatnonzero(np.isin(codes, others[others >= 0]))
    if not len(shared):
        return
    first = {int(code): row for row, code in reversed(list(enumerate(others.tolist()))) if code >= 0}
    pairs = [(int(row), first[int(codes[row])]) for row in shared[:_SHOWN]]
    here, there = held_out.places({row for row, _ in pairs}), other.places({row for _, row in pairs})
    shown = "; ".join(f"{here[row]} is {there[source]}" for row, source in pairs)
    _logger.warning(
        f"{held_out.path.name}: {len(shared)} of its {len(held_out)} images are also in {other.path.name} ({shown}): "
        f"{consequence}"
    )
