"""Draws a tiny catalog, a data folder with pictures of squares and discs, for tests that train on one.

folder = draw_catalog(tmp_path)  # train.csv and val.csv; attributes color (3 classes) and shape (2)
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

COLORS = {"blue": (20, 30, 230), "green": (20, 220, 40), "red": (240, 30, 20)}
SHAPES = ("disc", "square")
SIZE = (24, 32)  # width and height in pixels
Row = dict[str, str]


def draw_catalog(folder: Path, train: int = 24, val: int = 10, blanks: bool = True) -> Path:
    """Draws the pictures and writes train.csv and val.csv.

    Args:
        folder: where; it is created.
        train: rows of train.csv.
        val: rows of val.csv.
        blanks: leave a few cells blank, and one row without any label.

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
    """Draws one picture, the color and shape of which follow from the index; returns its row."""
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
    """Writes rows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[Row]:
    """Reads a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
