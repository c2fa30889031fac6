"""A trial of choose.py: the stages of a candidate, each in a process of train.py, and a teacher's labels."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from options.yaml_file import recipe_text
from runtime.atomic_file import atomic_file
from runtime.errors import UsageError
from training.child_process import run_child
from training.time_limit import OutOfTime


def run_stages(
    script: Path, stages: Sequence[Mapping[str, Any]], folder: Path, seconds: float, labeling: Sequence[str] = ()
) -> Path:
    """Train stage after stage; return the folder of the last.

    A stage starts from the checkpoint of the one before. With `labeling`, each stage labels images for the next one.

    Args:
        script: train.py; inference.py lies beside it.
        stages: flags of each stage, without the output folder.
        folder: folder for the recipes, the logs and the runs; emptied first.
        seconds: time that all stages may take.
        labeling: inputs and flags of inference.py if stages teach the next one; otherwise empty.

    Raises:
        OutOfTime: the time is up; the running stage was stopped.
        UsageError: a stage failed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    end = time.monotonic() + seconds
    start: dict[str, str] = {}
    for index, stage in enumerate(stages):
        # the stage as a recipe
        recipe, run = folder / f"stage-{index + 1}.yaml", folder / f"stage-{index + 1}"
        flags = {**stage, **start, "output": str(folder), "experiment": run.name, "report": False}
        with atomic_file(recipe) as unfinished:
            unfinished.write_text(recipe_text(flags), encoding="utf-8")

        # its process, and what it leaves to the next one
        _run(script, ["-c", str(recipe)], run.with_suffix(".log"), end)
        last = str(run / "last.pth.tar")
        if not labeling:
            start = {"initial-checkpoint": last}
        elif index + 1 < len(stages):
            start = {"pseudo-labels": str(run.with_suffix(".parquet"))}
            words = ["--checkpoint", last, "--probabilities", start["pseudo-labels"], "-o", f"{run}.csv"]
            _run(script.with_name("inference.py"), [*labeling, *words], folder / f"labels-{index + 1}.log", end)
    return run


def _run(script: Path, words: Sequence[str], log: Path, end: float) -> None:
    """Run a script to its end, or until the clock is at `end`.

    Raises:
        OutOfTime: the time is up; the script was stopped.
        UsageError: the script failed.
    """
    status = run_child([sys.executable, str(script), *words], log, end - time.monotonic())
    if status is None:
        raise OutOfTime
    if status:
        raise UsageError(_last_error(log, script.name))


def _last_error(log: Path, script: str) -> str:
    """Return the sentence with which a script ended, or the last line of its log."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(f"{script}: error: ")]
    return (errors or lines or [f"{script} ended without a message"])[-1]
