"""The flags of train.py about the losses: attributes and their classification loss, SimCLR and its head."""

import argparse
from collections.abc import Iterator

from options.parser import Group
from options.rules import Implied, above, among, off, with_contrast, with_labels
from options.shared import multi_valued_flags
from options.values import BATCH, COUNT, NONNEGATIVE, POSITIVE, RATE, weight

CLASSIFIED = ["first", "both", "weak"]
CONTRASTIVE = ["ntxent", "dcl", "supcon", "none"]

_ABOUT_LABELS = (with_labels("it belongs to the classification loss"),)
_PROJECTED = with_contrast("at weight 0 there is no projection head")


def attribute_flags(group: Group) -> None:
    """Declare the attributes and their classification loss."""
    add = group.value
    add("--attributes", "NAME", None, "columns to learn (default: all but image_path)", nargs="+")
    multi_valued_flags(group)
    kinds = "loss of multi-valued attributes: binary cross-entropy or the asymmetric loss (arXiv:2009.14119)"
    add("--multi-valued-loss", ["bce", "asl"], "bce", kinds, needs=_ABOUT_LABELS)
    weights = "weights of attributes in the classification loss, such as color=2 (default: 1)"
    group.pairs("--attribute-weights", weight, "NAME=X", weights)
    balance = "keep the attributes' weights, or divide each loss by a learned variance (arXiv:1705.07115)"
    add("--balance", ["fixed", "uncertainty"], "fixed", balance, needs=_ABOUT_LABELS)
    rare = "weigh a class by the inverse of its number of labels, or of its effective number (arXiv:1901.05555)"
    jensen = off("jsd", "the divergence has no class weights; use --logit-adjustment")
    add("--class-weights", ["none", "inverse", "effective"], "none", rare, needs=(*_ABOUT_LABELS, jensen))
    margin = (
        "in training, add this factor times the log of a class's share to its logit, so that rare classes count more "
        "(arXiv:2007.07314); 1 favors balanced accuracy, 0 is off"
    )
    add("--logit-adjustment", NONNEGATIVE, 0.0, margin, needs=_ABOUT_LABELS)
    views = (
        "views that the attribute heads read; weak adds one that is only cropped and flipped (default: both, or first "
        "with mixup, cutmix or -wls 0)"
    )
    needs = (with_labels("it makes a view for the attribute heads, which only that loss trains"),)
    add("--classify-view", CLASSIFIED, None, views, needs=needs)
    smooth = "label smoothing: probability spread over all classes"
    needs = (with_labels("it smooths that loss's targets"),)
    add("--smoothing", RATE, 0.1, smooth, off=(0.0,), needs=needs)


def simclr_flags(group: Group) -> None:
    """Declare the contrastive loss and its projection head."""
    add = group.value
    kinds = "contrastive loss: SimCLR's NT-Xent, decoupled (dcl), or with positives by label (supcon); none is off"
    none = Implied(("none",), "simclr_loss_weight", 0.0, "none turns the SimCLR loss off; leave one of them out")
    needs = (with_contrast("weight 0 turns the loss off, as --contrastive none does"),)
    add("--contrastive", CONTRASTIVE, "ntxent", kinds, off=("none",), implies=none, needs=needs)
    negatives = (
        with_contrast("without the SimCLR loss there are no negatives"),
        among("contrastive", ("ntxent", "dcl"), "supcon already makes images that share labels positives"),
    )
    masked = "images whose known labels all agree are not each other's negatives (ntxent, dcl)"
    group.switch("--mask-false-negatives", masked, needs=negatives)
    needs = (with_contrast("weight 0 turns the contrastive loss off"),)
    divisor = "divisor of the similarities in the SimCLR loss"
    add("--temperature -t", POSITIVE.since(1e-4), 0.5, divisor, needs=needs)
    add("--simclr-loss-weight -wls", NONNEGATIVE, 0.5, "weight of the SimCLR loss; 0 leaves it out")
    add("--classification-loss-weight -wlc", NONNEGATIVE, 0.5, "weight of the classification loss; 0 trains no heads")
    length = "dimension of the projections that the SimCLR loss compares"
    add("--projection-dim", COUNT.to(16_384), 64, length, needs=(_PROJECTED,))
    add("--projection-layers", COUNT.to(64), 2, "linear layers of the projection head", needs=(_PROJECTED,))
    between = (_PROJECTED, above(1, "projection_layers", "a single layer has nothing to normalize between"))
    norms = ["none", "batch", "layer"]
    add("--projection-norm", norms, "none", "normalization between the layers of the projection head", needs=between)
    joint = (
        "images per process that one step contrasts, a multiple of --batch-size. Memory holds --batch-size of them at "
        "a time; each such batch passes through the model twice, with its own batch norm statistics "
        "(default: --batch-size)"
    )
    needs = (with_contrast("at weight 0 no images are contrasted; --grad-accum-steps makes larger updates"),)
    add("--contrastive-batch-size", BATCH, None, joint, needs=needs)


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
        yield "--attribute-weights are all 0: raise one of these, or use -wlc 0 to train without labels"
