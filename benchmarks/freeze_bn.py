#!/usr/bin/env python3
"""Measure what it is worth to keep the batch norm statistics of pretrained weights while fine-tuning (--freeze-bn).

    python benchmarks/freeze_bn.py DATA --weights tf_efficientnet_lite0.safetensors [--lite1 FILE]   run the cells
    python benchmarks/freeze_bn.py DATA --report                                                    print the tables

DATA is the Clothing dataset (benchmarks/README.md). Its val.csv is the test split here. A fixed sixth of train.csv is
held out: the learning rate and the rule of --freeze-bn were chosen on it. A cell keeps the labels of a fraction of the
other rows, and trains on the same number of photographs whatever the batch size. Cells of a seed have the same labels,
images and first weights, and differ in the batch norms of the backbone:

    trained    statistics of each batch, as without the flag
    momentum   the same with momentum 0.01 instead of 0.1 for the running statistics
    frozen     --freeze-bn: the running statistics of the first weights; scales and shifts train
    fixed      --freeze-bn, and scales and shifts stay too

A finished cell is a line of benchmarks/results/freeze-bn.jsonl. Finished cells do not run again: stop and resume the
script at any time.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from statistics import mean
from typing import Any

from command import command_parser, head_commit, run_command
from label_efficiency import call, mean_accuracy, predict_rows
from label_efficiency_cells import ROOT, locked, read_rows
from label_efficiency_data import make_tables, shrink_photographs
from label_efficiency_settings import STARTS

Cell = dict[str, Any]

RESULTS = ROOT / "benchmarks" / "results" / "freeze-bn.jsonl"
WORK = ROOT / "output" / "freeze-bn"
KEY = ("model", "norms", "fraction", "batch", "simclr", "photographs", "lr", "seed")
COMMON = (
    "--opt adamw --weight-decay 0.05 --sched cosine --sched-on-updates --warmup-lr 1e-6 --min-lr 1e-6 "
    "--cooldown-epochs 0 --clip-grad 5 -j 0 --val-interval 1000 --checkpoint-hist 1 --knn-interval 0 "
    "--log-interval 1000"
)
IMAGENET = "--img-size 128 --drop 0.2 --drop-path 0.1 --scale 0.3 1 --color-jitter 0.2"
LITE0, LITE1, OWN = "tf_efficientnet_lite0", "tf_efficientnet_lite1", "test_efficientnet"
MODELS = {LITE0: IMAGENET, LITE1: IMAGENET, OWN: "--img-size 64 --views simclr --scale 0.2 1"}
NORMS = {
    "trained": "--no-freeze-bn",
    "momentum": "--no-freeze-bn --bn-momentum 0.01",
    "frozen": "--freeze-bn",
    "fixed": "--freeze-bn",
}
START = "imagenet-128"  # the label-efficiency study: its tables and its small photographs
ATTRIBUTES = STARTS[START].attributes
TUNING_SEED = 100
RATES = (3e-4, 1e-3, 3e-3)  # tried on the held-out images
# The best rates, in batches of 32; they grow with the root of the batch size. Frozen norms score the same at 1e-3, and
# collapse at 3e-3.
TUNED = {"trained": 3e-3, "momentum": 3e-3, "frozen": 3e-4, "fixed": 3e-4}
PRETRAINED = "--views simclr --scale 0.2 1 -t 0.1 -wls 1 -wlc 0 --lr 3e-3 --warmup-epochs 2 -b 64 --epochs 30"


def main() -> None:
    """Run the missing cells, or print the tables."""
    if sys.argv[1:2] == ["--train-with-fixed-scales"]:
        train_with_fixed_scales(sys.argv[2:])
        return
    args = parse_args()
    if args.report:
        report()
        return
    shrink_photographs(args.data, START)
    for cell in tuning_cells() if args.tune else grid():
        with locked_if_free(WORK / "locks" / cell_name(cell)) as free:
            if free and cell_name(cell) not in map(cell_name, read_cells()):
                weights = {LITE0: args.weights, LITE1: args.lite1, OWN: None}[cell["model"]]
                if cell["model"] == OWN:
                    weights = pretrained(args.data)
                if weights:
                    run_cell(cell, args.data, weights)


def parse_args() -> argparse.Namespace:
    """Return the flags of the command line."""
    parser = command_parser(__doc__)
    parser.add_argument("data", type=Path, help="folder of the Clothing dataset, with train.csv and val.csv")
    parser.add_argument("--weights", type=Path, help="file of ImageNet weights of tf_efficientnet_lite0")
    parser.add_argument("--lite1", type=Path, help="file of ImageNet weights of tf_efficientnet_lite1")
    parser.add_argument("--tune", action="store_true", help="try the learning rates on the held-out images")
    parser.add_argument("--report", action="store_true", help="print the tables, and run nothing")
    return parser.parse_args()


def a_cell(norms: str, **other: Any) -> Cell:
    """Return a cell of the grid, by default with a tenth of the labels."""
    plain: Cell = {"model": LITE0, "fraction": 0.1, "batch": 32, "simclr": False, "photographs": 1920, "seed": 0}
    return plain | {"norms": norms, "lr": TUNED[norms]} | other


def tuning_cells() -> Iterator[Cell]:
    """Yield the cells that choose the learning rate."""
    for rate in RATES:
        for norms in ("trained", "frozen"):
            yield a_cell(norms, lr=rate, seed=TUNING_SEED)


def grid() -> Iterator[Cell]:
    """Yield the cells, the most decisive ones first."""
    both, every = ("trained", "frozen"), tuple(NORMS)
    whole: Cell = {"fraction": 1.0, "photographs": 5760}
    own: Cell = {"model": OWN, "photographs": 19200}
    yield from (a_cell(norms) for norms in both)
    yield from (a_cell(norms, **whole) for norms in both)
    yield from (a_cell(norms, seed=1) for norms in both)
    yield a_cell("trained", **whole, lr=3e-4)
    yield from (a_cell(norms, simclr=True, photographs=960) for norms in both)
    yield a_cell("trained", lr=3e-4)
    yield from (a_cell(norms, **own) for norms in both)
    yield from (a_cell(norms, batch=batch) for batch in (128, 16) for norms in both)
    yield a_cell("fixed")
    yield from (a_cell(norms, fraction=fraction) for fraction in (0.05, 0.25) for norms in both)
    yield from (a_cell(norms, model=LITE1) for norms in both)
    yield from (a_cell(norms, **own, fraction=1.0) for norms in both)
    yield from (a_cell(norms, lr=1e-3) for norms in every)
    yield a_cell("momentum")
    yield from (a_cell(norms, seed=2) for norms in both)
    yield from (a_cell(norms, simclr=True, photographs=960, seed=1) for norms in both)
    yield from (a_cell(norms, batch=64) for norms in both)
    yield from (a_cell(norms, **whole, batch=64) for norms in both)
    yield from (a_cell(norms, **whole, simclr=True) for norms in both)


def pretrained(data: Path) -> Path:
    """Return a checkpoint that SimCLR has trained from scratch on all photographs, whose statistics are its own."""
    folder = WORK / "pretrained"
    with locked(folder.with_suffix(".lock")):
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            words = f"--model {OWN} {COMMON} --img-size 64 {PRETRAINED} --seed 0"
            place = ["--output", f"{folder.parent}", "--experiment", folder.name]
            tables = make_tables(data, START, 1.0, 0)
            call(["train.py", f"{tables}", *words.split(), *place], folder.with_suffix(".log"))
            (folder / "done").touch()
    return folder / "last.pth.tar"


def run_cell(cell: Cell, data: Path, weights: Path) -> None:
    """Train a cell, predict the held-out and the test images, and append the cell to the results."""
    # train
    tables = make_tables(data, START, cell["fraction"], cell["seed"])
    folder = WORK / "runs" / cell_name(cell)
    log = folder.parent / f"{folder.name}.log"
    shutil.rmtree(folder, ignore_errors=True)
    start = ["--initial-checkpoint"] if cell["model"] == OWN else ["--pretrained", "--pretrained-path"]
    words = [f"{tables}", *train_words(cell, tables), *start, f"{weights}"]
    words += ["--output", f"{folder.parent}", "--experiment", folder.name]
    script = ["benchmarks/freeze_bn.py", "--train-with-fixed-scales"] if cell["norms"] == "fixed" else ["train.py"]
    call([*script, *words], log)

    # predict; the test images must not influence the settings
    splits = {"held_out": "val"} if cell["seed"] == TUNING_SEED else {"held_out": "val", "test": "test"}
    rows = {split: read_rows(tables / f"{split}.csv") for split in splits.values()}
    predicted, scores = predict_rows(folder / "last.pth.tar", tables, rows), {}
    for name, split in splits.items():
        scores[name] = round(mean_accuracy(predicted[split], rows[split], ATTRIBUTES), 2)
        for attribute in ATTRIBUTES:
            accuracy = mean_accuracy(predicted[split], rows[split], [attribute])
            scores[f"{name}_{attribute}"] = round(accuracy, 2)

    # save
    shutil.rmtree(folder)
    cell = (
        cell
        | scores
        | {"common": f"{COMMON} {MODELS[cell['model']]}", "commit": head_commit(), "date": f"{date.today()}"}
    )
    with locked(WORK / "results.lock"), RESULTS.open("a") as file:
        file.write(json.dumps(cell) + "\n")
    print(", ".join(f"{name} {cell[name]}" for name in (*KEY, *scores)), flush=True)


def train_words(cell: Cell, tables: Path) -> list[str]:
    """Return a cell's flags for train.py."""
    batch = cell["batch"]
    rate = cell["lr"] * (batch / 32) ** 0.5
    words = f"--model {cell['model']} {COMMON} {MODELS[cell['model']]} {NORMS[cell['norms']]} --train-split labeled"
    words += f" -b {batch} --steps {cell['photographs'] // batch} --lr {rate:.3g} --seed {cell['seed']}"
    if not cell["simclr"]:
        return [*words.split(), "-wls", "0", "-wlc", "1"]
    mixed = [] if cell["fraction"] == 1 else ["--unlabeled", f"{tables / 'train.csv'}", "--unlabeled-ratio", "1"]
    return [*words.split(), "-wls", "0.1", "-wlc", "0.9", "-t", "0.1", *mixed]


