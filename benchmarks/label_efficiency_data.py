"""The data of the label-efficiency study: a table for each split of a cell, and small copies of the photographs."""

from __future__ import annotations

import csv
import os
import random
from collections import defaultdict
from pathlib import Path

from label_efficiency_cells import ATTRIBUTES, SHORT_SIDE, WORK, Row, read_rows
from PIL import Image, ImageOps


def make_tables(data: Path, fraction: float, seed: int) -> Path:
    """Write the tables of a cell; return their folder.

    - train.csv: all images that are not held out, with the labels of a fraction of the rows
    - labeled.csv: the labeled rows of train.csv
    - val.csv: the held-out images
    - test.csv: the test split
    - all.csv: all rows of the dataset's train.csv, for the classes
    """
    # draw
    folder = WORK / "tables" / f"{fraction:g}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    everything = read_rows(data / "train.csv")
    held_out = {row["image_path"] for row in stratified(everything, 1 / 6, seed=0)}
    rows = [row for row in everything if row["image_path"] not in held_out]
    kept = {row["image_path"] for row in stratified(rows, fraction, seed)}
    blank = dict.fromkeys(ATTRIBUTES, "")
    tables = {
        "train": [row if row["image_path"] in kept else row | blank for row in rows],
        "labeled": [row for row in rows if row["image_path"] in kept],
        "val": [row for row in everything if row["image_path"] in held_out],
        "test": read_rows(data / "val.csv"),
        "all": everything,
    }

    # write
    for name, table in tables.items():
        # Running cells may read this table, and other processes may write it: replace it in one step.
        partial = folder / f"{name}.{os.getpid()}.partial"
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["image_path", *ATTRIBUTES])
            writer.writeheader()
            writer.writerows(row | {"image_path": f"{small_photograph(row['image_path'])}"} for row in table)
        partial.replace(folder / f"{name}.csv")
    return folder


def stratified(rows: list[Row], fraction: float, seed: int) -> list[Row]:
    """Return a fraction of the rows, at least one for each article and one for the rows without an article.

    With the same rows and seed, a larger fraction contains the smaller ones.
    """
    strata = defaultdict(list)
    for row in rows:
        strata[row[ATTRIBUTES[0]]].append(row)
    chosen = []
    for name in sorted(strata):
        shuffled = random.Random(f"{seed}/{name}").sample(strata[name], len(strata[name]))
        chosen += shuffled[: max(1, round(fraction * len(shuffled)))]
    return chosen


def shrink_photographs(data: Path) -> None:
    """Write a small copy of each photograph, with SHORT_SIDE pixels on its shorter side."""
    for split in ("train", "val"):
        for row in read_rows(data / f"{split}.csv"):
            target = small_photograph(row["image_path"])
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                image = ImageOps.exif_transpose(Image.open(data / row["image_path"])).convert("RGB")
                scale = SHORT_SIDE / min(image.size)
                size = (round(image.width * scale), round(image.height * scale))
                partial = target.with_suffix(f".{os.getpid()}.partial")
                image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3).save(partial, "JPEG", quality=95)
                partial.replace(target)


def small_photograph(path: str) -> Path:
    """Return the path of a photograph's small copy."""
    return WORK / "images" / Path(path).name
