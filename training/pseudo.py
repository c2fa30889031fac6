"""The teacher of a run: made from its labels, resumed, and put into words for the log."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from timm.task.class_imbalance import class_shares
from timm.task.ema_teacher import EmaTeacher
from timm.task.pseudo_loss import blank_cells
from timm.task.simclr_classification import SimCLRClassificationTask


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
