"""The newest state of training in a run's folder that can be used, for a run that is started again after any end."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from runtime.errors import UsageError
from timm.models.multi_label_checkpoint import Checkpoint, read_checkpoint
from training.saver import recovery_files

_EPOCH = re.compile(r"checkpoint-(\d+)\.pth\.tar")


def newest_state(folder: Path, why_not: Callable[[Checkpoint], str | None]) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest state in a folder that reads, whose checksums hold and that fits; None if there is none.

    `last.pth.tar` is written before any other file of its epoch, so only recovery files are newer. If it cannot be
    used, the other files follow by their epoch and step, and at last `model_best.pth.tar`.

    Args:
        folder: the run's folder, which need not exist.
        why_not: returns why a state does not fit this run, or None if it does.

    Returns:
        The state, and a sentence for each newer file that is passed over.
    """
    passed: list[str] = []

    def usable(file: Path) -> Checkpoint | None:
        try:
            checkpoint = read_checkpoint(file)
            _ = checkpoint.label_space  # which may be damaged too
            reason = why_not(checkpoint)
        except UsageError as error:
            reason = f"{error}"
        if reason is None:
            return checkpoint
        passed.append(reason)
        return None

    last = usable(folder / "last.pth.tar") if (folder / "last.pth.tar").exists() else None
    for place, file in _by_position(folder):
        if last and place <= position(last):
            break
        if last and _EPOCH.fullmatch(file.name):
            passed.append(f"{file} is of a later epoch than last.pth.tar: of an attempt that was given up")
        elif found := usable(file):
            return found, passed
    best = folder / "model_best.pth.tar"
    if last is None and best.exists():
        last = usable(best)
    return last, passed


def position(checkpoint: Checkpoint) -> tuple[int, int]:
    """Return the epoch and the step with which training continues, from 0."""
    return checkpoint.progress.get("epoch", checkpoint.next_epoch), checkpoint.progress.get("batch", 0)


def _by_position(folder: Path) -> list[tuple[tuple[int, int], Path]]:
    """Return the recovery files and the numbered checkpoints, the newest first, each with where it continues."""
    places = [((epoch, step + 1), file) for (epoch, step), file in recovery_files(folder)]
    for file in folder.glob("checkpoint-*"):
        if name := _EPOCH.fullmatch(file.name):
            places.append(((int(name[1]) + 1, 0), file))
    return sorted(places, reverse=True)
