"""The data of the label-efficiency study: a table for each split of a cell, and small copies of the photographs."""

from __future__ import annotations

import csv
import os
import random
import sys
from collections import defaultdict
from pathlib import Path

from label_efficiency_cells import ORIGINAL, WORK, Row, read_rows
from label_efficiency_settings import STARTS
from PIL import Image, ImageOps


def make_tables(data: Path, start: str, fraction: float, seed: int) -> Path:
    """Write the tables of a cell; return their folder.

    - train.csv: all images that are not held out, with the labels of a fraction of the rows
    - labeled.csv: the labeled rows of train.csv
    - val.csv: the held-out images
    - test.csv: the test split
    - all.csv: all rows of the dataset's train.csv, for the classes

    They name the small copies. The same tables in the subfolder `original` name the photographs.
    """
    # draw
    folder = WORK / "tables" / start / f"{fraction:g}-{seed}"
    (folder / ORIGINAL).mkdir(parents=True, exist_ok=True)
    attributes = STARTS[start].attributes
    everything = read_rows(data / "train.csv")
    held_out = {row["image_path"] for row in stratified(everything, attributes[0], 1 / 6, seed=0)}
    rows = [row for row in everything if row["image_path"] not in held_out]
    kept = {row["image_path"] for row in stratified(rows, attributes[0], fraction, seed)}
    blank = dict.fromkeys(attributes, "")
    tables = {
        "train": [row if row["image_path"] in kept else row | blank for row in rows],
        "labeled": [row for row in rows if row["image_path"] in kept],
        "val": [row for row in everything if row["image_path"] in held_out],
        "test": read_rows(data / "val.csv"),
        "all": everything,
    }

    # write
    for name, table in tables.items():
        small = [row | {"image_path": f"{small_photograph(start, row['image_path'])}"} for row in table]
        large = [row | {"image_path": f"{(data / row['image_path']).resolve()}"} for row in table]
        for file, written in ((folder / f"{name}.csv", small), (folder / ORIGINAL / f"{name}.csv", large)):
            _write_table(file, ["image_path", *attributes], written)
    return folder


def _write_table(file: Path, columns: list[str], rows: list[Row]) -> None:
    """Write a table in one step: running cells may read it, and other processes may write it."""
    partial = file.with_suffix(f".{os.getpid()}.partial")
    with partial.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, columns)
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(file)


def stratified(rows: list[Row], attribute: str, fraction: float, seed: int) -> list[Row]:
    """Return a fraction of the rows, at least one for each class of an attribute and one for the rows without one.

    With the same rows and seed, a larger fraction contains the smaller ones.
    """
    strata = defaultdict(list)
    for row in rows:
        strata[row[attribute]].append(row)
    chosen = []
    for name in sorted(strata):
        shuffled = random.Random(f"{seed}/{name}").sample(strata[name], len(strata[name]))
        chosen += shuffled[: max(1, round(fraction * len(shuffled)))]
    return chosen


def dataset_starts(data: Path) -> list[str]:
    """Return the starts whose attributes are columns of a dataset."""
    if not (data / "train.csv").exists():
        sys.exit(f"{data} has no train.csv: name the folder of the dataset")
    columns = read_rows(data / "train.csv")[0]
    return [start for start, what in STARTS.items() if set(what.attributes) <= set(columns)]


def shrink_photographs(data: Path, start: str) -> None:
    """Write a small copy of each photograph, with the start's number of pixels on its shorter side."""
    for split in ("train", "val"):
        for row in read_rows(data / f"{split}.csv"):
            target = small_photograph(start, row["image_path"])
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                image = ImageOps.exif_transpose(Image.open(data / row["image_path"])).convert("RGB")
                scale = STARTS[start].short_side / min(image.size)
                size = (round(image.width * scale), round(image.height * scale))
                partial = target.with_suffix(f".{os.getpid()}.partial")
                image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3).save(partial, "JPEG", quality=95)
                partial.replace(target)


def small_photograph(start: str, path: str) -> Path:
    """Return the path of a photograph's small copy."""
    return WORK / "images" / f"{STARTS[start].short_side}" / Path(path).with_suffix(".jpg").name
