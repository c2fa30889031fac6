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


def has_soft_labels(args: argparse.Namespace) -> bool:
    """Return whether a file has soft labels of unlabeled cells."""
    return bool(args.pseudo_labels and args.pseudo_weight > 0)


def _not_mixed(why: str) -> Need:
    return Need("--mixup and --cutmix", MIXED, lambda args: not mixes_images(args), why, verb="excludes")


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
        _not_mixed("the views that get soft targets are not mixed"),
        off("aug_splits", "AugMix makes no view for a teacher; use --views simclr or --aa"),
    )
    add("--pseudo", _TEACHERS, "none", teacher, off=("none",), needs=needs)
    file = "Parquet file of inference.py --probabilities: the soft targets of blank cells"
    plain = (
        with_labels("without that loss the heads are not trained"),
        _not_mixed("a mixture of two images has no soft label"),
        off("aug_splits", "AugMix's divergence has no soft targets; use --views simclr or --aa"),
        Need(
            "--pseudo ema",
            ("pseudo",),
            lambda args: args.pseudo != "ema",
            "a blank cell has one soft target; leave one of them out",
            verb="excludes",
        ),
    )
    add("--pseudo-labels", "FILE.parquet", "", file, needs=plain)
    alone = Need("--pseudo ema", ("pseudo",), lambda args: args.pseudo == "ema", "no teacher gets better with time")
    taught = (
        Need(
            "--pseudo ema or --pseudo-labels",
            ("pseudo", "pseudo_labels"),
            lambda args: args.pseudo == "ema" or bool(args.pseudo_labels),
            "no cell gets a soft target",
        ),
    )
    weight = "weight of the loss on soft targets; 0 leaves them out"
    add("--pseudo-weight", NONNEGATIVE, 1.0, weight, off=(0.0,), needs=taught)
    skipped = "attributes without soft targets, such as those about color where the views change color"
    add("--pseudo-skip", "NAME", [], skipped, nargs="+", needs=taught)
    rise = "fraction of the run over which --pseudo-weight rises from 0"
    add("--pseudo-warmup", RATE, 0.2, rise, needs=(alone,))


def pseudo_conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags of this file."""
    unknown = [name for name in args.pseudo_skip if args.attributes and name not in args.attributes]
    if unknown:
        yield f"--pseudo-skip names '{unknown[0]}', which --attributes leaves out: {' '.join(args.attributes)}"
