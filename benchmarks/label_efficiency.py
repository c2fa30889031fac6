#!/usr/bin/env python3
"""What SimCLR is worth where labels are scarce: a grid of methods, label fractions and seeds, and the report on it.

    python benchmarks/label_efficiency.py DATA --weights tf_efficientnet_lite0.safetensors --tune    first: settings
    python benchmarks/label_efficiency.py DATA --weights tf_efficientnet_lite0.safetensors           then: the grid
    python benchmarks/label_efficiency.py DATA --report                                              tables and figure

DATA is the Clothing dataset (README: measured), whose val.csv is the test split here and is used for nothing else. Of
train.csv a fixed sixth is held out for tuning. Each cell of the grid keeps the labels of a fraction of the rest, the
same rows for every method of a seed (and those of a smaller fraction among them); all other rows stay, unlabeled.
Methods of a seed also start from the same weights. Each method's settings are the best of four to six by the held-out
images at one fraction, with a seed that the grid does not use; the last epoch counts, none is chosen.

A finished cell is a line of benchmarks/results/label-efficiency.jsonl, with its prediction for every test image; what
is there is not run again, so that the grid can be stopped and gone on with at any time, and several may run at once.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from threading import Event, Lock, Semaphore
from typing import Any

from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "label-efficiency.jsonl"
WORK = ROOT / "output" / "label-efficiency"

ATTRIBUTES = ("article", "kids")
FRACTIONS = [0.05, 0.1, 0.25, 1.0]
STARTS = ["scratch", "imagenet"]
TUNING_FRACTION = 0.1
TUNING_SEEDS = (100,)
SHORT_SIDE = 80  # pixels: the photographs are shrunk to the size of a small catalog's

COMMON = (
    "--img-size 64 --opt adamw --weight-decay 0.05 --sched cosine --warmup-epochs 2 --warmup-lr 1e-6 --min-lr 1e-6 "
    "--cooldown-epochs 0 --clip-grad 5 --views simclr -j 1 --val-interval 1000 --checkpoint-hist 1 --knn-interval 0 "
    "--log-interval 1000 --use-multi-epochs-loader"
)
MODELS = {
    "scratch": "--model test_efficientnet",
    "imagenet": "--model tf_efficientnet_lite0 --drop 0.2 --drop-path 0.1",
}
CROPS = "--scale 0.2 1"  # SimCLR's views, with crops that are not quite as small
MILD = f"--view-strength 0.5 {CROPS}"
LIGHT = "--views timm --scale 0.3 1 --color-jitter 0.2"
LABELS = "--train-split labeled"  # the rows with labels alone

# A method's best setting with one more flag in its last stage, and no tuning of its own: more steps with labels, and
# what the heads could read.
VARIANTS = {
    "classification for long": ("classification", "--times 3"),
    "pretrain and fine-tune for long": ("pretrain for long, fine-tune", "--times 3"),
    "joint, both views": ("joint", "--classify-view both"),
    "joint, weak view": ("joint", "--classify-view weak"),
}


def _settings() -> dict[str, dict[str, list[list[str]]]]:
    """Return by method and start the settings that are tried, four to six of each.

    Of a setting its stages: what each call of train.py adds to COMMON. A stage after the first starts from the
    checkpoint of the one before it. --steps is not of train.py: the epochs are as many as make about so many steps,
    whatever the fraction of labels; nor is --times, which multiplies them.
    """
    found: dict[str, dict[str, list[list[str]]]] = {}
    for start, steps, pretraining, rates, gentle in (
        ("scratch", 1620, 4600, (1e-3, 3e-3, 1e-2), ""),
        ("imagenet", 270, 450, (5e-4, 1e-3, 2e-3), LIGHT),
    ):
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

Cell = dict[str, Any]
Row = dict[str, str]

_results_lock = Lock()
_tables_lock = Lock()
_slots = Semaphore()
_stopping = Event()


def main() -> None:
    """Run what is missing of the grid or of the tuning, or write the report."""
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
    print(f"{len(cells)} cells, {len(cells) - len(missing)} of them done", flush=True)
    global _slots
    _slots = Semaphore(args.jobs)
    with ThreadPoolExecutor(16) as pool:  # more than run at a time: some wait for a stage that another one trains
        try:
            for future in as_completed([pool.submit(run_cell, cell, args) for cell in missing]):
                cell = future.result()
                what = f"{cell['start']}, {cell['method']}, {cell['fraction']:g} of the labels, seed {cell['seed']}"
                print(f"{what}: held-out images {cell['held_out']:.2f}", flush=True)
        except BaseException:  # what runs goes on to its end, unless it was interrupted too; nothing else begins
            _stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def parse_args() -> argparse.Namespace:
    """Return the command line's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the Clothing dataset, with train.csv and val.csv")
    parser.add_argument("--weights", type=Path, help="ImageNet weights of tf_efficientnet_lite0, for that start")
    parser.add_argument("--start", nargs="+", choices=STARTS, default=STARTS, help="the first weights (default: both)")
    parser.add_argument(
        "--method", nargs="+", choices=[*METHODS, *VARIANTS], default=list(METHODS), help="(default: all but variants)"
    )
    parser.add_argument("--fraction", nargs="+", type=float, default=FRACTIONS, help="of labels (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="how many (default: %(default)s)")
    parser.add_argument("--tune", action="store_true", help="try each method's settings on the held-out images")
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time, a thread each (default: %(default)s)")
    parser.add_argument("--report", action="store_true", help="write the tables and the figure, and run nothing")
    args = parser.parse_args()
    if "imagenet" in args.start and not (args.report or args.weights):
        parser.error("the start from ImageNet needs --weights FILE; --start scratch leaves it out")
    return args


def grid_cells(args: argparse.Namespace, finished: list[Cell]) -> list[Cell]:
    """Return the grid's cells, a seed after the other: a part of them is a smaller grid."""
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


def best_setting(start: str, method: str, finished: list[Cell]) -> list[str]:
    """Return the stages that did best on the held-out images, in the mean over the tuning seeds."""
    if method in VARIANTS:
        base, flags = VARIANTS[method]
        *earlier, last = best_setting(start, base, finished)
        return [*earlier, f"{last} {flags}"]
    scores, settings = tuning_scores(start, method, finished), METHODS[method][start]
    if len(scores) < len(settings):
        sys.exit(f"{start}, {method}: {len(settings) - len(scores)} settings are not tuned yet; run with --tune first")
    return list(max(scores.items(), key=lambda item: item[1])[0])


def tuning_scores(start: str, method: str, finished: list[Cell]) -> dict[tuple[str, ...], float]:
    """Return of each setting that was tried with all tuning seeds its mean accuracy on the held-out images."""
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


def run_cell(cell: Cell, args: argparse.Namespace) -> Cell:
    """Train a cell's stages, label the test or the held-out images, and append the cell to the results."""
    with _tables_lock:  # cells of other methods read the same tables
        tables = make_tables(args.data, cell["fraction"], cell["seed"])
    checkpoint = None
    for index in range(len(cell["stages"])):
        checkpoint = run_stage(cell, index, checkpoint, tables, args)
    assert checkpoint is not None
    cell = cell | {"held_out": mean_accuracy(predict(checkpoint, tables / "val.csv"), read_rows(tables / "val.csv"))}
    if cell["seed"] not in TUNING_SEEDS:  # the test images have no say in the settings
        test = predict(checkpoint, tables / "test.csv")
        cell["predicted"] = {name: [row[name] for row in test] for name in ATTRIBUTES}
    trained_by = (checkpoint.parent / "done").read_text()
    cell |= {"common": common(cell["start"]), "commit": trained_by, "date": f"{date.today()}"}
    with _results_lock, RESULTS.open("a") as file:
        file.write(json.dumps(cell) + "\n")
    return cell


def run_stage(cell: Cell, index: int, checkpoint: Path | None, tables: Path, args: argparse.Namespace) -> Path:
    """Train one stage, unless another cell has trained the very same; return its checkpoint."""
    stages = cell["stages"][: index + 1]
    folder = stage_folder(cell, stages)
    with _locked(folder.with_suffix(".lock")) as lock:
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            flags = [*COMMON.split(), *MODELS[cell["start"]].split(), *train_flags(stages[-1], tables)]
            flags += ["--seed", f"{cell['seed']}"]
            if checkpoint:
                flags += ["--initial-checkpoint", f"{checkpoint}"]
            elif cell["start"] == "imagenet":
                flags += ["--pretrained", "--pretrained-path", f"{args.weights}"]
            place = ["--output", f"{folder.parent}", "--experiment", folder.name]
            with _slots:  # labeling images, which is short, does not wait for one
                call("train.py", [f"{tables}", *flags, *place], folder.with_suffix(".log"), lock)
            for other in [*folder.glob("checkpoint-*"), *folder.glob("model_best*")]:
                other.unlink()
            (folder / "done").write_text(commit())
    return folder / "last.pth.tar"


def stage_folder(cell: Cell, stages: list[str]) -> Path:
    """Return the folder of the last of some stages of a cell."""
    # Pretraining reads no label, so that all fractions of a seed share it.
    labels = "no labels" if all(re.search(r"-wlc 0(?!\S)", stage) for stage in stages) else f"{cell['fraction']:g}"
    what = json.dumps([cell["start"], labels, cell["seed"], COMMON, MODELS[cell["start"]], stages])
    return WORK / "runs" / hashlib.sha256(what.encode()).hexdigest()[:16]


@contextmanager
def _locked(file: Path) -> Iterator[int]:
    """Hold a lock among threads and processes; yield its descriptor, which a child holds on to if it inherits it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield opened.fileno()


def train_flags(stage: str, tables: Path) -> list[str]:
    """Return a stage's flags for train.py: --steps as --epochs, and --unlabeled the rows without labels, if any."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--unlabeled-ratio", type=int, default=0)
    parser.add_argument("-b", type=int)
    parser.add_argument("--train-split", default="train")
    known, flags = parser.parse_known_args(stage.split())
    rows, all_rows = (len(read_rows(tables / f"{name}.csv")) for name in (known.train_split, "train"))
    if known.unlabeled_ratio and rows < all_rows:
        flags += ["--unlabeled", f"{tables / 'train.csv'}", "--unlabeled-ratio", f"{known.unlabeled_ratio}"]
    if not re.search(r"-wl[sc] 0(?!\S)|--classify-view", stage):
        flags += ["--classify-view", "first"]  # what joint training is compared by; train.py's default is both
    epochs = max(3, round(known.times * known.steps / max(1, rows // known.b)))
    if epochs < 20:  # two epochs of warm-up would be too much of it
        flags += ["--warmup-epochs", f"{epochs // 6}"]
    return [*flags, "--train-split", known.train_split, "-b", f"{known.b}", "--epochs", f"{epochs}"]


def predict(checkpoint: Path, table: Path) -> list[Row]:
    """Return the class of each attribute for each row of a table."""
    output = checkpoint.parent / f"{table.stem}-predictions.csv"
    flags = [f"{table}", "--checkpoint", f"{checkpoint}", "-o", f"{output}", "-j", "1", "-b", "128"]
    call("inference.py", flags, output.with_suffix(".log"))
    return read_rows(output)


def call(script: str, arguments: list[str], log: Path, *inherited: int) -> None:
    """Run one of the scripts on one thread; when it fails, stop with the end of what it said.

    Args:
        script: its name.
        arguments: what it is given.
        log: where all that it prints goes.
        inherited: descriptors of files that it keeps open.
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


def make_tables(data: Path, fraction: float, seed: int) -> Path:
    """Write the tables of a cell; return their folder.

    train.csv has every image that is not held out, with the labels of a fraction of the rows; labeled.csv these rows
    alone; val.csv the held-out images; test.csv the test split; all.csv every class.
    """
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
    for name, table in tables.items():
        # A cell that is running reads the table meanwhile, and another process may write it as well.
        partial = folder / f"{name}.{os.getpid()}.partial"
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["image_path", *ATTRIBUTES])
            writer.writeheader()
            writer.writerows(row | {"image_path": f"{small_photograph(row['image_path'])}"} for row in table)
        partial.replace(folder / f"{name}.csv")
    return folder


def stratified(rows: list[Row], fraction: float, seed: int) -> list[Row]:
    """Return a fraction of the rows: of each article, and of those without one, at least one row.

    A smaller fraction of the same rows and seed is contained in a greater one.
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
    """Write each photograph once more, SHORT_SIDE pixels at its shorter side."""
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
    """Return where a photograph's small copy is."""
    return WORK / "images" / Path(path).name


def mean_accuracy(predicted: list[Row], rows: list[Row]) -> float:
    """Return the mean over the attributes of the accuracy on their labeled rows, in percent."""
    accuracies = []
    for name in ATTRIBUTES:
        right = [a[name] == b[name] for a, b in zip(predicted, rows, strict=True) if b[name]]
        accuracies.append(100 * sum(right) / len(right))
    return sum(accuracies) / len(accuracies)


def read_cells() -> list[Cell]:
    """Return the finished cells that have today's common flags."""
    cells = []
    for number, line in enumerate(RESULTS.read_text().splitlines() if RESULTS.exists() else [], 1):
        try:
            cells.append(json.loads(line))
        except json.JSONDecodeError:
            sys.exit(f"{RESULTS} line {number} is cut off: delete it")
    return [cell for cell in cells if cell.get("common") == common(cell["start"])]


def common(start: str) -> str:
    """Return what all cells of a start have in common."""
    return f"{MODELS[start]} {COMMON}, photographs of {SHORT_SIDE} pixels"


def cell_key(cell: Cell) -> str:
    """Return what makes two cells the same."""
    return json.dumps([cell[name] for name in ("start", "method", "fraction", "seed", "stages")])


def read_rows(file: Path) -> list[Row]:
    """Return the rows of a CSV file."""
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def commit() -> str:
    """Return the commit that is checked out."""
    return subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip()


if __name__ == "__main__":
    main()
