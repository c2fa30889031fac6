#!/usr/bin/env python3
"""Measure what each way to learn is worth with few labels: a grid of starts, methods, label fractions and seeds.

    python benchmarks/label_efficiency.py DATA --weights tf_efficientnet_lite0.safetensors --tune    first: settings
    python benchmarks/label_efficiency.py DATA --weights tf_efficientnet_lite0.safetensors           then: the grid
    python benchmarks/label_efficiency.py DATA --report                                              tables and figure

DATA is the Clothing dataset (benchmarks/README.md) or the one of benchmarks/solar_cells.py. Its val.csv is the test
split here and has no other use. A fixed sixth of train.csv is held out for tuning. A cell keeps the labels of a
fraction of the other rows; the remaining rows stay without labels. All methods of a seed keep the same labels and
start from the same weights, and a larger fraction contains the smaller ones. A method's settings are the best of four
to six. They are chosen on the held-out images at one fraction, with a seed that the grid does not use. The last epoch
counts; no epoch is chosen.

A finished cell is a line of a .jsonl file under benchmarks/results, with its predictions for the test images in the
.npz file beside it. Finished cells do not run again: stop the grid and resume it at any time, or run several at once.
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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date
from pathlib import Path
from threading import Event, Lock, Semaphore
from typing import Any

from command import command_parser, head_commit, run_command
from label_efficiency_cells import (
    ROOT,
    WORK,
    Cell,
    Row,
    best_setting,
    cell_key,
    describe_cell,
    locked,
    read_cells,
    read_rows,
    save_cell,
)
from label_efficiency_cells import common as common_settings
from label_efficiency_data import dataset_starts, make_tables, shrink_photographs
from label_efficiency_settings import FRACTIONS, METHODS, STARTS, TUNING_FRACTION, TUNING_SEEDS, VARIANTS, methods_of
from label_efficiency_stages import Place, command, predict, tables_of

_tables_lock = Lock()
_slots = Semaphore()
_stopping = Event()


def main() -> None:
    """Run the missing cells of the grid or of the tuning, or write the report."""
    args = parse_args()
    if args.report:
        from label_efficiency_report import report

        report(args.data, args.start)
        return
    for start in args.start:
        shrink_photographs(args.data, start)
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
    add("data", type=Path, help="folder of the dataset, with train.csv and val.csv")
    add("--weights", type=Path, help="file of ImageNet weights of tf_efficientnet_lite0, for the starts from them")
    add("--start", nargs="+", choices=STARTS, help="where to begin (default: all starts of the dataset)")
    methods = [*METHODS, *VARIANTS]
    add("--method", nargs="+", choices=methods, metavar="NAME", help="methods (default: all but the variants)")
    add("--fraction", nargs="+", type=float, default=FRACTIONS, help="label fractions, 0-1 (default: %(default)s)")
    add("--seeds", type=int, default=5, help="number of seeds (default: %(default)s)")
    add("--tune", action="store_true", help="try each method's settings on the held-out images")
    add("--jobs", type=int, default=2, help="stages that train at a time, one thread each (default: %(default)s)")
    add("--report", action="store_true", help="write the tables and the figure, and run nothing")
    args = parser.parse_args()
    fitting = dataset_starts(args.data)
    if wrong := [start for start in args.start or () if start not in fitting]:
        parser.error(f"{args.data / 'train.csv'} has not the attributes of {wrong[0]}; it fits {' and '.join(fitting)}")
    args.start = args.start or fitting
    pretrained = [start for start in args.start if STARTS[start].pretrained]
    if pretrained and not (args.report or args.weights):
        parser.error(f"{pretrained[0]} needs --weights FILE; --start scratch needs none")
    return args


def grid_cells(args: argparse.Namespace, finished: list[Cell]) -> list[Cell]:
    """Return the grid's cells seed by seed, so that an unfinished grid is a smaller grid."""
    pairs = [(start, method) for start in args.start for method in methods_of(start, args.method)]
    best = {pair: best_setting(*pair, finished) for pair in pairs}
    return [
        {"start": start, "method": method, "fraction": fraction, "seed": seed, "stages": best[start, method]}
        for seed in range(args.seeds)
        for fraction in args.fraction
        for start, method in pairs
        if fraction < 1 or not labels_cells(best[start, method])  # with all labels there is nothing to label
    ]


def labels_cells(stages: list[str]) -> bool:
    """Return whether a method learns from labels that a model gives."""
    return any("--pseudo" in stage for stage in stages)


def tuning_cells(args: argparse.Namespace) -> list[Cell]:
    """Return the cells that compare each method's settings."""
    return [
        {"start": start, "method": method, "fraction": TUNING_FRACTION, "seed": seed, "stages": setting}
        for seed in TUNING_SEEDS
        for start in args.start
        if STARTS[start].tuned_on is None
        for method in methods_of(start, args.method)
        if method in METHODS and len(METHODS[method][start]) > 1  # variants have no settings of their own
        for setting in METHODS[method][start]
    ]


