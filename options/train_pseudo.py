"""The flags of train.py about soft targets for unlabeled cells."""

import argparse
from collections.abc import Iterator

from options.parser import Group
from options.rules import Need, off, on, with_labels
from options.train_views import MIXED, mixes_images
from options.values import NONNEGATIVE, RATE

_TEACHERS = ["none", "ema"]


def has_teacher(args: argparse.Namespace) -> bool:
    """Return whether a teacher in the run labels unlabeled cells."""
    return bool(args.pseudo == "ema" and args.pseudo_weight > 0)


def pseudo_flags(group: Group) -> None:
    """Declare the loss on soft targets, and the teacher that gives them."""
    add = group.value
    teacher = (
        "source of soft targets for blank cells; ema: the moving average of the weights labels a view that is only "
        "cropped and flipped, and the model learns these labels on its augmented views"
    )
    needs = (
        with_labels("that loss trains the heads of the teacher"),
        on("model_ema", "the moving average is the teacher"),
        off("model_ema_force_cpu", "the teacher labels every batch on the device of the model"),
        off("no_aug", "the model must learn on harder views than the teacher's"),
        Need(
            "--mixup and --cutmix",
            MIXED,
            lambda args: not mixes_images(args),
            "the views that get soft targets are not mixed",
            verb="excludes",
        ),
        off("aug_splits", "AugMix makes no view for a teacher; use --views simclr or --aa"),
    )
    add("--pseudo", _TEACHERS, "none", teacher, off=("none",), needs=needs)
    taught = (Need("--pseudo ema", ("pseudo",), lambda args: args.pseudo == "ema", "no cell gets a soft target"),)
    weight = "weight of the loss on soft targets; 0 leaves it and the teacher out"
    add("--pseudo-weight", NONNEGATIVE, 1.0, weight, off=(0.0,), needs=taught)
    skipped = "attributes without soft targets, such as those about color where the views change color"
    add("--pseudo-skip", "NAME", [], skipped, nargs="+", needs=taught)
    rise = "fraction of the run over which --pseudo-weight rises from 0"
    add("--pseudo-warmup", RATE, 0.2, rise, needs=taught)


def pseudo_conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags of this file."""
    unknown = [name for name in args.pseudo_skip if args.attributes and name not in args.attributes]
    if unknown:
        yield f"--pseudo-skip names '{unknown[0]}', which --attributes leaves out: {' '.join(args.attributes)}"
