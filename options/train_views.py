"""The flags of train.py about what the model sees: augmentation, views, erasing, mixing."""

import argparse
from collections.abc import Iterator

from options.parser import Group
from options.rules import Need, above, among, flag, off, on, with_labels
from options.shared import RESIZES
from options.values import (
    COUNT,
    FRACTION,
    NONNEGATIVE,
    POSITIVE,
    PROBABILITY,
    WHOLE,
    OneOrMany,
    auto_augment,
)

VIEWS = ["timm", "simclr", "simclr-keepcolor"]
TRAIN_CROPS = ["rrc", "rkrc", "rkrr"]

_SIMCLR_VIEWS = ("simclr", "simclr-keepcolor")
_MIXED = ("mixup", "cutmix", "cutmix_minmax")


def is_mixing(args: argparse.Namespace) -> bool:
    """Return whether images are mixed, in a full view made for that."""
    return args.mixup > 0 or cuts(args)


def cuts(args: argparse.Namespace) -> bool:
    """Return whether parts of images are pasted into others."""
    return args.cutmix > 0 or args.cutmix_minmax is not None


def _only_light_views(args: argparse.Namespace) -> bool:
    return args.classify_view == "weak" and not args.simclr_loss_weight and not is_mixing(args)


def _jitters(args: argparse.Namespace) -> bool:
    return any(args.color_jitter) if isinstance(args.color_jitter, list) else bool(args.color_jitter)


_LIGHT = "--classify-view weak alone makes one view, cropped and flipped"
_LIGHT_DESTS = ("simclr_loss_weight", "classify_view", *_MIXED)
_WEAK = "--classify-view weak"
_FULL = Need("-wls above 0", _LIGHT_DESTS, lambda args: not _only_light_views(args), _LIGHT, beside=_WEAK)
_AUGMENTED = off("no_aug", "it only resizes")
_OF_TIMM = among("views", ("timm",), "SimCLR's views are a policy of their own, set by --view-strength")
_CHANGED = (_OF_TIMM, _AUGMENTED, _FULL)  # what changes a full view of timm's
_POLICY = Need(
    "--aa",
    ("aa",),
    lambda args: not args.aa or "3a" in args.aa,
    "the policy replaces the jitter, unless it is 3a; leave one of them out",
    verb="excludes",
)
_JITTERED = Need("--color-jitter above 0", ("color_jitter",), _jitters, "there is no jitter otherwise")
_ERASING = above(0, "reprob", "nothing is erased at probability 0")
_HEADS = with_labels("it makes a view for the attribute heads, which that loss alone trains")
_MIXING = Need("--mixup or --cutmix", _MIXED, is_mixing, "nothing is mixed without them")
_BOTH = Need("--mixup and --cutmix", _MIXED, lambda args: args.mixup > 0 and cuts(args), "it chooses between the two")


def view_flags(group: Group) -> None:
    """Declare what makes the views, and where."""
    add = group.value
    views = "what makes the views: timm's flags below, SimCLR's policy, or that without hue, gray and saturation"
    on_device = Need(
        _FULL.wanted,
        (*_LIGHT_DESTS, "augment_on"),
        lambda args: args.augment_on == "device" or not _only_light_views(args),
        _LIGHT,
        beside=_WEAK,
    )
    add("--views", VIEWS, "timm", views, needs=(_AUGMENTED, on_device))
    place = "where the views of --views simclr are made: by the workers, or a whole batch at a time on the device"
    needs = (
        among("views", _SIMCLR_VIEWS, "timm's policies are made on the CPU"),
        off("no_prefetcher", "the prefetcher makes the views"),
        among("train_interpolation", ("random", "bilinear", "bicubic"), "the device resizes in no other way"),
    )
    add("--augment-on", ["cpu", "device"], "cpu", place, needs=needs)
    strong = (among("views", _SIMCLR_VIEWS, "timm's views have flags of their own"), _FULL)
    add("--view-strength", POSITIVE, 1.0, "strength of the color distortion of --views simclr", needs=strong)


