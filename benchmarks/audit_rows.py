#!/usr/bin/env python3
"""Time audit.py on a table of many rows.

    python benchmarks/audit_rows.py DATA [--rows 10000]

DATA's tables hold the photographs. Each photograph alone gives one row, and further rows show one of its halves: left,
right, upper, lower, magnified to the size of the photograph. So every row has an image of its own, as hard to decode
as a photograph. A half has the labels of its photograph. One audit of all rows is timed, with its start.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from command import command_parser, run_command
from PIL import Image

from catalog.data_error import DataError
from catalog.splits import find_split
from catalog.table import read_table

ROOT = Path(__file__).resolve().parent.parent
# left, upper, right and lower edge, as shares of the photograph's sides
PARTS = [(0, 0, 1, 1), (0, 0, 0.5, 1), (0.5, 0, 1, 1), (0, 0, 1, 0.5), (0, 0.5, 1, 1)]


def main() -> None:
    """Draw the table, audit it, and print the time."""
    parser = command_parser(__doc__)
    parser.add_argument("data", type=Path, help="folder with train.csv and val.csv")
    parser.add_argument("--rows", type=int, default=10_000, help="rows of the table (default: %(default)s)")
    args = parser.parse_args()
    try:
        tables = [read_table(find_split(args.data, split), None, False) for split in ("train", "val")]
    except DataError as error:
        parser.error(str(error))
    attributes = tables[0].attributes
    photographs = [
        (args.data / table.image_path(row), labels)
        for table in tables
        for row, labels in enumerate(zip(*(table.columns[name].to_pylist() for name in attributes), strict=True))
    ]
    most = len(photographs) * len(PARTS)
    if args.rows > most:
        parser.error(f"--rows {args.rows}: {args.data} has photographs for at most {most} rows")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        lines = [",".join(["image_path", *attributes])]
        for number in range(args.rows):
            path, labels = photographs[number % len(photographs)]
            save_part(path, PARTS[number // len(photographs)], folder / f"{number}.jpg")
            lines.append(",".join([f"{number}.jpg", *(label or "" for label in labels)]))
        (folder / "train.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        start = time.perf_counter()
        command = [sys.executable, str(ROOT / "audit.py"), str(folder), "-o", str(folder / "audit")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(f"audit.py failed:\n{done.stderr[-2000:]}")
        print(done.stdout)
        print(f"{args.rows:,} rows: {seconds:.1f} s, {args.rows / seconds:.0f} rows/s")


def save_part(path: Path, part: tuple[float, float, float, float], target: Path) -> None:
    """Write a part of a photograph, magnified to the size of the whole; the whole itself is linked."""
    if part == PARTS[0]:
        target.symlink_to(path.resolve())
        return
    with Image.open(path) as image:
        width, height = image.size
        box = (part[0] * width, part[1] * height, part[2] * width, part[3] * height)
        image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC, box=box).save(target, quality=90)


if __name__ == "__main__":
    run_command(main)
