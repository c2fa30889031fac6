"""A case: a command on hostile input in a folder of its own, and how it ended."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

LEARNING = ("train.py", "validate.py", "inference.py", "refit.py", "choose.py")
CATALOG = ("audit.py", "split.py", "fill.py", "embed.py", "search.py", "report.py", "export.py")
COMMANDS = (*LEARNING, *CATALOG)
# Flags with which each command takes a second on the sound data. Paths are relative to the case's folder.
TINY = ("--img-size", "32", "-j", "0", "--device", "cpu")
TRAIN = (*TINY, "--model", "test_resnet", "-b", "4", "--epochs", "1", "--warmup-epochs", "0", "--cooldown-epochs", "0")
TRAIN = (*TRAIN, "--opt", "adamw", "--lr", "1e-3", "--knn-interval", "0", "--output", "out", "--experiment", "run")
TRAIN = (*TRAIN, "--no-report")
SERVE = ("-j", "0", "--device", "cpu")


@dataclass
class Case:
    """A command on hostile input.

    Attributes:
        words: the command's script and its words.
        about: what is hostile in it.
        env: environment variables that differ; None deletes one.
        inside: folders, relative to the case's, that it may write into.
        fresh: whether a new interpreter runs it, which is slow, as some variables are read when Python starts.
        powerless: whether the modes of files bind it, even if root runs the soak.
        draws: whether curves are drawn, which takes most of the time of a tiny run.
        prepare: called in the process that runs the case, before the command: limits, closed streams.
    """

    words: list[str]
    about: str
    env: dict[str, str | None] = field(default_factory=dict)
    inside: tuple[str, ...] = ("out",)
    fresh: bool = False
    powerless: bool = False
    draws: bool = False
    prepare: Callable[[], None] = lambda: None


@dataclass
class Outcome:
    """How a case ended.

    Attributes:
        code: exit status; negative for a signal, None if it was stopped.
        stopped: why it was stopped: "hang" or "memory"; "" if it ended by itself.
        out: standard output.
        err: standard error.
        seconds: wall time.
        peak: largest memory of its processes together, in bytes.
        trespasses: files changed outside its folders, programs run, connections made.
    """

    code: int | None
    stopped: str
    out: str
    err: str
    seconds: float
    peak: int
    trespasses: list[str]


Make = Callable[[random.Random, Path, Path], Case]  # takes a seed, the case's folder and the sound inputs


def copy_data(sound: Path, place: Path) -> Path:
    """Copy the tables of the sound data and link its images; return the folder, in/data."""
    data = place / "in" / "data"
    data.mkdir(parents=True, exist_ok=True)
    for table in (sound / "data").glob("*.csv"):
        shutil.copy(table, data)
    (data / "images").symlink_to(sound / "data" / "images")
    return data


def link_checkpoint(sound: Path, place: Path) -> str:
    """Link the sound checkpoint into the case's folder; return its path there."""
    (place / "in").mkdir(exist_ok=True)
    (place / "in" / "sound.pth.tar").symlink_to(sound / "out" / "run" / "last.pth.tar")
    return "in/sound.pth.tar"


def link_index(sound: Path, place: Path) -> str:
    """Link the sound index into the case's folder; return its path there."""
    (place / "in").mkdir(exist_ok=True)
    (place / "in" / "index").symlink_to(sound / "out" / "index")
    return "in/index"


def on_data(command: str, data: str, checkpoint: str, index: str = "in/index") -> list[str]:
    """Return a command's words for a data folder, a checkpoint and an index."""
    trained = ["--checkpoint", checkpoint]
    return {
        "train.py": ["train.py", data, *TRAIN],
        "validate.py": ["validate.py", data, "--checkpoint", checkpoint, *SERVE, "--no-latency", "--per-class", "out"],
        "inference.py": ["inference.py", f"{data}/train.csv", "--checkpoint", checkpoint, *SERVE, "-o", "out/p.csv"],
        "refit.py": ["refit.py", checkpoint, data, *SERVE, "-o", "out/refitted.pth.tar"],
        "choose.py": ["choose.py", data, *TINY, "--model", "test_resnet", "--budget", "4s", "--output", "out"],
        "audit.py": ["audit.py", data, "-j", "0", "-o", "out/audit"],
        "split.py": ["split.py", f"{data}/train.csv", "-o", "out/tables"],
        "fill.py": ["fill.py", f"{data}/train.csv", *trained, *SERVE, "--holdout", f"{data}/val.csv",
                    *("--precision", "0.5", "-o", "out/filled.csv"),
                    *("--queue", "out/queue.csv", "--suspects", "out/suspects.csv")],
        "embed.py": ["embed.py", f"{data}/train.csv", *trained, *SERVE, "-o", "out/new-index"],
        "search.py": ["search.py", f"{data}/images/0.png", *trained, "--index", index, "--device", "cpu",
                      "-o", "out/hits.csv"],
        "report.py": ["report.py", checkpoint, "--data-dir", data, *SERVE, "-o", "out/report.html"],
        "export.py": ["export.py", checkpoint, "--format", "timm", "--images", f"{data}/val.csv",
                      "-o", "out/exported"],
    }[command]  # fmt: skip
