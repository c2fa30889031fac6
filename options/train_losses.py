"""The flags of train.py about the losses: attributes and their classification loss, SimCLR and its head."""

import argparse
from collections.abc import Iterator

from options.parser import Group
from options.rules import Implied, above, among, off, with_contrast, with_labels
from options.values import COUNT, NONNEGATIVE, POSITIVE, RATE, weight

CLASSIFIED = ["first", "both", "weak"]
CONTRASTIVE = ["ntxent", "dcl", "supcon", "none"]

_ABOUT_LABELS = (with_labels("it is about the classification loss"),)
_PROJECTED = with_contrast("at weight 0 there is no projection head")


def attribute_flags(group: Group) -> None:
    """Declare the attributes and their classification loss."""
    add = group.value
    add("--attributes", "NAME", None, "columns to learn (default: every one but image_path)", nargs="+")
    several = "columns whose cells hold several values, split by | (default: those with a | in a cell; no NAME: none)"
    add("--multi-valued", "NAME", None, several, nargs="*")
    kinds = "loss of multi-valued attributes: binary cross-entropy or the asymmetric loss (arXiv:2009.14119)"
    add("--multi-valued-loss", ["bce", "asl"], "bce", kinds, needs=_ABOUT_LABELS)
    group.pairs("--attribute-weights", weight, "NAME=X", "weights in the classification loss: color=2; else 1")
    balance = "keep the attributes' weights, or divide each by a variance that it learns (arXiv:1705.07115)"
    add("--balance", ["fixed", "uncertainty"], "fixed", balance, needs=_ABOUT_LABELS)
    rare = "weigh classes by one over their number of labels, or over their effective number (arXiv:1901.05555)"
    jensen = off("jsd", "its other term has no classes to weigh; use --logit-adjustment")
    add("--class-weights", ["none", "inverse", "effective"], "none", rare, needs=(*_ABOUT_LABELS, jensen))
    margin = "factor on the logarithm of a class's share, which trains as a margin"
    add("--logit-adjustment", NONNEGATIVE, 0.0, margin, needs=_ABOUT_LABELS)
    views = (
        "views that the heads read; weak is one only cropped and flipped (default: both; first where there is one "
        "alone, or with mixup or cutmix, where both would need a fourth)"
    )
    needs = (with_labels("it makes a view for the attribute heads, which that loss alone trains"),)
    add("--classify-view", CLASSIFIED, None, views, needs=needs)
    smooth = "label smoothing: probability spread over all classes"
    needs = (with_labels("it smooths the targets of that loss"),)
    add("--smoothing", RATE, 0.1, smooth, off=(0.0,), needs=needs)


def simclr_flags(group: Group) -> None:
    """Declare the contrastive loss and its projection head."""
    add = group.value
    kinds = "the SimCLR loss; supcon reads the labels, none leaves the loss out"
    none = Implied(("none",), "simclr_loss_weight", 0.0, "none leaves no SimCLR loss to weigh; leave one of them out")
    needs = (with_contrast("at weight 0 there is no such loss, as with --contrastive none"),)
    add("--contrastive", CONTRASTIVE, "ntxent", kinds, off=("none",), implies=none, needs=needs)
    negatives = (
        with_contrast("at weight 0, or with --contrastive none, there are no negatives"),
        among("contrastive", ("ntxent", "dcl"), "to supcon, images that share labels are positives, not negatives"),
    )
    masked = "do not contrast images whose known labels all agree (ntxent, dcl)"
    group.switch("--mask-false-negatives", masked, needs=negatives)
    needs = (with_contrast("it belongs to the contrastive loss, which is off at weight 0"),)
    add("--temperature -t", POSITIVE, 0.5, "divisor of the similarities in the SimCLR loss", needs=needs)
    add("--simclr-loss-weight -wls", NONNEGATIVE, 0.5, "factor on the SimCLR loss; 0 leaves it out")
    add("--classification-loss-weight -wlc", NONNEGATIVE, 0.5, "factor on the classification loss; 0 trains no heads")
    length = "length of the projections that the SimCLR loss compares"
    add("--projection-dim", COUNT, 64, length, needs=(_PROJECTED,))
    add("--projection-layers", COUNT, 2, "linear layers of the projection head", needs=(_PROJECTED,))
    between = (_PROJECTED, above(1, "projection_layers", "one layer leaves no place for it"))
    norms = ["none", "batch", "layer"]
    add("--projection-norm", norms, "none", "normalization between these layers", needs=between)
    joint = (
        "images per process and step that are contrasted, a multiple of --batch-size; memory holds only --batch-size "
        "at a time, which pass through the model twice with batch norm statistics of their own "
        "(default: --batch-size)"
    )
    needs = (with_contrast("at weight 0 no images are contrasted; --grad-accum-steps makes larger updates"),)
    add("--contrastive-batch-size", COUNT, None, joint, needs=needs)


def loss_conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags of this file."""
    if args.simclr_loss_weight == 0 and args.classification_loss_weight == 0:
        where = f" ({args.config} sets what the command line does not)" if args.config else ""
        yield f"--simclr-loss-weight and --classification-loss-weight are both 0{where}: nothing is left to train"
    chunk, joint = args.batch_size, args.contrastive_batch_size or args.batch_size
    if joint % chunk:
        nearest = " or ".join(str(n) for n in (joint // chunk * chunk, (joint // chunk + 1) * chunk) if n)
        yield f"--contrastive-batch-size {joint} is not a multiple of --batch-size {chunk}: use {nearest}"
    if args.classify_view == "both" and not args.simclr_loss_weight:
        yield "--classify-view both needs -wls above 0: without the contrastive loss an image has one view"
    yield from _attribute_conflicts(args)


def _attribute_conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the names of attributes."""
    names = args.attributes or []
    if not names:
        return
    if len(set(names)) < len(names):
        yield f"--attributes names a column twice: {' '.join(names)}"
    for name_of, given in (("--attribute-weights", args.attribute_weights), ("--multi-valued", args.multi_valued)):
        unknown = [name for name in given or [] if name not in names]
        if unknown:
            yield f"{name_of} names '{unknown[0]}', which --attributes leaves out: {' '.join(names)}"
    if not any(args.attribute_weights.get(name, 1.0) for name in names):
        yield "--attribute-weights are all 0: use -wlc 0 to train without labels"
