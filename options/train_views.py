"""The flags of train.py about views, augmentation and mixing."""

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
MIXED = ("mixup", "cutmix", "cutmix_minmax")


def mixes_images(args: argparse.Namespace) -> bool:
    """Return whether mixup or cutmix mixes images, in a full view of their own."""
    return args.mixup > 0 or cuts(args)


def cuts(args: argparse.Namespace) -> bool:
    """Return whether cutmix is on."""
    return args.cutmix > 0 or args.cutmix_minmax is not None


def _only_light_views(args: argparse.Namespace) -> bool:
    lone = args.classify_view == "weak" and not args.simclr_loss_weight and not mixes_images(args)
    return lone and not (args.pseudo == "ema" and args.pseudo_weight)


def _jitters(args: argparse.Namespace) -> bool:
    return any(args.color_jitter) if isinstance(args.color_jitter, list) else bool(args.color_jitter)


_LIGHT = "--classify-view weak alone makes one view, which is only cropped and flipped"
_LIGHT_DESTS = ("simclr_loss_weight", "classify_view", "pseudo", "pseudo_weight", *MIXED)
_WEAK = "--classify-view weak"
_FULL = Need("-wls above 0", _LIGHT_DESTS, lambda args: not _only_light_views(args), _LIGHT, only_with=_WEAK)
_AUGMENTED = off("no_aug", "it only resizes")
_BY_TIMM = among("views", ("timm",), "SimCLR's views follow a fixed policy, which only --view-strength changes")
_CHANGED = (_BY_TIMM, _AUGMENTED, _FULL)  # for flags that change timm's full views
_POLICY = Need(
    "--aa",
    ("aa",),
    lambda args: not args.aa or "3a" in args.aa,
    "policies other than 3a replace the jitter; leave one of them out",
    verb="excludes",
)
_JITTERED = Need("--color-jitter above 0", ("color_jitter",), _jitters, "there is no jitter otherwise")
_ERASING = above(0, "reprob", "nothing is erased at probability 0")
_HEADS = with_labels("it makes a view for the attribute heads, which only that loss trains")
_MIXING = Need("--mixup or --cutmix", MIXED, mixes_images, "nothing is mixed without them")
_BOTH = Need("--mixup and --cutmix", MIXED, lambda args: args.mixup > 0 and cuts(args), "it chooses between the two")


def view_flags(group: Group) -> None:
    """Declare how the views are made, and where."""
    add = group.value
    views = "policy of the views: timm's flags below, SimCLR's, or SimCLR's without changes of hue, saturation and gray"
    on_device = Need(
        _FULL.wanted,
        (*_LIGHT_DESTS, "augment_on"),
        lambda args: args.augment_on == "device" or not _only_light_views(args),
        _LIGHT,
        only_with=_WEAK,
    )
    add("--views", VIEWS, "timm", views, needs=(_AUGMENTED, on_device))
    place = "where SimCLR's views are made: by the workers on the CPU, or on the device, a whole batch at a time"
    needs = (
        among("views", _SIMCLR_VIEWS, "timm's policies are made on the CPU"),
        off("no_prefetcher", "the prefetcher makes the views"),
        among("train_interpolation", ("random", "bilinear", "bicubic"), "the device has no other interpolation"),
    )
    add("--augment-on", ["cpu", "device"], "cpu", place, needs=needs)
    strong = (among("views", _SIMCLR_VIEWS, "other flags set timm's views"), _FULL)
    add("--view-strength", POSITIVE.to(100), 1.0, "strength of the color distortion in SimCLR's views", needs=strong)


