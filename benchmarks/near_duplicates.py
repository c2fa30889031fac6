#!/usr/bin/env python3
"""Measure which edits of a photograph audit.py pairs with the original, and that it leaves other hues apart.

    python benchmarks/near_duplicates.py DATA [--photographs 120]

Photographs of DATA's val.csv become a training table. Edited copies of them become a validation table: each edit of
each photograph once. A copy in another hue stands for a product that is sold in two colors: it is another product.
The script prints how many copies of each kind the audit pairs with their original, and how many wrong pairs it reports.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from command import command_parser
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

ROOT = Path(__file__).resolve().parent.parent
Edit = Callable[[Image.Image], Image.Image]


def scaled(factor: float) -> Edit:
    """Return an edit that changes the size."""
    return lambda image: image.resize((int(image.width * factor), int(image.height * factor)))


def cropped(share: float) -> Edit:
    """Return an edit that cuts a share off each side."""
    return lambda image: ImageOps.crop(image, int(share * min(image.size)))


def enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance], factor: float) -> Edit:
    """Return an edit of Pillow's ImageEnhance."""
    return lambda image: kind(image).enhance(factor)


def in_hue(degrees: int) -> Edit:
    """Return an edit that turns all hues."""

    def turn(image: Image.Image) -> Image.Image:
        hue, saturation, value = image.convert("HSV").split()
        turned = (np.asarray(hue, dtype=np.int64) + degrees * 256 // 360) % 256
        return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")

    return turn


EDITS: dict[str, Edit] = {
    "encoded at quality 30": lambda image: image,
    "encoded at quality 10": lambda image: image,
    "half the size": scaled(0.5),
    "a quarter of the size": scaled(0.25),
    "brighter by 30%": enhanced(ImageEnhance.Brightness, 1.3),
    "darker by 30%": enhanced(ImageEnhance.Brightness, 0.7),
    "30% more contrast": enhanced(ImageEnhance.Contrast, 1.3),
    "50% more color": enhanced(ImageEnhance.Color, 1.5),
    "half the color": enhanced(ImageEnhance.Color, 0.5),
    "in gray": lambda image: image.convert("L"),
    "mirrored": ImageOps.mirror,
    "blurred by 1.5 pixels": lambda image: image.filter(ImageFilter.GaussianBlur(1.5)),
    "turned by 1 degree": lambda image: image.rotate(1),
    "cropped by 3% on each side": cropped(0.03),
    "cropped by 5% on each side": cropped(0.05),
    "hue turned by 60 degrees": in_hue(60),
    "hue turned by 120 degrees": in_hue(120),
    "hue turned by 180 degrees": in_hue(180),
}
QUALITY = {"encoded at quality 30": 30, "encoded at quality 10": 10}


def main() -> None:
    """Edit, audit, count."""
    parser = command_parser(__doc__)
    parser.add_argument("data", type=Path, help="data folder with val.csv")
    parser.add_argument("--photographs", type=int, default=120, help="number of photographs (default: %(default)s)")
    args = parser.parse_args()
    with (args.data / "val.csv").open(newline="", encoding="utf-8") as file:
        paths = [args.data / row["image_path"] for row in csv.DictReader(file)]
    chosen = paths[:: max(1, len(paths) // args.photographs)][: args.photographs]
    with tempfile.TemporaryDirectory() as folder:
        found, wrong = audited(Path(folder), chosen)
    for name in EDITS:
        print(f"{name:28} {found[name]:4} of {len(chosen)}")
    print(f"{'wrong pairs':28} {wrong:4}")


def audited(folder: Path, photographs: list[Path]) -> tuple[Counter[str], int]:
    """Return how many copies of each edit are paired with their original, and the number of wrong pairs."""
    # the copies
    (folder / "images").mkdir()
    originals, copies = [], []
    for number, path in enumerate(photographs):
        image = Image.open(path).convert("RGB")
        image.save(folder / "images" / f"{number}.png")
        originals.append(f"images/{number}.png")
        for index, (name, edit) in enumerate(EDITS.items()):
            copies.append(f"images/{number}-{index}.jpg")
            edit(image).save(folder / copies[-1], quality=QUALITY.get(name, 85))
    for split, rows in (("train", originals), ("val", copies)):
        lines = [f"{row},{'ab'[index % 2]}" for index, row in enumerate(rows)]
        (folder / f"{split}.csv").write_text("\n".join(["image_path,kind", *lines]) + "\n")

    # the audit's pairs
    command = [sys.executable, str(ROOT / "audit.py"), str(folder), "-o", str(folder / "audit")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found, wrong = set(), 0
    with (folder / "audit" / "findings.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if not row["kind"].startswith("leakage"):
                continue
            original, _, edited = Path(row["image path"]).stem.partition("-")
            if original != Path(row["other image"]).stem.partition("-")[0]:
                wrong += 1
            elif edited:
                found.add((original, list(EDITS)[int(edited)]))
    return Counter(name for _, name in found), wrong


if __name__ == "__main__":
    main()
