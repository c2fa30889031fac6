"""Run train.py in this process, and read its speed from its log."""

from __future__ import annotations

import csv
import logging
import re
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
ORIGINAL = [  # the flags of the original's documented command, without --epochs, -j and --pretrained
    *("--sched", "cosine", "--decay-epochs", "2.4", "--decay-rate", ".97", "--opt", "adamp", "--opt-eps", ".001"),
    *("--warmup-lr", "1e-6", "--weight-decay", "1e-5", "--drop", "0.3", "--drop-connect", "0.2"),
    *("--model-ema", "--model-ema-decay", "0.9999", "--aa", "rand-m9-mstd0.5", "--remode", "pixel", "--reprob", "0.2"),
    *("--amp", "--lr", ".016", "-wls", "0.1", "-wlc", "0.9"),
]


class Trained(NamedTuple):
    """What a training run showed.

    Attributes:
        rates: images per second of each epoch's training, without validation.
        cores: processor cores in use, the mean over the whole run, its start included.
        summary: rows of summary.csv.
        folder: the run's folder.
    """

    rates: list[float]
    cores: float
    summary: list[dict[str, str]]
    folder: Path


def train(data: Path, words: Sequence[str], output: Path, name: str) -> Trained:
    """Train as the command line `train.py DATA WORDS` does.

    Raises:
        RuntimeError: train.py ended with an error, which it has logged.
    """
    import train as script

    lines: list[str] = []
    handler = _Lines(lines)
    logger = logging.getLogger("train")
    logger.addHandler(handler)
    begin, used = time.perf_counter(), _processor_seconds()
    try:
        script.main([str(data), *words, "--output", str(output), "--experiment", name, "--no-report"])
    except SystemExit as error:
        raise RuntimeError(f"train.py {' '.join(words)} ended with {error.code}") from error
    finally:
        logger.removeHandler(handler)
    wall = time.perf_counter() - begin
    last_lines = [line for line in lines if line.startswith("Train: ") and "(100%)" in line]
    rates = [float(found[1]) for line in last_lines if (found := re.search(r"([\d.]+)/s\)", line))]
    with (output / name / "summary.csv").open(encoding="utf-8") as file:
        summary = list(csv.DictReader(file))
    return Trained(rates, (_processor_seconds() - used) / wall, summary, output / name)


def sample(folder: Path, rows: int, copies: int = 1) -> Path:
    """Draw the sample of 60 x 80 pixels, and repeat the rows of its training table; return the folder."""
    sys.path.append(str(ROOT / "fashion-product-images"))
    import make_sample

    make_sample.make(folder, rows, 42, False)
    table = folder / "train.csv"
    header, *body = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join([header, *body * copies]) + "\n", encoding="utf-8")
    return folder


def photograph_table(folder: Path, files: Sequence[Path], copies: int = 1) -> Path:
    """Write tables of photographs with a made-up attribute; return the folder."""
    rows = [f"{file.resolve()},{'ab'[index % 2]}" for index, file in enumerate(files)]
    for split, lines in (("train", rows * copies), ("val", rows[:8])):
        (folder / f"{split}.csv").write_text("\n".join(["image_path,kind", *lines]) + "\n", encoding="utf-8")
    return folder


def _processor_seconds() -> float:
    """Return the processor time of this process and of its children that have ended, as loader workers have."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.INFO)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
