"""The cells that wait for a label, from the file that `fill.py --queue` writes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from catalog.cell_text import normalized_name
from catalog.data_error import DataError
from catalog.embedded_images import is_image_file
from catalog.table import read_table

ATTRIBUTE = "attribute"
MOST_GUESSES = 9  # each has a key

_CHECKED = 100  # images; at least one of them must be there
_NUMBER = re.compile(r"[01](\.[0-9]+)?|\.[0-9]+")


@dataclass(frozen=True)
class WaitingCell:
    """A cell that waits for a label.

    Attributes:
        image_path: the image as the table spells it.
        attribute: the attribute.
        guesses: the model's classes and their probabilities, the most probable first; a probability may be unknown.
    """

    image_path: str
    attribute: str
    guesses: tuple[tuple[str, float | None], ...]


def read_queue(path: Path) -> list[WaitingCell]:
    """Return the cells of a queue in order; a cell that is there twice comes once.

    Args:
        path: a CSV, TSV or Parquet table with the columns image_path, attribute, and as far as there are guess_1,
            probability_1, guess_2, ...

    Raises:
        DataError: it cannot be read, lacks a column, or a row has no attribute or a probability that is no number.
    """
    table = read_table(path, None, require_attributes=False)
    if ATTRIBUTE not in table.columns:
        raise DataError(
            f"{path.name} has no column {ATTRIBUTE!r}, so it is no queue: write one with fill.py --queue {path.name}"
        )
    if table.names is not None:
        raise DataError(f"{path.name} holds images, and a queue names them: write one with fill.py --queue FILE")
    texts = {name: column.to_pylist() for name, column in table.columns.items()}
    ranks = [rank for rank in range(1, MOST_GUESSES + 1) if f"guess_{rank}" in texts]
    cells: dict[tuple[str, str], WaitingCell] = {}
    for row, name in enumerate(texts[ATTRIBUTE]):
        if not name:
            raise DataError(f"{table.place(row)}: {ATTRIBUTE} is blank: name the column that the label is for")
        guesses = []
        for rank in ranks:
            if guess := texts[f"guess_{rank}"][row]:
                text = texts[f"probability_{rank}"][row] if f"probability_{rank}" in texts else None
                if text and not _NUMBER.fullmatch(text):
                    raise DataError(f"{table.place(row)}: probability_{rank} {text!r} is no number from 0 to 1")
                guesses.append((guess, float(text) if text else None))
        cell = WaitingCell(table.image_path(row), normalized_name(name), tuple(guesses))
        cells.setdefault((cell.image_path, cell.attribute), cell)
    return list(cells.values())


def queue_roots(path: Path, image_root: str | None, cells: Sequence[WaitingCell]) -> tuple[Path, ...]:
    """Return the folders that the image paths of a queue are relative to, tried in order.

    Args:
        path: the queue.
        image_root: the folder that the user named; None for the queue's own and the working directory.
        cells: the cells.

    Raises:
        DataError: none of the first images is there.
    """
    roots = (Path(image_root).resolve(),) if image_root else (path.parent.resolve(), Path.cwd())
    for cell in cells[:_CHECKED]:
        if find_image(cell.image_path, roots):
            return roots
    raise DataError(
        f"{path.name}: its first image {cells[0].image_path!r} is not in {' nor in '.join(map(str, roots))}: name the "
        "folder that its paths are relative to with image_root"
    )


def find_image(image_path: str, roots: Sequence[Path]) -> str:
    """Return the file of an image, or "" if no folder has it."""
    places = [os.path.join(root, image_path) for root in roots]  # noqa: PTH118 - FILE.parquet#7 names an image, too
    return next((place for place in places if is_image_file(place)), "")
