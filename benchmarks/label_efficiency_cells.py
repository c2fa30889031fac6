"""The cells of the label-efficiency study, and the files that hold their results.

A cell is one combination of start, method, fraction of labels and seed. label_efficiency_settings.py has the stages
that a method may have.

A start's results are two files: the `.jsonl` has a line for each finished cell, the `.npz` the cells' predictions for
the test images, as one byte an image and attribute. Both grow by one entry when a cell finishes.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from label_efficiency_settings import METHODS, STARTS, TUNING_SEEDS, VARIANTS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "output" / "label-efficiency"
ORIGINAL = "original"  # subfolder of a cell's tables that name the photographs instead of their small copies

Cell = dict[str, Any]
Row = dict[str, str]
Predictions = dict[str, list[str]]  # attribute -> the predicted class of each test image


def best_setting(start: str, method: str, finished: list[Cell]) -> list[str]:
    """Return the stages with the highest accuracy on the held-out images, averaged over the tuning seeds."""
    start = STARTS[start].tuned_on or start
    if method in VARIANTS:
        base, added = VARIANTS[method]
        *earlier, last = best_setting(start, base, finished)
        return [*earlier, last, added] if added.split()[0].endswith(".py") else [*earlier, f"{last} {added}"]
    settings = METHODS[method][start]
    if len(settings) == 1:
        return settings[0]
    scores = tuning_scores(start, method, finished)
    if len(scores) < len(settings):
        sys.exit(f"{start}, {method}: {len(settings) - len(scores)} settings are not tuned yet; run with --tune first")
    return list(max(scores.items(), key=lambda item: item[1])[0])


def tuning_scores(start: str, method: str, finished: list[Cell]) -> dict[tuple[str, ...], float]:
    """Return the mean held-out accuracy of each setting that has finished with every tuning seed."""
    found: dict[tuple[str, ...], dict[int, float]] = {tuple(stages): {} for stages in METHODS[method][start]}
    for cell in finished:
        stages = tuple(cell["stages"])
        if (cell["start"], cell["method"]) == (start, method) and cell["seed"] in TUNING_SEEDS and stages in found:
            found[stages][cell["seed"]] = cell["held_out"]
    return {
        stages: sum(scores.values()) / len(scores)
        for stages, scores in found.items()
        if len(scores) == len(TUNING_SEEDS)
    }


def common(start: str) -> str:
    """Return the settings that all cells of a start share."""
    return f"{STARTS[start].flags}, photographs of {STARTS[start].short_side} pixels"


def cell_key(cell: Cell) -> str:
    """Return a text that is equal for equal cells."""
    return json.dumps([cell[name] for name in ("start", "method", "fraction", "seed", "stages")])


def describe_cell(cell: Cell) -> str:
    """Return a cell's start, method, fraction and seed in words."""
    return f"{cell['start']}, {cell['method']}, {cell['fraction']:g} of the labels, seed {cell['seed']}"


def results_file(start: str) -> Path:
    """Return the file with a line for each finished cell of a start."""
    return RESULTS / f"{STARTS[start].results}.jsonl"


def read_cells() -> list[Cell]:
    """Return the finished cells of all starts whose common settings are the current ones."""
    cells = []
    for file in dict.fromkeys(map(results_file, STARTS)):
        for number, line in enumerate(file.read_text().splitlines() if file.exists() else [], 1):
            try:
                cells.append(json.loads(line))
            except json.JSONDecodeError:
                sys.exit(f"{file} line {number} is cut off: delete it")
    return [cell for cell in cells if cell["start"] in STARTS and cell.get("common") == common(cell["start"])]


def save_cell(cell: Cell, predicted: Predictions | None = None) -> None:
    """Append a finished cell to the results.

    Args:
        cell: the cell with its figures.
        predicted: its predictions for the test images; None for a tuning cell, which never reads them.
    """
    file = results_file(cell["start"])
    with locked(WORK / "results.lock"):
        if predicted is not None:  # first: a line without predictions could not be reported
            store = file.with_suffix(".npz")
            _write_predictions(store, _read_store(store) | {_digest(cell): predicted})
        with file.open("a") as lines:
            lines.write(json.dumps(cell) + "\n")


def predictions_of(cell: Cell, stored: dict[str, Predictions]) -> Predictions:
    """Return a cell's predictions for the test images.

    Args:
        cell: a finished cell of the grid.
        stored: the result of `read_predictions`.
    """
    found = stored.get(_digest(cell))
    if found is None:
        file = results_file(cell["start"])
        sys.exit(f"{file.stem}.npz has no predictions for {describe_cell(cell)}: delete its line in {file.name}")
    return found


def read_predictions() -> dict[str, Predictions]:
    """Return the stored predictions of all starts, by the digest of their cell."""
    found: dict[str, Predictions] = {}
    for file in dict.fromkeys(map(results_file, STARTS)):
        found |= _read_store(file.with_suffix(".npz"))
    return found


def _read_store(store: Path) -> dict[str, Predictions]:
    if not store.exists():
        return {}
    with np.load(store) as arrays:
        names = [name.removesuffix("_classes") for name in arrays if name.endswith("_classes")]
        columns = {name: arrays[f"{name}_classes"][arrays[name]].tolist() for name in names}  # each [cells, N]
        digests = arrays["cells"].tolist()
    return {digest: {name: columns[name][row] for name in names} for row, digest in enumerate(digests)}


def _write_predictions(store: Path, predictions: dict[str, Predictions]) -> None:
    """Write all predictions: class names once, then one byte an image."""
    arrays: dict[str, Any] = {"cells": np.array(list(predictions))}
    for name in next(iter(predictions.values())):
        table = np.array([predicted[name] for predicted in predictions.values()])  # [cells, N]
        classes, indices = np.unique(table, return_inverse=True)
        arrays |= {f"{name}_classes": classes, name: indices.reshape(table.shape).astype(np.uint8)}
    partial = store.with_suffix(f".{os.getpid()}.npz")
    np.savez_compressed(partial, **arrays)
    partial.replace(store)


def _digest(cell: Cell) -> str:
    return hashlib.sha256(f"{cell_key(cell)} {cell['common']}".encode()).hexdigest()[:16]


@contextmanager
def locked(file: Path) -> Iterator[int]:
    """Hold a lock among threads and processes; yield its descriptor. A child that inherits it keeps the lock."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield opened.fileno()


def read_rows(file: Path) -> list[Row]:
    """Return the rows of a CSV file."""
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))
