#!/usr/bin/env python3
"""Measure what SimCLR is worth with few labels: a grid of methods, label fractions and seeds.

    python benchmarks/label_efficiency.py DATA --weights tf_efficientnet_lite0.safetensors --tune    first: settings
    python benchmarks/label_efficiency.py DATA --weights tf_efficientnet_lite0.safetensors           then: the grid
    python benchmarks/label_efficiency.py DATA --report                                              tables and figure

DATA is the Clothing dataset (benchmarks/README.md). Its val.csv is the test split here and has no other use. A fixed
sixth of train.csv is held out for tuning. A cell keeps the labels of a fraction of the other rows; the remaining rows
stay without labels. All methods of a seed keep the same labels and start from the same weights, and a larger fraction
contains the smaller ones. A method's settings are the best of four to six. They are chosen on the held-out images at
one fraction, with a seed that the grid does not use. The last epoch counts; no epoch is chosen.

A finished cell is a line of benchmarks/results/label-efficiency.jsonl, with its predictions for the test images in
label-efficiency.npz. Finished cells do not run again: stop the grid and resume it at any time, or run several at once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date
from pathlib import Path
from threading import Event, Lock, Semaphore

from command import command_parser, run_command
from label_efficiency_cells import (
    ATTRIBUTES,
    COMMON,
    FRACTIONS,
    METHODS,
    MODELS,
    ROOT,
    STARTS,
    TUNING_FRACTION,
    TUNING_SEEDS,
    VARIANTS,
    WORK,
    Cell,
    Row,
    best_setting,
    cell_key,
    common,
    describe_cell,
    locked,
    read_cells,
    read_rows,
    save_cell,
)
from label_efficiency_data import make_tables, shrink_photographs

_tables_lock = Lock()
_slots = Semaphore()
_stopping = Event()


def main() -> None:
    """Run the missing cells of the grid or of the tuning, or write the report."""
    args = parse_args()
    if args.report:
        from label_efficiency_report import report

        report(args.data)
        return
    shrink_photographs(args.data)
    finished = read_cells()
    cells = tuning_cells(args) if args.tune else grid_cells(args, finished)
    done = {cell_key(cell) for cell in finished}
    missing = [cell for cell in cells if cell_key(cell) not in done]
    print(f"{len(cells)} cells, {len(cells) - len(missing)} finished", flush=True)
    run_cells(missing, args)


def run_cells(cells: list[Cell], args: argparse.Namespace) -> None:
    """Run cells, --jobs stages at a time, and print each cell's held-out accuracy."""
    global _slots
    _slots = Semaphore(args.jobs)
    with ThreadPoolExecutor(16) as pool:  # more threads than jobs, since some wait for a stage that another cell trains
        try:
            for future in as_completed([pool.submit(run_cell, cell, args) for cell in cells]):
                cell = future.result()
                print(f"{describe_cell(cell)}: held-out images {cell['held_out']:.2f}", flush=True)
        except BaseException:  # start nothing new; a running stage finishes unless it was interrupted too
            _stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def parse_args() -> argparse.Namespace:
    """Return the flags of the command line."""
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("data", type=Path, help="folder of the Clothing dataset, with train.csv and val.csv")
    add("--weights", type=Path, help="file of ImageNet weights of tf_efficientnet_lite0, for that start")
    add("--start", nargs="+", choices=STARTS, default=STARTS, help="initial weights (default: both)")
    methods = [*METHODS, *VARIANTS]
    add("--method", nargs="+", choices=methods, default=list(METHODS), help="methods (default: all but the variants)")
    add("--fraction", nargs="+", type=float, default=FRACTIONS, help="label fractions, 0-1 (default: %(default)s)")
    add("--seeds", type=int, default=5, help="number of seeds (default: %(default)s)")
    add("--tune", action="store_true", help="try each method's settings on the held-out images")
    add("--jobs", type=int, default=2, help="stages that train at a time, one thread each (default: %(default)s)")
    add("--report", action="store_true", help="write the tables and the figure, and run nothing")
    args = parser.parse_args()
    if "imagenet" in args.start and not (args.report or args.weights):
        parser.error("the start from ImageNet needs --weights FILE; --start scratch leaves it out")
    return args


def grid_cells(args: argparse.Namespace, finished: list[Cell]) -> list[Cell]:
    """Return the grid's cells seed by seed, so that an unfinished grid is a smaller grid."""
    best = {(start, method): best_setting(start, method, finished) for start in args.start for method in args.method}
    return [
        {"start": start, "method": method, "fraction": fraction, "seed": seed, "stages": best[start, method]}
        for seed in range(args.seeds)
        for fraction in args.fraction
        for start in args.start
        for method in args.method
    ]


def tuning_cells(args: argparse.Namespace) -> list[Cell]:
    """Return the cells that compare each method's settings."""
    return [
        {"start": start, "method": method, "fraction": TUNING_FRACTION, "seed": seed, "stages": setting}
        for seed in TUNING_SEEDS
        for start in args.start
        for method in args.method
        if method in METHODS  # variants have no settings of their own
        for setting in METHODS[method][start]
    ]


