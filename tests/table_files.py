"""Files of tables for tests: CSV text, and a tiny catalog with pictures of squares and discs.

folder = draw_catalog(tmp_path)  # train.csv and val.csv; attributes color (3 classes) and shape (2)
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from catalog.data_error import DataError
from catalog.table import Table

COLORS = {"blue": (20, 30, 230), "green": (20, 220, 40), "red": (240, 30, 20)}
SHAPES = ("disc", "square")
SIZE = (24, 32)  # width and height in pixels
Row = dict[str, str]


def write_file(path: Path, content: str | bytes) -> Path:
    """Write text or bytes to a file and return its path."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def numbered(header: str, rows: Iterable[str]) -> str:
    """Return a CSV whose rows have the image paths 0.jpg, 1.jpg, ... in front."""
    return "\n".join([f"image_path,{header}", *(f"{i}.jpg,{row}" for i, row in enumerate(rows))]) + "\n"


def cells(table: Table) -> list[list[str | None]]:
    """Return the image path and labels of each row."""
    return [[table.image_path(i), *(c[i].as_py() for c in table.columns.values())] for i in range(len(table))]


def refusal(action: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """Return the message of the DataError that an action raises, which must be one line."""
    with pytest.raises(DataError) as error:
        action(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def draw_catalog(folder: Path, train: int = 24, val: int = 10, blanks: bool = True) -> Path:
    """Draw the pictures and write train.csv and val.csv.

    Args:
        folder: The data folder; it is created.
        train: The number of rows in train.csv.
        val: The number of rows in val.csv.
        blanks: Whether a few cells, and one whole row, are blank.

    Returns:
        The folder.
    """
    for split, count in (("train", train), ("val", val)):
        rows = [draw(folder, f"{split}-{index}.{'jpg' if index % 4 == 3 else 'png'}", index) for index in range(count)]
        if blanks:
            for index in range(4, count, 7):
                rows[index]["color"] = ""
            for index in range(5, count, 8):
                rows[index]["shape"] = ""
            rows[-1] |= {"color": "", "shape": ""}
        write_table(folder / f"{split}.csv", rows)
    return folder


def draw(folder: Path, name: str, index: int) -> Row:
    """Draw one picture, whose color and shape follow from the index, and return its row."""
    color, shape = list(COLORS)[index % 3], SHAPES[index // 3 % 2]
    image = Image.new("RGB", SIZE, (200 + index % 5 * 10,) * 3)
    left, top = 2 + index % 4, 3 + index % 7
    box = (left, top, left + 16, top + 16)
    pen = ImageDraw.Draw(image)
    (pen.ellipse if shape == "disc" else pen.rectangle)(box, fill=COLORS[color])
    path = folder / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return {"image_path": f"images/{name}", "color": color, "shape": shape}


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[Row]:
    """Read a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
