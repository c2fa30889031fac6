"""The sound inputs from which all cases are made: a data folder of 8 x 8 pictures, and a run on it."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

from hostile.case import TRAIN, Case
from hostile.server import run

CLASSES = {"color": ("blue", "green", "red"), "shape": ("disc", "square"), "tags": ("", "new", "old", "new|old")}


def make_sound(folder: Path) -> Path:
    """Draw the pictures and tables, and train a run; return the folder, with data/ and out/run/."""
    rng = random.Random(0)
    (folder / "data" / "images").mkdir(parents=True)
    for split, numbers in (("train", range(12)), ("val", range(12, 18))):
        lines = [",".join(["image_path", *CLASSES])]
        for number in numbers:
            picture = Image.frombytes("RGB", (8, 8), rng.randbytes(192))
            picture.save(folder / "data" / "images" / f"{number}.png")
            labels = [names[(number + number // 3) % len(names)] for names in CLASSES.values()]
            lines.append(",".join([f"images/{number}.png", *(label if number % 5 != 4 else "" for label in labels)]))
        (folder / "data" / f"{split}.csv").write_text("\n".join(lines) + "\n")
    ready(folder)
    for words in (
        ["train.py", "data", *TRAIN, "--model-ema", "--recovery-interval", "1"],
        ["inference.py", "data/images", "--checkpoint", "out/run/last.pth.tar", "-j", "0", "-o", "out/p.csv",
         "--probabilities", "out/soft.parquet"],
        ["embed.py", "data/train.csv", "--checkpoint", "out/run/last.pth.tar", "-j", "0", "-o", "out/index"],
    ):  # fmt: skip
        outcome = run(Case(words, "sound"), folder, seconds=120)
        if outcome.code or outcome.trespasses:
            raise RuntimeError(f"the sound input fails: {outcome}")
    return folder


def ready(place: Path) -> Path:
    """Make the folders of a case; return its own."""
    for name in ("in", "out", "tmp", "home"):
        (place / name).mkdir(parents=True, exist_ok=True)
        (place / name).chmod(0o777)
    return place