def run_cell(cell: Cell, args: argparse.Namespace) -> Cell:
    """Train a cell's stages, predict the held-out and the test images, and append the cell to the results."""
    # train
    with _tables_lock:  # cells of other methods read the same tables
        tables = make_tables(args.data, cell["fraction"], cell["seed"])
    checkpoint = None
    for index in range(len(cell["stages"])):
        checkpoint = run_stage(cell, index, checkpoint, tables, args)
    assert checkpoint is not None

    # predict
    cell = cell | {"held_out": mean_accuracy(predict(checkpoint, tables / "val.csv"), read_rows(tables / "val.csv"))}
    predicted = None
    if cell["seed"] not in TUNING_SEEDS:  # the test images must not influence the settings
        test = predict(checkpoint, tables / "test.csv")
        predicted = {name: [row[name] for row in test] for name in ATTRIBUTES}
    trained_by = (checkpoint.parent / "done").read_text()
    cell |= {"common": common(cell["start"]), "commit": trained_by, "date": f"{date.today()}"}
    save_cell(cell, predicted)
    return cell


def run_stage(cell: Cell, index: int, checkpoint: Path | None, tables: Path, args: argparse.Namespace) -> Path:
    """Train one stage unless another cell has trained the same stage; return its checkpoint."""
    stages = cell["stages"][: index + 1]
    folder = stage_folder(cell, stages)
    with locked(folder.with_suffix(".lock")) as lock:
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            flags = [*COMMON.split(), *MODELS[cell["start"]].split(), *train_flags(stages[-1], tables)]
            flags += ["--seed", f"{cell['seed']}"]
            if checkpoint:
                flags += ["--initial-checkpoint", f"{checkpoint}"]
            elif cell["start"] == "imagenet":
                flags += ["--pretrained", "--pretrained-path", f"{args.weights}"]
            place = ["--output", f"{folder.parent}", "--experiment", folder.name]
            with _slots:  # predicting is short and takes no slot
                call("train.py", [f"{tables}", *flags, *place], folder.with_suffix(".log"), lock)
            for other in [*folder.glob("checkpoint-*"), *folder.glob("model_best*")]:
                other.unlink()
            (folder / "done").write_text(commit())
    return folder / "last.pth.tar"


def stage_folder(cell: Cell, stages: list[str]) -> Path:
    """Return the folder of the last of these stages of a cell."""
    # Pretraining reads no label, so all fractions of a seed share it.
    labels = "no labels" if all(re.search(r"-wlc 0(?!\S)", stage) for stage in stages) else f"{cell['fraction']:g}"
    what = json.dumps([cell["start"], labels, cell["seed"], COMMON, MODELS[cell["start"]], stages])
    return WORK / "runs" / hashlib.sha256(what.encode()).hexdigest()[:16]


def train_flags(stage: str, tables: Path) -> list[str]:
    """Return a stage's flags for train.py: --steps becomes --epochs, and --unlabeled names the rows without labels."""
    # the study's own flags, and those that it must read
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--unlabeled-ratio", type=int, default=0)
    parser.add_argument("-b", type=int)
    parser.add_argument("--train-split", default="train")
    known, flags = parser.parse_known_args(stage.split())

    # the flags of train.py
    rows, all_rows = (len(read_rows(tables / f"{name}.csv")) for name in (known.train_split, "train"))
    if known.unlabeled_ratio and rows < all_rows:
        flags += ["--unlabeled", f"{tables / 'train.csv'}", "--unlabeled-ratio", f"{known.unlabeled_ratio}"]
    if not re.search(r"-wl[sc] 0(?!\S)|--classify-view", stage):
        flags += ["--classify-view", "first"]  # the study's default; train.py's is both
    epochs = max(3, round(known.times * known.steps / max(1, rows // known.b)))
    if epochs < 20:  # two warmup epochs would be a large share
        flags += ["--warmup-epochs", f"{epochs // 6}"]
    return [*flags, "--train-split", known.train_split, "-b", f"{known.b}", "--epochs", f"{epochs}"]


def predict(checkpoint: Path, table: Path) -> list[Row]:
    """Return the predicted class of each attribute for each row of a table."""
    output = checkpoint.parent / f"{table.stem}-predictions.csv"
    flags = [f"{table}", "--checkpoint", f"{checkpoint}", "-o", f"{output}", "-j", "1", "-b", "128"]
    call("inference.py", flags, output.with_suffix(".log"))
    return read_rows(output)


def call(script: str, arguments: list[str], log: Path, *inherited: int) -> None:
    """Run a script of the repository root on one thread; if it fails, stop with the end of its log.

    Args:
        script: file name.
        arguments: words of its command line.
        log: file for its output.
        inherited: descriptors of files that the script keeps open.
    """
    if _stopping.is_set():
        raise SystemExit("stopping")
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with log.open("w") as file:
        done = subprocess.run(
            [sys.executable, script, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=inherited,
        )
    if done.returncode:
        raise SystemExit(f"{script} {' '.join(arguments)} failed:\n{log.read_text()[-2000:]}")


def mean_accuracy(predicted: list[Row], rows: list[Row]) -> float:
    """Return the accuracy on the labeled rows, averaged over the attributes, in percent."""
    accuracies = []
    for name in ATTRIBUTES:
        right = [a[name] == b[name] for a, b in zip(predicted, rows, strict=True) if b[name]]
        accuracies.append(100 * sum(right) / len(right))
    return sum(accuracies) / len(accuracies)


def commit() -> str:
    """Return the hash of the commit that is checked out."""
    return subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip()


if __name__ == "__main__":
    run_command(main)
