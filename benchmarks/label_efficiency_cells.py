"""The cells of the label-efficiency study: their settings, and the files that hold their results.

A cell is one combination of start, method, fraction of labels and seed. A method has four to six settings; a setting
is a list of stages, and a stage is the flags of one call of train.py.

`label-efficiency.jsonl` has a line for each finished cell. `label-efficiency.npz` has the cells' predictions for the
test images, as one byte an image and attribute. Both grow by one entry when a cell finishes.
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

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "label-efficiency.jsonl"
WORK = ROOT / "output" / "label-efficiency"

ATTRIBUTES = ("article", "kids")
FRACTIONS = [0.05, 0.1, 0.25, 1.0]
STARTS = ["scratch", "imagenet"]
TUNING_FRACTION = 0.1
TUNING_SEEDS = (100,)
SHORT_SIDE = 80  # pixels: the photographs shrink to the size of a small catalog's

COMMON = (
    "--img-size 64 --opt adamw --weight-decay 0.05 --sched cosine --warmup-epochs 2 --warmup-lr 1e-6 --min-lr 1e-6 "
    "--cooldown-epochs 0 --clip-grad 5 --views simclr -j 1 --val-interval 1000 --checkpoint-hist 1 --knn-interval 0 "
    "--log-interval 1000 --use-multi-epochs-loader"
)
MODELS = {
    "scratch": "--model test_efficientnet",
    "imagenet": "--model tf_efficientnet_lite0 --drop 0.2 --drop-path 0.1",
}
CROPS = "--scale 0.2 1"  # SimCLR's views with a larger minimum crop
MILD = f"--view-strength 0.5 {CROPS}"
LIGHT = "--views timm --scale 0.3 1 --color-jitter 0.2"
LABELS = "--train-split labeled"  # train on the labeled rows only

# A variant is a method's best setting with one more flag in its last stage. It has no tuning of its own.
VARIANTS = {
    "classification for long": ("classification", "--times 3"),
    "pretrain and fine-tune for long": ("pretrain for long, fine-tune", "--times 3"),
    "joint, both views": ("joint", "--classify-view both"),
    "joint, weak view": ("joint", "--classify-view weak"),
}

Cell = dict[str, Any]
Row = dict[str, str]
Settings = dict[str, dict[str, list[list[str]]]]  # method -> start -> settings, each a list of stages
Predictions = dict[str, list[str]]  # attribute -> the predicted class of each test image


def _settings() -> Settings:
    """Return the settings to try for each method and start, four to six each.

    A stage holds the flags that one call of train.py adds to COMMON. Each later stage starts from the checkpoint of
    the stage before it. Two flags belong to the study and not to train.py: --steps, which becomes as many epochs as
    make about that many steps, and --times, which multiplies the epochs.
    """
    found: Settings = {}
    for start, steps, pretraining, rates, gentle in (
        ("scratch", 1620, 4600, (1e-3, 3e-3, 1e-2), ""),
        ("imagenet", 270, 450, (5e-4, 1e-3, 2e-3), LIGHT),
    ):
        # stages
        alone = f"{LABELS} -b 32 -wls 0 -wlc 1 --steps {steps}"
        supervised = [f"{alone} --lr {rate:g} {views}".rstrip() for rate in rates for views in (MILD, gentle)]
        pretrained, long = (
            f"-b 64 -wls 1 -wlc 0 --lr {rates[1]:g} -t 0.1 --steps {many} {CROPS}"
            for many in (pretraining, 3 * pretraining)
        )
        probe = f"{LABELS} -b 32 --freeze-backbone --no-aug --views timm -wls 0 -wlc 1 --steps {steps}"
        mixed = f"{LABELS} -b 32 --unlabeled-ratio 1 -t 0.1 --steps {steps} --lr {rates[1]:g}"
        joint = [
            f"{mixed} -wls {weight:g} -wlc {1 - weight:g} {views}" for weight in (0.5, 0.1) for views in (MILD, CROPS)
        ]

        # methods
        settings = {
            "classification": [[stage] for stage in supervised],
            "pretrain, fine-tune": [[pretrained, stage] for stage in supervised],
            "pretrain for long, fine-tune": [[long, stage] for stage in supervised],
            "pretrain with DCL, fine-tune": [[f"{pretrained} --contrastive dcl", stage] for stage in supervised],
            "pretrain, joint": [[pretrained, stage] for stage in joint],
            "pretrain, joint SupCon": [[pretrained, f"{stage} --contrastive supcon"] for stage in joint],
            "pretrain, probe": [[pretrained, f"{probe} --lr {rate}"] for rate in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)],
            "joint": [[stage] for stage in joint],
            "joint, SupCon": [[f"{stage} --contrastive supcon"] for stage in joint],
            "joint, masked": [[f"{stage} --mask-false-negatives"] for stage in joint],
        }
        for method, tried in settings.items():
            found.setdefault(method, {})[start] = tried
    return found


METHODS = _settings()


def best_setting(start: str, method: str, finished: list[Cell]) -> list[str]:
    """Return the stages with the highest accuracy on the held-out images, averaged over the tuning seeds."""
    if method in VARIANTS:
        base, flags = VARIANTS[method]
        *earlier, last = best_setting(start, base, finished)
        return [*earlier, f"{last} {flags}"]
    scores, settings = tuning_scores(start, method, finished), METHODS[method][start]
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
    return f"{MODELS[start]} {COMMON}, photographs of {SHORT_SIDE} pixels"


def cell_key(cell: Cell) -> str:
    """Return a text that is equal for equal cells."""
    return json.dumps([cell[name] for name in ("start", "method", "fraction", "seed", "stages")])


def describe_cell(cell: Cell) -> str:
    """Return a cell's start, method, fraction and seed in words."""
    return f"{cell['start']}, {cell['method']}, {cell['fraction']:g} of the labels, seed {cell['seed']}"