def augmentation_flags(group: Group) -> None:
    """Declare timm's augmentation: crops and flips, colors, policies, erasing."""
    add, switch = group.value, group.switch
    # crops and flips
    switch("--no-aug", "only resize to the input size")
    crop = "rrc: random resized crop; rkrc, rkrr: keep the aspect ratio and crop the center or at random (default: rrc)"
    add("--train-crop-mode", TRAIN_CROPS, None, crop, needs=_CHANGED)
    area = "smallest and largest crop, as a fraction of the image's area"
    add("--scale", POSITIVE.to(1), [0.08, 1.0], area, nargs=2, needs=(_AUGMENTED, _FULL))
    sides = "smallest and largest aspect ratio of a crop"
    add("--ratio", POSITIVE.since(0.01).to(100), [3 / 4, 4 / 3], sides, nargs=2, needs=(_AUGMENTED,))
    add("--hflip", PROBABILITY, 0.5, "probability of a horizontal flip", off=(0.0,), needs=(_AUGMENTED,))
    add("--vflip", PROBABILITY, 0.0, "probability of a vertical flip", needs=(_AUGMENTED,))
    add("--train-interpolation", ["random", *RESIZES], "random", "how images are resized for training")

    # colors
    jitter = "strength of brightness, contrast and saturation changes: 1 value, 3, or 4 with hue; --aa replaces it"
    nothing = (0.0, [0.0] * 3, [0.0] * 4)
    needs = (*_CHANGED, _POLICY)
    add("--color-jitter", NONNEGATIVE.to(100), 0.4, jitter, nargs="+", action=OneOrMany, off=nothing, needs=needs)
    jittered = "probability of the color jitter (default: always)"
    add("--color-jitter-prob", PROBABILITY, None, jittered, off=(0.0,), needs=(*needs, _JITTERED))
    colored = Need(
        "--input-size with 3 channels",
        ("input_size",),
        lambda args: not args.input_size or args.input_size[0] != 1,
        "gray images have no color",
    )
    add("--grayscale-prob", PROBABILITY, 0.0, "probability of conversion to gray", needs=(*_CHANGED, colored))
    add("--gaussian-blur-prob", PROBABILITY, 0.0, "probability of a Gaussian blur", needs=_CHANGED)
    policy = "augmentation policy: rand-m9-mstd0.5, augmix, v0, ..."
    add("--aa", auto_augment, None, policy, metavar="POLICY", needs=_CHANGED)

    # several copies of an image
    copies = "augmented copies of each image in an epoch, spread over the processes; 0 is off"
    add("--aug-repeats", WHOLE.to(1000), 0, copies)
    splits = "copies of each image to classify: one clean, the others augmented; 0 is off"
    read = with_labels("the splits go to the attribute heads, which only that loss trains")
    add("--aug-splits", WHOLE.to(100), 0, splits, needs=(*_CHANGED, read))
    divergence = "add to the loss the Jensen-Shannon divergence between the predictions of the splits"
    compared = on("aug_splits", "the loss compares at least two splits (--aug-splits 3)")
    switch("--jsd", divergence, needs=(compared,))

    # erasing
    add("--reprob", PROBABILITY, 0.0, "probability of erasing a rectangle", needs=(_AUGMENTED, _FULL))
    fill = "fill of the rectangle: zeros, one random color, or a random color per pixel"
    add("--remode", ["const", "rand", "pixel"], "const", fill, needs=(_ERASING,))
    add("--recount", COUNT.to(1000), 1, "maximum number of rectangles per image", needs=(_ERASING,))
    batched = off("no_prefetcher", "without the prefetcher, workers erase image by image and cannot spare a view")
    spared = "erase nothing in the first full view of each image; with a single view, in half of the batch"
    switch("--resplit", spared, needs=(_ERASING, batched))


def mixing_flags(group: Group) -> None:
    """Declare mixup and cutmix."""
    add = group.value
    add("--mixup", NONNEGATIVE, 0.0, "alpha of mixup, which blends two images; 0 is off", needs=(_HEADS,))
    add("--cutmix", NONNEGATIVE, 0.0, "alpha of cutmix, which pastes part of another image; 0 is off", needs=(_HEADS,))
    shares = "smallest and largest side of the pasted part, as a fraction of the image's; turns cutmix on"
    add("--cutmix-minmax", FRACTION, None, shares, nargs=2, needs=(_HEADS,))
    often = "probability of mixing, drawn for each batch, pair or image as --mixup-mode says"
    add("--mixup-prob", PROBABILITY, 1.0, often, off=(0.0,), needs=(_MIXING,))
    add("--mixup-switch-prob", PROBABILITY, 0.5, "probability of cutmix when mixup is on too", needs=(_BOTH,))
    drawn = "draw the mixing ratio once per batch, per pair of images, or per image (elem)"
    add("--mixup-mode", ["batch", "pair", "elem"], "batch", drawn, needs=(_MIXING,))
    add("--mixup-off-epoch", WHOLE, 0, "index of the epoch that stops mixing; 0 never stops", needs=(_MIXING,))


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
    mixing = mixes_images(args)
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
        yield "--no-aug needs -wls 0: without augmentation both views would be equal"