def train_with_fixed_scales(words: list[str]) -> None:
    """Train with --freeze-bn, and keep the scales and shifts of the backbone's batch norms too."""
    sys.path.insert(0, f"{ROOT}")
    import train
    from timm.models.batch_norm import batch_norms
    from timm.models.multi_label import MultiLabelModel

    keep = MultiLabelModel.keep_statistics

    def keep_all(self: MultiLabelModel) -> None:
        keep(self)
        for norm in batch_norms(self.backbone):
            norm.requires_grad_(False)

    setattr(MultiLabelModel, "keep_statistics", keep_all)  # noqa: B010  mypy forbids the assignment
    train.main(words)


def cell_name(cell: Cell) -> str:
    """Return a name that is equal for equal cells."""
    return "-".join(f"{cell[name]}" for name in KEY)


def read_cells() -> list[Cell]:
    """Return the finished cells with the current common flags."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return [cell for cell in map(json.loads, lines) if cell["common"] == f"{COMMON} {MODELS[cell['model']]}"]


@contextmanager
def locked_if_free(file: Path) -> Iterator[bool]:
    """Hold a lock and yield True, or yield False if another process holds it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def report() -> None:
    """Print a row for each combination, with the accuracy averaged over its seeds; tuning seeds have no test."""
    names = [name for name in KEY if name != "seed"]
    groups: dict[tuple[Any, ...], list[Cell]] = defaultdict(list)
    for cell in read_cells():
        groups[(cell["seed"] == TUNING_SEED, *(cell[name] for name in names))].append(cell)
    print(f"| {' | '.join(names)} | seeds | held out | test |")
    print("|---" * (len(names) + 3) + "|")
    for (tuning, *values), cells in sorted(groups.items(), key=lambda item: [item[0][0], *map(str, item[0][3:])]):
        seeds = ", ".join(sorted(f"{cell['seed']}" for cell in cells))
        means = [f"{mean(cell[split] for cell in cells):.1f}" for split in ("held_out", "test")[: 2 - tuning]]
        print(f"| {' | '.join(map(str, values))} | {seeds} | {' | '.join([*means, ''][:2])} |")


if __name__ == "__main__":
    run_command(main)
