"""Flags that several commands share: preprocessing, device and precision, loading."""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from options.parser import Group
from options.rules import Need, flag, on
from options.values import FRACTION, POSITIVE, SIDE, WORKERS, separator, views_at_test
from runtime.slurm import slurm_tasks

TRAINED_MODEL = "the trained model: the folder of a run, or a file such as its model_best.pth.tar"
# what to do when memory is exhausted
SMALLER = "use a smaller --batch-size or --img-size"
SMALLER_TRAINING = f"{SMALLER}, or --grad-checkpointing; --grad-accum-steps keeps the number of images per update"

RESIZES = ["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
CROPS = ["center", "squash", "border"]

ENGINES = ["auto", "torch", "onnx"]

TABLE_REFUSED = "images are listed in tables, one row per image; leave it out (README describes the columns)"
APEX_REFUSED = "NVIDIA Apex's mixed precision is no longer developed; use --amp, which is PyTorch's own"
TORCHSCRIPT_REFUSED = (
    "TorchScript is deprecated in PyTorch and cannot express a model that returns different things in training "
    "and evaluation; use --torchcompile"
)


# Logged instead of refused, so that one command runs on one process and on several.
SEVERAL = Need(
    "several processes (distributed_train.sh N)",
    (),
    lambda args: processes() > 1,
    "there is only one process",
    noted=True,
)
# checked when the device is known: see `Parser.notes`
ON_GPU = Need(
    "a GPU",
    ("device",),
    lambda args: not str(args.device or "").startswith("cpu"),
    "the device is the CPU",
    noted=True,
)


def preprocessing_flags(group: Group, default: str) -> None:
    """Declare the flags of the model's input; `default` names whose settings apply without them."""
    add = group.value
    size = ("input_size", "both set the image size, and --input-size sets the channels too")
    add("--img-size", SIDE, None, f"side of the square RGB input in pixels (default: {default})", excludes=size)
    add("--input-size", SIDE, None, f"channels (1 or 3), height and width (default: {default})", nargs=3)
    kept = f"share of each side that the center crop keeps in scoring (default: {default})"
    add("--crop-pct", POSITIVE.since(0.05).to(20), None, kept)
    add("--crop-mode", CROPS, None, f"fit images to the input when scoring: cut, squeeze, or pad (default: {default})")
    add("--mean", FRACTION, None, f"channel means to subtract (default: {default})", nargs="+")
    divisors = f"channel standard deviations to divide by (default: {default})"
    add("--std", FRACTION.since(1e-4), None, divisors, nargs="+")
    add("--interpolation", ["", *RESIZES], "", f"how images are resized when scoring (default: {default})")


def precision_flags(group: Group, compiles: bool = True) -> None:
    """Declare the device, the number formats and, if the command compiles its model, the compiler."""
    add, switch = group.value, group.switch
    add("--device", "NAME", None, "cpu, cuda, cuda:1, mps, ... (default: cuda if there is one, else cpu)")
    switch("--amp --native-amp", "use mixed precision")
    needs = (on("amp", "it is the number format of mixed precision"),)
    formats = ["float16", "bfloat16"]
    default = "float16 on cuda, bfloat16 on cpu"
    add("--amp-dtype", formats, None, f"number format of mixed precision (default: {default})", needs=needs)
    if compiles:
        compiler = "compile the model (with inductor by default)"
        add("--torchcompile", "BACKEND", None, compiler, nargs="?", const="inductor")
    switch("--channels-last", "channels-last memory format: convolutions are faster, others no slower", default=True)


def engine_flag(group: Group) -> None:
    """Declare the program that computes the model's outputs."""
    engine = (
        "what runs the model: PyTorch, or onnxruntime, which is faster on a CPU (pip install -r "
        "requirements-export.txt); auto takes it for jobs of more than 40 seconds if a batch is faster with it"
    )
    group.value("--engine", ENGINES, "auto", engine)


def model_dtype_flag(group: Group) -> None:
    """Declare the format of the weights."""
    formats = ["float32", "bfloat16", "float16"]
    group.value("--model-dtype", formats, None, "number format of the weights (default: float32)")


def loading_flags(group: Group) -> None:
    """Declare how images are loaded."""
    workers = "worker processes of each rank that load images; 0 loads in the main process"
    group.value("--workers -j", WORKERS, 4, workers)
    pinned = "load into page-locked memory, from which copies to a GPU are faster"
    group.switch("--pin-mem", pinned, needs=(ON_GPU,))
    group.switch("--no-prefetcher", "normalize on the CPU instead of the device, and copy no batch ahead")


def unreadable_flag(group: Group) -> None:
    """Declare how many images may fail to open."""
    unreadable = "fraction of a table's images that may be unreadable before the run fails; 10 images always may"
    group.value("--max-unreadable", FRACTION, 0.01, unreadable)


def multi_valued_flags(group: Group) -> None:
    """Declare the columns whose cells hold several values, where labels define the classes."""
    several = "columns whose cells hold several values (default: all with the separator in a cell; no NAME: none)"
    group.value("--multi-valued", "NAME", None, several, nargs="*")
    separator_flag(group, "|; a resumed run as before")


def separator_flag(group: Group, default: str) -> None:
    """Declare the text between the values of a cell; `default` says which applies without the flag."""
    text = f"text between the values of a cell, such as ';' in 'striped;cotton' (default: {default})"
    group.value("--separator", separator, None, text, metavar="TEXT")


def image_root_flag(group: Group) -> None:
    """Declare the folder of the images."""
    folder = "folder that the image paths in tables are relative to (default: the table's folder, or the working one)"
    group.value("--image-root", "FOLDER", "", folder)


def data_flag(group: Group) -> None:
    """Declare the folder that names the classes of a checkpoint of the original."""
    group.value(
        "--data", "DATA", None, "folder whose table names the classes of a checkpoint of the original, which has none"
    )


def spreadsheet_flag(group: Group) -> None:
    """Declare whether spreadsheets must not run what CSV files hold."""
    safe = "put an apostrophe before texts in CSV files that a spreadsheet would run, such as =1+1; reading drops it"
    group.switch("--spreadsheet-safe", safe)


def tta_flag(group: Group) -> None:
    """Declare test-time augmentation."""
    copies = "predictions to average per image when scoring: 0 is off, 2 adds the mirror image"
    group.value("--tta", views_at_test, 0, copies)


def processes() -> int:
    """Return the number of processes that the launcher started; 1 if its variables are no numbers."""
    try:
        return int(os.environ.get("WORLD_SIZE") or slurm_tasks())
    except ValueError:
        return 1  # the sentence about it comes when the processes join


_SPLITS = ("all", "train", "val", "validation", "test")
_TABLES = (".csv", ".tsv", ".parquet", ".gz")


def replaced_inputs(written: Mapping[str, str | None], read: Sequence[str | None]) -> Iterator[str]:
    """Yield a sentence for each file to write that the command reads, or that is a split of a folder that it reads.

    Args:
        written: the files to write, by their flag.
        read: files and folders that the command reads.
    """
    places = [Path(one).resolve() for one in read if one]
    for name, text in written.items():
        path = Path(text or "").resolve()
        is_split = path.name.lower().endswith(_TABLES) and path.name.partition(".")[0] in _SPLITS
        if text and path.is_file() and (path in places or (path.parent in places and is_split)):
            yield f"{name} {text} is among what this command reads, and would be replaced: name another file"


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
