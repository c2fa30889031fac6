"""Soft targets of a run: its teacher, or the soft labels of a file, and words about both for the log."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from catalog.label_space import LabelSpace
from catalog.soft_labels import SoftLabels, read_soft_labels
from runtime.errors import UsageError
from timm.data.two_view_dataset import TwoViewDataset
from timm.task.class_imbalance import class_shares
from timm.task.ema_teacher import EmaTeacher
from timm.task.pseudo_loss import blank_cells
from timm.task.simclr_classification import SimCLRClassificationTask
from training.flag_names import naming_flags

_logger = logging.getLogger("train")


def set_teacher(
    task: SimCLRClassificationTask,
    targets: Tensor,
    steps: int,
    state: dict[str, Any] | None,
    *,
    skipped: Sequence[str],
    warmup: float,
) -> None:
    """Make the moving average of a task the teacher of its unlabeled cells, and save its state in checkpoints.

    Args:
        task: task with a moving average.
        targets: int64 [rows, C], the training table's.
        steps: steps of the whole run.
        state: the teacher's state in the checkpoint that the run resumes; None starts anew.
        skipped: attributes without soft targets.
        warmup: fraction of the run over which the loss's weight rises.
    """
    teacher = EmaTeacher(task, class_shares(targets, task.label_space), skipped, round(warmup * steps))
    if state is not None:
        teacher.load_state_dict(state)
    task.soft_source = teacher
    task.checkpoint_extras["pseudo"] = teacher.state_dict


@naming_flags("pseudo_skip", "multi_valued")
def read_pseudo_labels(
    train_set: TwoViewDataset, label_space: LabelSpace, path: str, skipped: Sequence[str]
) -> SoftLabels:
    """Read the soft labels of the training images, log how many have some, and number the images for the look-up.

    Args:
        train_set: training images; its targets get a further column, the row number.
        label_space: the attributes and their classes.
        path: Parquet file of soft labels.
        skipped: attributes without soft targets.

    Raises:
        UsageError: the file does not fit, or no blank cell has a soft label.
    """
    labels = read_soft_labels(Path(path), train_set.table, label_space, skipped)
    has_row = torch.from_numpy(labels.row_of >= 0)
    weights = torch.from_numpy(labels.weights)[torch.from_numpy(labels.row_of)]  # -1 is the last row: masked below
    counts, missing = {}, torch.zeros(len(train_set), dtype=torch.bool)
    for index, (name, blank) in enumerate(
        zip(label_space.attributes, blank_cells(train_set.targets, label_space), strict=True)
    ):
        if name not in skipped:
            missing |= blank & ~has_row
            soft = int((blank & has_row & (weights[:, index] >= 0)).sum())
            counts[name] = f"{soft} of {int(blank.sum())} blank cells of {name}"
            if soft == 0:
                counts[name] = f"no blank cell of {name}"
    if all(text.startswith("no ") for text in counts.values()):
        raise UsageError(
            f"--pseudo-labels {path} has no soft label for a blank cell of {train_set.table.path}: label the images "
            "with blank cells by inference.py --probabilities"
        )
    rest = f"; {int(missing.sum())} images with a blank cell are not in the file" if missing.any() else ""
    _logger.info(f"Soft targets from {path} for {', '.join(counts.values())}{rest}")
    train_set.numbers = torch.arange(len(train_set))
    return labels


def blank_line(teacher: EmaTeacher, targets: Tensor) -> str:
    """Return the number of blank cells of each taught attribute in the training table, as one line."""
    space = teacher.label_space
    blank = zip(space.attributes, blank_cells(targets, space), teacher.taught, strict=True)
    counts = ", ".join(f"{int(cells.sum())} of {name}" for name, cells, taught in blank if taught)
    return f"Soft targets for cells without a label: {counts}; the teacher is the moving average"


def teacher_line(numbers: Mapping[str, float], attributes: Sequence[str]) -> str:
    """Return the numbers of `EmaTeacher` as one line: what was used, and how often known labels agree."""
    words = []
    for name in attributes:
        if f"{name}_pseudo_used" in numbers:
            used, right = numbers[f"{name}_pseudo_used"], numbers[f"{name}_pseudo_agreement"]
            agreement = "" if math.isnan(right) else f", {right:.1f}% of known labels predicted"
            words.append(f"{name}: {used:.1f}% used{agreement}")
    left_out = numbers["pseudo_left_out"]
    images = "" if math.isnan(left_out) else f"  {left_out:.1f}% of the images without a label left out"
    return "  ".join(words) + images
