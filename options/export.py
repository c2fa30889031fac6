"""The flags of export.py."""

import argparse
from collections.abc import Iterator, Sequence

from options.parser import Parser, parse
from options.rules import among, on
from options.shared import TRAINED_MODEL, data_flag, preprocessing_flags, shared_conflicts
from options.values import COUNT, WHOLE

ENDINGS = {"timm": "", "onnx": ".onnx", "torch": ".pt2"}  # a folder, and two kinds of files


def parse_export_args(argv: Sequence[str] | None = None, check_paths: bool = False) -> argparse.Namespace:
    """Return the options of export.py; on a mistake, print a sentence and exit with status 2.

    Args:
        argv: the words after the command's name; None reads them from `sys.argv`.
        check_paths: whether a missing folder or file is a mistake too.
    """
    return parse(export_parser(), argv, check_paths, _conflicts)


def export_parser() -> Parser:
    """Return the parser of export.py."""
    usage = "CHECKPOINT --format timm|onnx|torch [flags]"
    parser = Parser("export.py", "Write a checkpoint's model for other tools.", usage)
    group = parser.group("Exporting")
    add = group.value
    add("checkpoint", "CHECKPOINT", None, TRAINED_MODEL, nargs="?")
    add("--checkpoint", "FILE", None, "CHECKPOINT as a flag", dest="checkpoint")
    formats = "timm: a folder for timm and transformers; onnx: a file for onnxruntime; torch: a torch.export program"
    add("--format", list(ENDINGS), None, formats)
    add("--output -o", "PATH", "", "what to write (default: the checkpoint's name with another ending, beside it)")
    group.switch("--use-ema", "export the moving average of the weights (EMA)")
    data_flag(group)
    timm = (among("format", ["timm"], "the other formats keep the heads"),)
    group.switch("--backbone-only", "export the backbone without the heads", needs=timm)
    several = (among("format", ["onnx", "torch"], "a timm model has one output"),)
    more = "outputs beside the attributes: h, the representation, and z, its projection"
    add("--outputs", ["h", "z"], None, more, nargs="+", needs=several)
    onnx = among("format", ["onnx"], "it is made of an ONNX file")
    entry = "folder of a Triton Inference Server to add the model to"
    add("--triton", "FOLDER", "", entry, needs=(onnx,))
    data = "data folder for int8: its training images set the ranges, its validation table checks the loss of accuracy"
    add("--int8", "DATA", "", data, needs=(onnx,))
    on_int8 = (on("int8", "nothing else reads a table"),)
    add("--calibration-images", COUNT, 256, "training images that set the ranges of int8", needs=on_int8)
    add("--workers -j", WHOLE, 4, "worker processes that load images; 0 loads in the main process", needs=on_int8)
    images = "images to compare both models on: a folder, a table or image files (default: the run's validation table)"
    add("--images", "PATH", None, images, nargs="+")
    preprocessing_flags(parser.group("Preprocessing"), "the checkpoint's")
    return parser


def _conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags."""
    if not args.checkpoint:
        yield "CHECKPOINT is missing: the file that holds the trained model (model_best.pth.tar of a run)"
    if not args.format:
        yield f"--format is missing: one of {', '.join(ENDINGS)}"
    ending = ENDINGS.get(args.format or "", "")
    if args.output and ending and not args.output.endswith(ending):
        yield f"--output {args.output} does not end in {ending}, as a file of --format {args.format} does"
    yield from shared_conflicts(argparse.Namespace(**vars(args), device="cpu", amp=False))
