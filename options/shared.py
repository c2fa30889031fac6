"""Flags that several commands share: preprocessing, device and precision, loading."""

import argparse
import os
from collections.abc import Iterator

from options.parser import Group
from options.rules import Need, flag, on
from options.values import COUNT, FRACTION, POSITIVE, REAL, WHOLE, views_at_test

RESIZES = ["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
CROPS = ["center", "squash", "border"]

TABLE_REFUSED = "data come as tables, one row an image; leave it out, and see README for the columns"
APEX_REFUSED = "NVIDIA Apex's mixed precision is no longer developed; use --amp, which is PyTorch's own"
TORCHSCRIPT_REFUSED = (
    "TorchScript is deprecated in PyTorch and cannot express a model that returns different things in training "
    "and evaluation; use --torchcompile"
)


# One process needs none of this, and a command that also runs on several must not fail on it: it is logged.
SEVERAL = Need(
    "several processes (distributed_train.sh N)",
    (),
    lambda args: processes() > 1,
    "it is about several processes, and this is the only one",
    noted=True,
)
# checked when the device is known: see `Parser.notes`
ON_GPU = Need(
    "a GPU",
    ("device",),
    lambda args: not str(args.device or "").startswith("cpu"),
    "it is about a GPU, and the device is the CPU",
    noted=True,
)


def preprocessing_flags(group: Group, default: str) -> None:
    """Declare the flags of the model's input; `default` names whose settings apply without them."""
    add = group.value
    size = ("input_size", "both set the image size, and --input-size sets the channels too")
    add("--img-size", COUNT, None, f"side of the square RGB input in pixels (default: {default})", excludes=size)
    add("--input-size", COUNT, None, f"channels (1 or 3), height and width (default: {default})", nargs=3)
    add("--crop-pct", POSITIVE, None, f"share of the side kept by the center crop when scoring (default: {default})")
    add("--crop-mode", CROPS, None, f"when scoring: cut to a square, squeeze, or pad (default: {default})")
    add("--mean", REAL, None, f"mean of each channel, in 0..1, to subtract (default: {default})", nargs="+")
    add("--std", POSITIVE, None, f"standard deviation of each channel, to divide by (default: {default})", nargs="+")
    add("--interpolation", ["", *RESIZES], "", f"how images are resized when scoring (default: {default})")


def precision_flags(group: Group) -> None:
    """Declare the device and the number formats."""
    add, switch = group.value, group.switch
    add("--device", "NAME", None, "cpu, cuda, cuda:1, mps, ... (default: cuda if there is a GPU, else cpu)")
    switch("--amp --native-amp", "use mixed precision")
    needs = (on("amp", "it is the number format of mixed precision"),)
    formats = ["float16", "bfloat16"]
    default = "float16 on cuda, bfloat16 on cpu"
    add("--amp-dtype", formats, None, f"format of mixed precision (default: {default})", needs=needs)
    add("--torchcompile", "BACKEND", None, "compile the model (default backend: inductor)", nargs="?", const="inductor")
    switch("--channels-last", "store channels last in memory: faster for convolutions, no slower else", default=True)


def model_dtype_flag(group: Group) -> None:
    """Declare the format of the weights."""
    group.value("--model-dtype", ["float32", "bfloat16", "float16"], None, "format of the weights (default: float32)")


def loading_flags(group: Group) -> None:
    """Declare how images are loaded."""
    group.value("--workers -j", WHOLE, 4, "processes that load images; 0 loads in the main process")
    pinned = "load into page-locked memory, from which copies to a GPU are faster"
    group.switch("--pin-mem", pinned, needs=(ON_GPU,))
    group.switch("--no-prefetcher", "normalize on the CPU, and copy no batch ahead")


def unreadable_flag(group: Group) -> None:
    """Declare how many images may fail to open."""
    unreadable = "share of a table's images, 0..1, that may fail to open before the run fails; 10 images always may"
    group.value("--max-unreadable", FRACTION, 0.01, unreadable)


def tta_flag(group: Group) -> None:
    """Declare averaging over copies of an image."""
    copies = "copies of an image to average when scoring: 0, or 2 for the image and its mirror image"
    group.value("--tta", views_at_test, 0, copies)


def processes() -> int:
    """Return the number of processes that the launcher started, by the variables that timm reads."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1)


def shared_conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags of this file."""
    channels = args.input_size[0] if args.input_size else 3
    if channels not in (1, 3):
        yield f"--input-size has {channels} channels: images are read as gray (1) or RGB (3)"
    for dest in ("mean", "std"):
        values = getattr(args, dest)
        if values and len(values) not in (1, channels):
            yield f"{flag(dest)} has {len(values)} values: give 1 for all channels or {channels}, one for each"
    if args.amp and getattr(args, "model_dtype", None) not in (None, "float32"):
        yield f"--amp and --model-dtype {args.model_dtype} exclude each other: mixed precision keeps float32 weights"
    kind, colon, _ = (args.device or "").partition(":")
    if colon and processes() > 1:
        yield (
            f"--device {args.device} is one device for {processes()} processes, and each takes its own: "
            f"use --device {kind}"
        )