def read_cells() -> list[Cell]:
    """Return the finished cells whose common settings are the current ones."""
    cells = []
    for number, line in enumerate(RESULTS.read_text().splitlines() if RESULTS.exists() else [], 1):
        try:
            cells.append(json.loads(line))
        except json.JSONDecodeError:
            sys.exit(f"{RESULTS} line {number} is cut off: delete it")
    return [cell for cell in cells if cell.get("common") == common(cell["start"])]


def save_cell(cell: Cell, predicted: Predictions | None = None) -> None:
    """Append a finished cell to the results.

    Args:
        cell: the cell with its figures.
        predicted: its predictions for the test images; None for a tuning cell, which never reads them.
    """
    with locked(WORK / "results.lock"):
        if predicted is not None:  # first: a line without predictions could not be reported
            _write_predictions(read_predictions() | {_digest(cell): predicted})
        with RESULTS.open("a") as file:
            file.write(json.dumps(cell) + "\n")


def predictions_of(cell: Cell, stored: dict[str, Predictions]) -> Predictions:
    """Return a cell's predictions for the test images.

    Args:
        cell: a finished cell of the grid.
        stored: the result of `read_predictions`.
    """
    found = stored.get(_digest(cell))
    if found is None:
        sys.exit(f"{_store().name} has no predictions for {describe_cell(cell)}: delete its line in {RESULTS.name}")
    return found


def read_predictions() -> dict[str, Predictions]:
    """Return the stored predictions, by the digest of their cell."""
    if not _store().exists():
        return {}
    with np.load(_store()) as arrays:
        classes = {name: arrays[f"{name}_classes"] for name in ATTRIBUTES}
        columns = {name: classes[name][arrays[name]].tolist() for name in ATTRIBUTES}  # each [cells, N]
        digests = arrays["cells"].tolist()
    return {digest: {name: columns[name][row] for name in ATTRIBUTES} for row, digest in enumerate(digests)}


def _write_predictions(predictions: dict[str, Predictions]) -> None:
    """Write all predictions: class names once, then one byte an image."""
    arrays: dict[str, Any] = {"cells": np.array(list(predictions))}
    for name in ATTRIBUTES:
        table = np.array([predicted[name] for predicted in predictions.values()])  # [cells, N]
        classes, indices = np.unique(table, return_inverse=True)
        arrays |= {f"{name}_classes": classes, name: indices.reshape(table.shape).astype(np.uint8)}
    partial = _store().with_suffix(f".{os.getpid()}.npz")
    np.savez_compressed(partial, **arrays)
    partial.replace(_store())


def _store() -> Path:
    return RESULTS.with_suffix(".npz")


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
