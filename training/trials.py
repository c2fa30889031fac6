"""A trial of choose.py: the stages of a candidate, each in a process of train.py."""

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


def run_stages(script: Path, stages: Sequence[Mapping[str, Any]], folder: Path, seconds: float) -> Path:
    """Train stage after stage, each from the checkpoint of the one before; return the folder of the last.

    Args:
        script: train.py.
        stages: flags of each stage, without the output folder.
        folder: folder for the recipes, the logs and the runs; emptied first.
        seconds: time that all stages may take.

    Raises:
        OutOfTime: the time is up; the running stage was stopped.
        UsageError: a stage failed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    end = time.monotonic() + seconds
    start: dict[str, str] = {}
    for index, stage in enumerate(stages):
        # the stage as a recipe
        recipe, log = folder / f"stage-{index + 1}.yaml", folder / f"stage-{index + 1}.log"
        run = folder / f"stage-{index + 1}"
        flags = {**stage, **start, "output": str(folder), "experiment": run.name}
        with atomic_file(recipe) as unfinished:
            unfinished.write_text(recipe_text(flags), encoding="utf-8")

        # its process
        status = run_child([sys.executable, str(script), "-c", str(recipe)], log, end - time.monotonic())
        if status is None:
            raise OutOfTime
        if status:
            raise UsageError(_last_error(log, script.name))
        start = {"initial-checkpoint": str(run / "last.pth.tar")}
    return run


def _last_error(log: Path, script: str) -> str:
    """Return the sentence with which a script ended, or the last line of its log."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(f"{script}: error: ")]
    return (errors or lines or [f"{script} ended without a message"])[-1]
