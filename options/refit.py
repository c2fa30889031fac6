"""The flags of refit.py."""

import argparse
from collections.abc import Iterator, Sequence

from options.parser import Parser, parse
from options.shared import (
    TRAINED_MODEL,
    image_root_flag,
    loading_flags,
    precision_flags,
    preprocessing_flags,
    replaced_inputs,
    separator_flag,
    shared_conflicts,
    unreadable_flag,
)
from options.values import BATCH, views_at_test


def parse_refit_args(argv: Sequence[str] | None = None, check_paths: bool = False) -> argparse.Namespace:
    """Return the options of refit.py; on a mistake, print a sentence and exit with status 2.

    Args:
        argv: the words after the command's name; None reads them from `sys.argv`.
        check_paths: whether a missing folder or file is a mistake too.
    """
    return parse(refit_parser(), argv, check_paths, _conflicts)


def refit_parser() -> Parser:
    """Return the parser of refit.py."""
    parser = Parser("refit.py", "Solve a checkpoint's heads anew on a table's labels.", "CHECKPOINT DATA [flags]")
    group = parser.group("Refitting")
    add = group.value
    add("checkpoint", "CHECKPOINT", None, TRAINED_MODEL, nargs="?")
    add("data", "DATA", None, "folder that holds train.csv and, if possible, val.csv", nargs="?")
    add("--checkpoint", "FILE", None, "CHECKPOINT as a flag", dest="checkpoint")
    add("--data-dir", "DATA", None, "DATA as a flag", dest="data")
    refitted = "file to write (default: the checkpoint's name with -refitted, beside it)"
    add("--output -o", "FILE", "", refitted)
    add("--train-split", "NAME", "train", "split whose labels the heads are solved on")
    scored = "split that chooses the strengths and calibrates; none chooses them by cross-validation"
    add("--val-split", "NAME", "validation", scored)
    attributes = "columns to solve heads for, new ones included (default: those that the checkpoint trained)"
    add("--attributes", "NAME", None, attributes, nargs="+")
    metric = "score that chooses the strengths, map for multi-valued attributes (default: the run's)"
    add("--eval-metric", ["top1", "balanced_accuracy", "macro_f1", "loss"], None, metric)
    image_root_flag(group)
    separator_flag(group, "the checkpoint's")
    unreadable_flag(group)
    add("--batch-size -b", BATCH, 256, "images per process and step")
    mirrored = "2 solves and scores the heads on the mean features of an image and its mirror image"
    add("--tta", views_at_test, 0, mirrored)
    preprocessing_flags(parser.group("Preprocessing"), "the checkpoint's")
    precision_flags(parser.group("Device and precision"), compiles=False)
    loading_flags(parser.group("Loading"))
    return parser


def _conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags."""
    if not args.checkpoint:
        yield "CHECKPOINT is missing: the file that holds the trained model (model_best.pth.tar of a run)"
    if not args.data:
        yield "DATA is missing: the folder that holds train.csv"
    yield from replaced_inputs({"--output": args.output}, [args.data])
    yield from shared_conflicts(args)