def augmentation_flags(group: Group) -> None:
    """Declare timm's augmentation: crops and flips, colors, policies, erasing."""
    add, switch = group.value, group.switch
    # crops and flips
    switch("--no-aug", "only resize to the input size")
    crop = "random resized crop, or keep the ratio and crop (default: rrc)"
    add("--train-crop-mode", TRAIN_CROPS, None, crop, needs=_CHANGED)
    area = "smallest and largest crop, as a share of the area"
    add("--scale", POSITIVE, [0.08, 1.0], area, nargs=2, needs=(_AUGMENTED, _FULL))
    sides = "smallest and largest ratio of a crop's sides"
    add("--ratio", POSITIVE, [3 / 4, 4 / 3], sides, nargs=2, needs=(_AUGMENTED,))
    add("--hflip", PROBABILITY, 0.5, "probability of mirroring left to right", off=(0.0,), needs=(_AUGMENTED,))
    add("--vflip", PROBABILITY, 0.0, "probability of mirroring top to bottom", needs=(_AUGMENTED,))
    add("--train-interpolation", ["random", *RESIZES], "random", "how images are resized for training")

    # colors
    jitter = "change of brightness, contrast and saturation: 1 value, or 3, or 4 with hue; not used with --aa"
    nothing = (0.0, [0.0] * 3, [0.0] * 4)
    needs = (*_CHANGED, _POLICY)
    add("--color-jitter", NONNEGATIVE, 0.4, jitter, nargs="+", action=OneOrMany, off=nothing, needs=needs)
    jittered = "probability of the color jitter (default: always)"
    add("--color-jitter-prob", PROBABILITY, None, jittered, off=(0.0,), needs=(*needs, _JITTERED))
    colored = Need(
        "--input-size with 3 channels",
        ("input_size",),
        lambda args: not args.input_size or args.input_size[0] != 1,
        "gray images have no color to lose",
    )
    add("--grayscale-prob", PROBABILITY, 0.0, "probability of losing all color", needs=(*_CHANGED, colored))
    add("--gaussian-blur-prob", PROBABILITY, 0.0, "probability of a blur", needs=_CHANGED)
    policy = "automatic augmentation: rand-m9-mstd0.5, augmix, v0, ..."
    add("--aa", auto_augment, None, policy, metavar="POLICY", needs=_CHANGED)

    # several copies of an image
    add("--aug-repeats", WHOLE, 0, "copies of an image in an epoch, one on each of several processes; 0 is off")
    splits = "copies of an image, the first one clean, that are classified; 0 is off"
    read = with_labels("the attribute heads read the splits, which that loss alone trains")
    add("--aug-splits", WHOLE, 0, splits, needs=(*_CHANGED, read))
    divergence = "add a loss on how much the predictions of the splits differ (Jensen-Shannon divergence)"
    compared = on("aug_splits", "the loss compares at least two splits (--aug-splits 3)")
    switch("--jsd", divergence, needs=(compared,))

    # erasing
    add("--reprob", PROBABILITY, 0.0, "probability of erasing a rectangle", needs=(_AUGMENTED, _FULL))
    fill = "fill the rectangle with zeros, a random color, or one for each pixel"
    add("--remode", ["const", "rand", "pixel"], "const", fill, needs=(_ERASING,))
    add("--recount", COUNT, 1, "maximum number of rectangles in an image", needs=(_ERASING,))
    batched = off("no_prefetcher", "without the prefetcher images are erased one by one, before there is a batch")
    switch("--resplit", "leave the first split, or half of the batch, without erasing", needs=(_ERASING, batched))


def mixing_flags(group: Group) -> None:
    """Declare mixup and cutmix."""
    add = group.value
    add("--mixup", NONNEGATIVE, 0.0, "alpha of mixup, which blends two images; 0 is off", needs=(_HEADS,))
    add("--cutmix", NONNEGATIVE, 0.0, "alpha of cutmix, which pastes part of another image; 0 is off", needs=(_HEADS,))
    shares = "smallest and largest share of the side to paste; turns cutmix on"
    add("--cutmix-minmax", FRACTION, None, shares, nargs=2, needs=(_HEADS,))
    often = "probability of mixing a batch, or an image"
    add("--mixup-prob", PROBABILITY, 1.0, often, off=(0.0,), needs=(_MIXING,))
    add("--mixup-switch-prob", PROBABILITY, 0.5, "probability of cutmix where both are on", needs=(_BOTH,))
    modes = ["batch", "pair", "elem"]
    add("--mixup-mode", modes, "batch", "what shares one draw of the mixture", needs=(_MIXING,))
    add("--mixup-off-epoch", WHOLE, 0, "epoch from which nothing is mixed; 0 is never", needs=(_MIXING,))


def view_conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags of this file."""
    yield from _mixing_conflicts(args)
    yield from _copy_conflicts(args)
    for dest in ("scale", "ratio", "cutmix_minmax"):
        low, high = getattr(args, dest) or (0, 0)
        if low > high:
            yield f"{flag(dest)} is {low:g} to {high:g}: give the smaller value first"
    if isinstance(args.color_jitter, list) and len(args.color_jitter) not in (3, 4):
        yield "--color-jitter takes 1 value, or 3 (brightness, contrast, saturation), or 4 (and hue)"
    if isinstance(args.color_jitter, list) and args.color_jitter[3:] and args.color_jitter[3] > 0.5:
        yield f"--color-jitter turns the hue by at most 0.5 (half the color circle), not {args.color_jitter[3]:g}"


def _mixing_conflicts(args: argparse.Namespace) -> Iterator[str]:
    mixing = is_mixing(args)
    if mixing and args.batch_size % 2:
        yield f"--mixup and --cutmix need an even --batch-size, not {args.batch_size}: they mix images in pairs"
    if mixing and (args.aug_splits or args.jsd):
        yield "--mixup and --cutmix exclude --aug-splits and --jsd: mixed images have no single label to compare"
    if args.cutmix_minmax and args.cutmix not in (0, 1):
        yield f"--cutmix {args.cutmix:g} excludes --cutmix-minmax, which draws the size itself: leave one of them out"


def _copy_conflicts(args: argparse.Namespace) -> Iterator[str]:
    if args.aug_splits == 1:
        yield "--aug-splits 1 splits nothing: use 0, or at least 2 (one clean split and one augmented)"
    if args.classify_view and args.aug_splits:
        yield f"--classify-view {args.classify_view} excludes --aug-splits: the heads read the splits"
    if args.aug_repeats and args.simclr_loss_weight > 0:
        yield "--aug-repeats needs -wls 0: an image's copies on other processes would be its own negatives"
    if args.no_aug and args.simclr_loss_weight > 0:
        yield "--no-aug needs -wls 0: without augmentation both views would be the same image"
