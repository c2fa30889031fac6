"""The flags of train.py about loading images: workers, decoding, caches."""

from dataclasses import replace

from options.parser import Group
from options.rules import Need, above, among, off
from options.shared import loading_flags
from options.train_views import mixes_images

LOADED_AGAIN = Need(
    "--freeze-backbone together with --no-aug",
    ("freeze_backbone", "no_aug", "tta", "mixup", "cutmix", "cutmix_minmax"),
    lambda args: not (args.freeze_backbone and args.no_aug and not args.tta and not mixes_images(args)),
    "images are read only once, to compute features",
    verb="excludes",
)


def train_loading_flags(group: Group) -> None:
    """Declare how images are decoded, kept and loaded."""
    add, switch = group.value, group.switch
    loading_flags(group)
    working = above(0, "workers", "the main process loads the images")
    kept = "keep the workers, and the batches they prefetch, from epoch to epoch"
    switch("--use-multi-epochs-loader", kept, needs=(working, replace(LOADED_AGAIN, noted=True)))
    seeding = "all seeds every random generator of a worker; part leaves NumPy's to PyTorch"
    add("--worker-seeding", ["all", "part"], "all", seeding, needs=(working,))
    cache = (
        "keep decoded images in memory that all processes share (ram), on disk for later runs too, or, with "
        "--augment-on device, in the memory of each device. Images are kept at their original size: shrink files far "
        "above --img-size first"
    )
    add("--cache", ["none", "ram", "disk", "device"], "none", cache)
    cropped = Need(
        "--train-crop-mode rrc",
        ("train_crop_mode",),
        lambda args: args.train_crop_mode in (None, "rrc"),
        "the other crops resize the whole image",
    )
    whole = (
        among("cache", ("none",), "caches keep whole images"),
        among("augment_on", ("cpu",), "the device gets whole images"),
        off("no_aug", "it resizes the whole image"),
        cropped,
    )
    decoding = (
        "decode the JPEGs of training images in full, or reduced to 1/2, 1/4 or 1/8 if all crops of an image still "
        "have the pixels of their views; this is faster for photographs of several times --img-size. Scoring decodes "
        "in full"
    )
    add("--decode", ["full", "reduced"], "full", decoding, off=("full",), needs=whole)
    folder = "folder of --cache disk (default: ~/.cache/simclr-multi-label)"
    needs = (among("cache", ("disk",), "the other caches need no folder"),)
    add("--cache-dir", "FOLDER", "", folder, needs=needs)
