"""The candidates of choose.py: ways to train, each as one stage or several, in the keys of a recipe."""

import math
from dataclasses import dataclass
from typing import Any

_PASSES = 3  # a training step takes about as long as three passes without gradients
_EPOCHS = 10  # epochs over the labeled rows that a stage which learns from them has at least
_VISITS = 2  # times that a student sees each unlabeled image at least

SOFT_LABELS = "soft.parquet"  # the file in which a teacher's labels reach the student

Stage = dict[str, Any]  # a recipe: the flags of one call of train.py, without their dashes

_LABELS = {"simclr-loss-weight": 0, "classification-loss-weight": 1}
_FROZEN = {"freeze-backbone": True, "no-aug": True, **_LABELS}
_ADAMW = {"opt": "adamw", "weight-decay": 0.05, "clip-grad": 5, "sched": "cosine", "warmup-lr": 1e-6, "min-lr": 1e-6}
_MILD = {"drop": 0.2, "drop-path": 0.1, "views": "simclr-keepcolor", "view-strength": 0.5, "scale": [0.2, 1.0]}
_TUNED = {"batch-size": 32, "steps": 100, "lr": 5e-4, "probe-first": True, "freeze-bn": True, **_ADAMW, **_MILD}
_TEACHER = {"pseudo": "ema", "model-ema": True, "model-ema-decay": 0.99, "unlabeled-ratio": 2}
_SCRATCH = {"batch-size": 32, "steps": 1600, **_ADAMW, "views": "simclr", "scale": [0.2, 1.0]}
_SIMCLR = {"simclr-loss-weight": 1, "classification-loss-weight": 0, "temperature": 0.1}
_JOINT = {"simclr-loss-weight": 0.1, "classification-loss-weight": 0.9, "temperature": 0.1, "unlabeled-ratio": 1}


@dataclass(frozen=True)
class Candidate:
    """A way to train.

    Attributes:
        title: its name in the report.
        stages: flags of each call of train.py; a later one starts from the checkpoint of the one before.
        from_weights: whether it starts from trained weights; otherwise it starts from random ones.
        reads_unlabeled: whether it learns from images without labels, and needs some.
        frozen: whether the backbone is not trained, so that its features serve all splits.
        averaged: whether the moving average of the weights is the result.
        teaches: whether the first stage is a teacher: it sees images of the backbone's own size, its soft labels go to
            the last stage, and that starts from the trained weights too.
    """

    title: str
    stages: tuple[Stage, ...]
    from_weights: bool
    reads_unlabeled: bool = False
    frozen: bool = False
    averaged: bool = False
    teaches: bool = False


CANDIDATES = {
    # from trained weights
    "frozen": Candidate("frozen features, logistic regression", (_FROZEN,), from_weights=True, frozen=True),
    "fine-tune": Candidate("fine-tuning", ({**_TUNED, **_LABELS},), from_weights=True),
    "teacher": Candidate(
        "fine-tuning with a teacher",
        ({**_TUNED, **_TEACHER, **_LABELS},),
        from_weights=True,
        reads_unlabeled=True,
        averaged=True,
    ),
    "teacher-simclr": Candidate(
        "the same with SimCLR",
        ({**_TUNED, **_TEACHER, **_JOINT, "unlabeled-ratio": 2},),
        from_weights=True,
        reads_unlabeled=True,
        averaged=True,
    ),
    "self-train": Candidate(
        "self-training",
        ({**_TUNED, **_LABELS}, {**_TUNED, **_LABELS, "unlabeled-ratio": 2, "pseudo-labels": SOFT_LABELS}),
        from_weights=True,
        reads_unlabeled=True,
        teaches=True,
    ),
    # from random weights
    "labels": Candidate("labels alone", ({**_SCRATCH, **_LABELS, "lr": 3e-3},), from_weights=False),
    "joint": Candidate(
        "SimCLR and labels together", ({**_SCRATCH, **_JOINT, "lr": 3e-3},), False, reads_unlabeled=True
    ),
    "pretrain": Candidate(
        "SimCLR, then labels",
        (
            {**_SCRATCH, **_SIMCLR, "batch-size": 64, "steps": 14000, "lr": 3e-3},
            {**_SCRATCH, **_LABELS, "lr": 3e-3},
        ),
        from_weights=False,
        reads_unlabeled=True,
    ),
}


