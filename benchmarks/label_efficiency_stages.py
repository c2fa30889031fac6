"""The stages of the label-efficiency study as command lines, and what each costs.

A stage leaves a product for the next one: a checkpoint, or soft labels, with which the next stage starts anew.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from label_efficiency_cells import ORIGINAL, WORK, read_rows
from label_efficiency_settings import STARTS


@dataclass(frozen=True)
class Place:
    """Where a stage runs.

    Attributes:
        start: name of the start.
        seed: seed of the cell.
        data: folder of the dataset.
        tables: folder of the cell's tables.
        folder: folder for what the stage writes.
        weights: file of the backbone's ImageNet weights.
        product: what the stage before left; None for the first stage.
    """

    start: str
    seed: int
    data: Path
    tables: Path
    folder: Path
    weights: Path | None
    product: Path | None


@dataclass(frozen=True)
class Command:
    """One call of a script.

    Attributes:
        words: the script, relative to the repository, and its arguments.
        product: what the script leaves.
        trained: number of views that pass forward and backward through the backbone.
        scored: number of views that pass forward alone, without validation.
    """

    words: list[str]
    product: Path
    trained: int = 0
    scored: int = 0


def command(stage: str, place: Place) -> Command:
    """Return the call of a script that a stage stands for."""
    script, *flags = stage.split()
    if not script.endswith(".py"):
        return _train(stage, place)
    calls = {"inference.py": _label, "relabel_copies.py": _relabel, "logistic_regression.py": _logistic_regression}
    return calls[script](flags, place)


def tables_of(stage: str, tables: Path) -> Path:
    """Return the tables that a stage reads: of the small copies, or of the photographs."""
    return tables / ORIGINAL if "--original" in stage else tables


def _train(stage: str, place: Place) -> Command:
    """Return a call of train.py: from the checkpoint of the stage before, or from the start's weights."""
    tables = tables_of(stage, place.tables)
    flags, images = train_flags(stage, tables)
    words = ["train.py", f"{tables}", *STARTS[place.start].flags.split(), *flags, "--seed", f"{place.seed}"]
    if not re.search("--(no-)?freeze-b", stage):  # the study is older than the default of --freeze-bn
        words += ["--no-freeze-bn"]
    if place.product and place.product.suffix == ".parquet":
        words += ["--pseudo-labels", f"{place.product}"]
    elif place.product:
        words += ["--initial-checkpoint", f"{place.product}"]
    if STARTS[place.start].pretrained and "--initial-checkpoint" not in words:
        words += ["--pretrained", "--pretrained-path", f"{place.weights}"]
    words += ["--output", f"{place.folder.parent}", "--experiment", place.folder.name, "--no-report"]
    views = 1 if re.search(r"-wls 0(?!\S)", stage) else 2
    scored = images if "--pseudo ema" in stage else 0  # the teacher's view
    return Command(words, place.folder / "last.pth.tar", images * views, scored)


def train_flags(stage: str, tables: Path) -> tuple[list[str], int]:
    """Return a stage's flags for train.py, and the number of images in all of its steps.

    --steps becomes --epochs, and --unlabeled names the rows without labels.
    """
    # the study's own flags, and those that it must read
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int)
    parser.add_argument("--least-epochs", type=int, default=3)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--original", action="store_true")
    parser.add_argument("--unlabeled-ratio", type=int, default=0)
    parser.add_argument("-b", type=int)
    parser.add_argument("--train-split", default="train")
    known, flags = parser.parse_known_args(stage.split())

    # the flags of train.py
    rows, all_rows = (len(read_rows(tables / f"{name}.csv")) for name in (known.train_split, "train"))
    images = known.b
    if known.unlabeled_ratio and rows < all_rows:
        flags += ["--unlabeled", f"{tables / 'train.csv'}", "--unlabeled-ratio", f"{known.unlabeled_ratio}"]
        images *= 1 + known.unlabeled_ratio
    if not re.search(r"-wl[sc] 0(?!\S)|--classify-view", stage):
        flags += ["--classify-view", "first"]  # the study's default; train.py's is both
    steps = max(1, rows // known.b)
    epochs = max(known.times * known.least_epochs, round(known.times * known.steps / steps))
    if epochs < 20:  # two warmup epochs would be a large share
        flags += ["--warmup-epochs", f"{max(1, epochs // 6)}"]
    flags += ["--train-split", known.train_split, "-b", f"{known.b}", "--epochs", f"{epochs}"]
    return flags, epochs * steps * images


def _label(flags: list[str], place: Place) -> Command:
    """Return a call of inference.py that writes soft labels for all images of the training table."""
    table = tables_of(" ".join(flags), place.tables) / "train.csv"
    product = place.folder / "soft.parquet"
    flags = [flag for flag in flags if flag != "--original"]
    words = ["inference.py", f"{table}", "--checkpoint", f"{place.product}", *flags, "--probabilities", f"{product}"]
    words += ["-o", f"{place.folder / 'predictions.csv'}", "-j", "1", "-b", "128"]
    return Command(words, product, scored=len(read_rows(table)))


def _relabel(flags: list[str], place: Place) -> Command:
    """Return a call of relabel_copies.py: the soft labels of the photographs, for their small copies."""
    product = place.folder / "soft.parquet"
    table = place.tables / "train.csv"
    return Command(
        ["benchmarks/relabel_copies.py", f"{place.product}", f"{table}", *flags, "-o", f"{product}"], product
    )


def _logistic_regression(flags: list[str], place: Place) -> Command:
    """Return a call of logistic_regression.py: from the original photographs if the small ones are too small."""
    size = int(flags[flags.index("--img-size") + 1])
    words = ["benchmarks/logistic_regression.py", f"{place.tables}", *flags, "--pretrained-path", f"{place.weights}"]
    words += ["--features", f"{WORK / 'features' / f'{place.start}-{size}.npz'}", "-o", f"{place.folder}"]
    if size > STARTS[place.start].short_side:
        words += ["--photographs", f"{place.data / 'images'}"]
    return Command(words, place.folder, scored=len(read_rows(place.tables / "labeled.csv")))


def predict(product: Path, tables: Path, splits: list[str]) -> tuple[list[str], Path]:
    """Return the call of inference.py that labels the splits of `tables` one after the other, and its output."""
    output = product.parent / f"{'-'.join(splits)}-predictions.csv"
    inputs = [f"{tables / f'{split}.csv'}" for split in splits]
    return ["inference.py", *inputs, "--checkpoint", f"{product}", "-o", f"{output}", "-j", "1", "-b", "128"], output
