"""The flags of inference.py."""

import argparse
from collections.abc import Iterator, Sequence

from options.parser import Parser, parse
from options.shared import (
    data_flag,
    engine_flag,
    image_root_flag,
    loading_flags,
    precision_flags,
    preprocessing_flags,
    replaced_inputs,
    shared_conflicts,
    spreadsheet_flag,
    tta_flag,
)
from options.values import BATCH, COUNT, STEPS, predictions_file, probabilities_file


def parse_inference_args(argv: Sequence[str] | None = None, check_paths: bool = False) -> argparse.Namespace:
    """Return the options of inference.py; on a mistake, print a sentence and exit with status 2.

    Args:
        argv: the words after the command's name; None reads them from `sys.argv`.
        check_paths: whether a missing folder or file is a mistake too.
    """
    return parse(inference_parser(), argv, check_paths, _conflicts)


def inference_parser() -> Parser:
    """Return the parser of inference.py."""
    usage = "INPUT [INPUT ...] --checkpoint FILE [flags]"
    parser = Parser("inference.py", "Label new images with a checkpoint.", usage)
    group = parser.group("Labeling")
    add = group.value
    add("input", "INPUT", None, "images, a folder of images, or a table with a column image_path", nargs="+")
    models = "the trained model: the folder of a run, or a file; given several times, their probabilities are averaged"
    add("--checkpoint", "FILE", None, models, action="append")
    group.switch("--use-ema", "label with the moving average of the weights (EMA)")
    predictions = "file to write; its ending, .csv, .json or .parquet, is its format"
    add("--output -o", predictions_file, "predictions.csv", predictions, metavar="FILE")
    spreadsheet_flag(group)
    all_classes = "also write the probability of every class, as Parquet: the soft labels of a teacher"
    add("--probabilities", probabilities_file, "", all_classes, metavar="FILE.parquet")
    data_flag(group)
    image_root_flag(group)
    add("--topk", COUNT, 1, "number of most probable classes to write for each attribute")
    add("--batch-size -b", BATCH, 64, "images per step")
    tta_flag(group)
    add("--log-freq", STEPS, 10, "batches between log lines")
    preprocessing_flags(parser.group("Preprocessing"), "the checkpoint's")
    computing = parser.group("Device and precision")
    precision_flags(computing)
    engine_flag(computing)
    loading_flags(parser.group("Loading"))
    return parser


def _conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags."""
    yield from shared_conflicts(args)
    if not args.checkpoint:
        yield "--checkpoint is missing: the file that holds the trained model (model_best.pth.tar of a run)"
    if args.spreadsheet_safe and not args.output.endswith(".csv"):
        yield f"--spreadsheet-safe is about CSV, and --output {args.output} is not: leave it out"
    yield from replaced_inputs({"--output": args.output, "--probabilities": args.probabilities}, args.input)
    if args.probabilities and args.probabilities == args.output:
        yield "--probabilities and --output name one file: choose two names"