def usable(names: list[str] | None, from_weights: bool, unlabeled: bool) -> tuple[dict[str, Candidate], list[str]]:
    """Return the candidates to try by name, in the order of the table, and why each named one cannot be tried.

    Args:
        names: candidates that the user named; None for all that can be tried.
        from_weights: whether there are trained weights to start from.
        unlabeled: whether there are images or cells without labels.
    """
    chosen, reasons = {}, []
    for name, candidate in CANDIDATES.items():
        reason = None
        if candidate.from_weights and not from_weights:
            reason = "it starts from trained weights: give --pretrained, --pretrained-path or --initial-checkpoint"
        elif not candidate.from_weights and from_weights:
            reason = "it starts from random weights: leave out --pretrained, --pretrained-path and --initial-checkpoint"
        elif candidate.reads_unlabeled and not unlabeled:
            reason = "it learns from images without labels, and there are none: add some with --unlabeled"
        if reason is None and (names is None or name in names):
            chosen[name] = candidate
        elif reason and names and name in names:
            reasons.append(f"--candidates {name}: {reason}")
    return chosen, reasons


def fitted(stage: Stage, steps: int | None, labeled: int, unlabeled: float) -> Stage:
    """Return a stage that the rows can fill, with another number of steps if one is given.

    Args:
        stage: the stage.
        steps: updates of a stage that learns from labels; None keeps the stage's own.
        labeled: number of labeled rows to train on.
        unlabeled: number of images without any label to train on.
    """
    changed = dict(stage)
    if "steps" not in stage:
        return changed
    if stage["classification-loss-weight"]:
        changed["batch-size"] = max(2, min(stage["batch-size"], labeled))
        changed["steps"] = steps or _least_steps(changed, labeled, unlabeled)
    if changed["steps"] < 10:  # a tenth of the steps is warm-up: none
        changed.pop("warmup-lr", None)
    if changed.get("unlabeled-ratio", 0) * changed["batch-size"] > unlabeled:
        del changed["unlabeled-ratio"]  # too few for each batch: batches mix all rows
    return changed


def _least_steps(stage: Stage, labeled: int, unlabeled: float) -> int:
    """Return the steps of a stage, more than its own where they do not suffice for all images.

    Args:
        stage: the stage; it learns from labels.
        labeled: number of labeled rows to train on.
        unlabeled: number of images without any label to train on; infinite if it is not known.
    """
    steps = [stage["steps"], _EPOCHS * labeled // stage["batch-size"]]
    if "pseudo-labels" in stage and math.isfinite(unlabeled):
        steps.append(int(_VISITS * unlabeled / (stage["batch-size"] * stage["unlabeled-ratio"])))
    return int(max(steps))


def images_trained(stage: Stage, labeled: int, rows: int) -> int:
    """Return the number of images that a stage trains on, counted once per step.

    Args:
        stage: the stage.
        labeled: number of labeled rows to train on.
        rows: number of all rows to train on.
    """
    if "steps" not in stage:
        return labeled  # a frozen backbone passes each image once
    batch, ratio = stage["batch-size"], stage.get("unlabeled-ratio", 0)
    reads_all = reads_unlabeled(stage)
    drawn = rows if reads_all and not ratio else labeled
    per_epoch = max(1, drawn // batch)
    steps = -(-stage["steps"] // per_epoch) * per_epoch  # train.py rounds up to whole epochs
    return int(steps * (batch + round(batch * ratio)))


def reads_unlabeled(stage: Stage) -> bool:
    """Return whether a stage learns from images without labels."""
    return bool(stage["simclr-loss-weight"]) or "pseudo" in stage or "pseudo-labels" in stage


def work(stage: Stage, labeled: int, rows: int) -> int:
    """Return the work of a stage, in passes of an image through the backbone without gradients.

    Args:
        stage: the stage.
        labeled: number of labeled rows to train on.
        rows: number of all rows to train on.
    """
    images = images_trained(stage, labeled, rows)
    if "steps" not in stage:
        return images
    views = 2 if stage["simclr-loss-weight"] else 1
    return images * (views * _PASSES + ("pseudo" in stage))
