"""What filling a table leaves to people: the cells to label, and the given labels to look at, as CSV files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from catalog.spreadsheet_text import escaped_text

GUESSES = 5  # guesses in the queue, as far as an attribute has classes
SUSPECT_COLUMNS = (
    "rank",
    "image_path",
    "row",
    "attribute",
    "given",
    "likely",
    "probability_given",
    "probability_likely",
)


@dataclass(frozen=True)
class QueuedCell:
    """A blank cell that a person should label.

    Attributes:
        image_path: the image as the table spells it.
        attribute: the attribute.
        guesses: the model's classes and their probabilities, the most probable first.
    """

    image_path: str
    attribute: str
    guesses: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class SuspectCell:
    """A given label that is probably wrong.

    Attributes:
        image_path: the image as the table spells it.
        row: line in the table's file, from 1; for Parquet the number of the row.
        attribute: the attribute.
        given: the label in the table.
        likely: the label that is more likely.
        probability_given: out-of-fold probability of the given label.
        probability_likely: out-of-fold probability of the likely one.
    """

    image_path: str
    row: int
    attribute: str
    given: str
    likely: str
    probability_given: float
    probability_likely: float


def write_queue(path: Path, cells: Iterable[QueuedCell], spreadsheet_safe: bool = False) -> None:
    """Write the cells to label: rank, image_path, attribute, guess_1, probability_1, guess_2, ...

    Args:
        path: the file.
        cells: the cells, the most valuable first.
        spreadsheet_safe: whether texts are written so that a spreadsheet runs none of them.
    """
    cells = list(cells)
    guesses = max((len(cell.guesses) for cell in cells), default=1)
    header = [part for rank in range(1, guesses + 1) for part in (f"guess_{rank}", f"probability_{rank}")]
    rows = []
    for rank, cell in enumerate(cells, 1):
        pairs = [part for guess, probability in cell.guesses for part in (guess, f"{probability:.4f}")]
        rows.append([str(rank), cell.image_path, cell.attribute, *pairs, *[""] * (2 * guesses - len(pairs))])
    _write(path, ["rank", "image_path", "attribute", *header], rows, spreadsheet_safe)


def write_suspects(path: Path, cells: Iterable[SuspectCell], spreadsheet_safe: bool = False) -> None:
    """Write the given labels that are probably wrong, with the columns `SUSPECT_COLUMNS`.

    Args:
        path: the file.
        cells: the labels, the most suspect first.
        spreadsheet_safe: whether texts are written so that a spreadsheet runs none of them.
    """
    rows = [
        [
            *(str(rank), one.image_path, str(one.row), one.attribute, one.given, one.likely),
            *(f"{one.probability_given:.4f}", f"{one.probability_likely:.4f}"),
        ]
        for rank, one in enumerate(cells, 1)
    ]
    _write(path, SUSPECT_COLUMNS, rows, spreadsheet_safe)


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]], safe: bool) -> None:
    shown = escaped_text if safe else str
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([shown(cell) for cell in row] for row in rows)