def run_cell(cell: Cell, args: argparse.Namespace) -> Cell:
    """Run a cell's stages, predict the held-out and the test images, and append the cell to the results."""
    # stages
    with _tables_lock:  # cells of other methods read the same tables
        tables = make_tables(args.data, cell["start"], cell["fraction"], cell["seed"])
    product, costs = None, []
    for index in range(len(cell["stages"])):
        product, cost = run_stage(cell, index, product, tables, args)
        costs.append(cost)
    assert product is not None

    # predictions: the test images must not influence the settings
    names = ["val"] if cell["seed"] in TUNING_SEEDS else ["val", "test"]
    splits = {name: read_rows(tables / f"{name}.csv") for name in names}
    predicted = predict_rows(product, tables_of(cell["stages"][-1], tables), splits)
    attributes = STARTS[cell["start"]].attributes
    cell = cell | {"held_out": mean_accuracy(predicted["val"], splits["val"], attributes)}
    test = {name: [row[name] for row in predicted["test"]] for name in attributes} if "test" in splits else None

    # results
    cell |= {name: round(sum(cost[name] for cost in costs), 2) for name in ("minutes", "trained", "scored")}
    cell |= {"common": common_settings(cell["start"]), "commit": costs[-1]["commit"], "date": f"{date.today()}"}
    save_cell(cell, test)
    return cell


def run_stage(
    cell: Cell, index: int, product: Path | None, tables: Path, args: argparse.Namespace
) -> tuple[Path, dict[str, Any]]:
    """Run one stage unless another cell has run the same stage; return what it leaves, and its cost."""
    stages = cell["stages"][: index + 1]
    folder = stage_folder(cell, stages)
    place = Place(cell["start"], cell["seed"], args.data, tables, folder, args.weights, product)
    stage = command(stages[-1], place)
    done = folder / "done.json"
    with locked(folder.with_suffix(".lock")) as lock:
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            if stage.words[0] != "train.py":  # which makes its folder, and another one if that exists
                folder.mkdir(parents=True)
            with _slots:  # predicting is short and takes no slot
                seconds = call(stage.words, folder.with_suffix(".log"), lock)
            for other in [*folder.glob("checkpoint-*"), *folder.glob("model_best*")]:
                other.unlink()
            if (own := folder / "cost.json").exists():  # the stage knows its cost better: other cells share a part
                seconds = json.loads(own.read_text())["seconds"]
            cost = {"minutes": seconds / 60, "trained": stage.trained, "scored": stage.scored, "commit": head_commit()}
            done.write_text(json.dumps(cost))
    return stage.product, json.loads(done.read_text())


def stage_folder(cell: Cell, stages: list[str]) -> Path:
    """Return the folder of the last of these stages of a cell."""
    # Pretraining reads no label, so all fractions of a seed share it.
    labels = "no labels" if all(re.search(r"-wlc 0(?!\S)", stage) for stage in stages) else f"{cell['fraction']:g}"
    # Logistic regression draws nothing: with all labels, its seeds are one.
    seed = None if cell["fraction"] == 1 and stages[0].startswith("logistic_regression.py") else cell["seed"]
    what = json.dumps([cell["start"], labels, seed, STARTS[cell["start"]].flags, stages])
    return WORK / "runs" / hashlib.sha256(what.encode()).hexdigest()[:16]


def predict_rows(product: Path, tables: Path, splits: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Return the predicted class of each attribute for each row of the splits.

    Args:
        product: a checkpoint, or a folder that has the predictions already.
        tables: folder of the cell's tables.
        splits: rows of each split by its name.
    """
    if product.is_dir():
        return {name: read_rows(product / f"{name}-predictions.csv") for name in splits}
    words, output = predict(product, tables, list(splits))
    call(words, output.with_suffix(".log"))
    rows = iter(read_rows(output))
    return {name: [next(rows) for _ in split] for name, split in splits.items()}


def call(words: list[str], log: Path, *inherited: int) -> float:
    """Run a script on one thread and return its CPU time in seconds; if it fails, stop with the end of its log.

    Args:
        words: the script, relative to the repository root, and its arguments.
        log: file for its output.
        inherited: descriptors of files that the script keeps open.
    """
    if _stopping.is_set():
        raise SystemExit("stopping")
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=inherited,
        )
        _, status, usage = os.wait4(process.pid, 0)  # with the processes that it waited for, its loaders among them
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{log.read_text()[-2000:]}")
    return usage.ru_utime + usage.ru_stime


def mean_accuracy(predicted: list[Row], rows: list[Row], attributes: Sequence[str]) -> float:
    """Return the accuracy on the labeled rows, averaged over the attributes, in percent."""
    accuracies = []
    for name in attributes:
        right = [a[name] == b[name] for a, b in zip(predicted, rows, strict=True) if b[name]]
        accuracies.append(100 * sum(right) / len(right))
    return sum(accuracies) / len(accuracies)


if __name__ == "__main__":
    run_command(main)
