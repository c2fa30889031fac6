"""The flags of validate.py."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from options.parser import Parser, parse
from options.rules import Need
from options.shared import (
    APEX_REFUSED,
    TABLE_REFUSED,
    TORCHSCRIPT_REFUSED,
    image_root_flag,
    loading_flags,
    model_dtype_flag,
    precision_flags,
    preprocessing_flags,
    processes,
    replaced_inputs,
    separator_flag,
    shared_conflicts,
    spreadsheet_flag,
    tta_flag,
    unreadable_flag,
)
from options.values import BATCH, COUNT, STEPS

_NO_POOLING = Need("", (), lambda args: False, "there is no pooling over larger images to turn off", noted=True)


def parse_validate_args(argv: Sequence[str] | None = None, check_paths: bool = False) -> argparse.Namespace:
    """Return the options of validate.py; on a mistake, print a sentence and exit with status 2.

    Args:
        argv: the words after the command's name; None reads them from `sys.argv`.
        check_paths: whether a missing folder or file is a mistake too.
    """
    return parse(validate_parser(), argv, check_paths, _conflicts)


def validate_parser() -> Parser:
    """Return the parser of validate.py."""
    parser = Parser(
        "validate.py", "Score one or more checkpoints on a split of the data.", "DATA --checkpoint FILE [flags]"
    )
    group = parser.group("Scoring")
    add = group.value
    add("data", "DATA", None, "folder that holds the tables: train.csv, val.csv, ...", nargs="?")
    add("--data-dir", "DATA", None, "DATA as a flag", dest="data")
    add("--split", "NAME", "validation", "split to score: train, validation (val.csv), test, ...")
    add("--checkpoint", "FILE", "", "a checkpoint, a folder of checkpoints, or a pattern such as 'run/*'")
    add("--model -m", "NAME", None, "architecture, or a pattern, of the checkpoints to score (default: all)")
    group.switch("--use-ema", "score the moving average of the weights (EMA)")
    add("--results-file", "FILE", "", "file for the results, .csv or .json")
    tables = "write per-class tables to FOLDER; without FOLDER, next to the results"
    add("--per-class", "FOLDER", None, tables, nargs="?", const="")
    page = "write a page with scores, confusions, mistakes and a map to FILE; without FILE, next to the results"
    add("--report", "FILE", None, page, nargs="?", const="")
    spreadsheet_flag(group)
    calibrated = (
        "fit a temperature by attribute on the split, and write a copy of the checkpoint with them to FILE, which may "
        "be the checkpoint itself"
    )
    add("--calibrate", "FILE", "", calibrated)
    image_root_flag(group)
    separator_flag(group, "the checkpoint's")
    unreadable_flag(group)
    add("--batch-size -b", BATCH, 256, "images per process and step")
    tta_flag(group)
    add("--log-freq", STEPS, 10, "batches between log lines")
    group.switch("--no-latency", "do not time the model on single images")
    pooling = "no effect; accepted because older commands give it"
    group.bare("--no-test-pool", pooling, needs=(_NO_POOLING,))
    preprocessing_flags(parser.group("Preprocessing"), "the checkpoint's")
    group = parser.group("Device and precision")
    precision_flags(group)
    model_dtype_flag(group)
    loading_flags(parser.group("Loading"))
    _refused(parser)
    return parser


def _refused(parser: Parser) -> None:
    """Declare the original's flags that are refused."""
    group = parser.group("Refused")
    refuse = group.refuse
    classes = "the checkpoint holds its attributes and their classes; leave it out"
    imagenet = "it corrects ImageNet's labels; leave it out, and correct labels in the table"
    refuse("--dataset -d", "NAME", "", TABLE_REFUSED, off=("table",))
    refuse("--num-classes", COUNT, None, classes)
    refuse("--class-map", "FILE", "", classes)
    refuse("--gp", "NAME", None, "the checkpoint holds its model's pooling; leave it out")
    refuse("--pretrained", None, False, "ImageNet weights know none of the table's attributes; use --checkpoint")
    one = "one process drives one GPU; start several with torchrun --nproc-per-node N validate.py"
    refuse("--num-gpu", COUNT, 1, one)
    refuse("--apex-amp", None, False, APEX_REFUSED)
    tensorflow = "it needs TensorFlow 1, and suited only weights converted from it; use --interpolation"
    refuse("--tf-preprocessing", None, False, tensorflow)
    refuse("--torchscript", None, False, TORCHSCRIPT_REFUSED)
    jit = "it chose between executors of TorchScript, which is deprecated; use --torchcompile"
    refuse("--legacy-jit", None, False, jit)
    refuse("--real-labels", "FILE", "", imagenet)
    refuse("--valid-labels", "FILE", "", imagenet)


def _conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags."""
    if not args.data:
        yield "DATA is missing: the folder that holds val.csv or test.csv"
    yield from shared_conflicts(args)
    written = {"--results-file": args.results_file, "--calibrate": args.calibrate, "--report": args.report}
    yield from replaced_inputs(written, [args.data, args.split])
    if args.spreadsheet_safe and args.per_class is None and not args.results_file.lower().endswith(".csv"):
        yield "--spreadsheet-safe is about CSV files: name one with --results-file or add --per-class"
    if args.report is not None and processes() > 1:
        yield "--report reads the images in one process: start a single one, without torchrun"
    if args.report and not args.report.lower().endswith((".html", ".htm")):
        yield f"--report {args.report} does not end in .html: name the page to write"
    if args.report and args.checkpoint and not Path(args.checkpoint).is_file():
        yield f"--report {args.report} is one page, and --checkpoint {args.checkpoint} may be several: leave it out"
    if not args.checkpoint:
        yield "--checkpoint is missing: the file that holds the trained model (model_best.pth.tar of a run)"
