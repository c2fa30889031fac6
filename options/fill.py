"""The flags of fill.py."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from options.parser import Parser, parse
from options.shared import (
    TRAINED_MODEL,
    data_flag,
    engine_flag,
    image_root_flag,
    loading_flags,
    precision_flags,
    preprocessing_flags,
    separator_flag,
    shared_conflicts,
    spreadsheet_flag,
    tta_flag,
)
from options.values import BATCH, csv_file, open_fraction


def parse_fill_args(argv: Sequence[str] | None = None, check_paths: bool = False) -> argparse.Namespace:
    """Return the options of fill.py; on a mistake, print a sentence and exit with status 2.

    Args:
        argv: the words after the command's name; None reads them from `sys.argv`.
        check_paths: whether a missing folder or file is a mistake too.
    """
    return parse(fill_parser(), argv, check_paths, _conflicts)


def fill_parser() -> Parser:
    """Return the parser of fill.py."""
    about = "Fill a table's blank cells where held-out labels warrant it."
    parser = Parser("fill.py", about, "TABLE --checkpoint FILE --precision P [flags]")
    group = parser.group("Filling")
    add = group.value
    add("table", "TABLE", None, "table whose blank cells are filled; an attribute that it lacks is added", nargs="?")
    add("--checkpoint", "FILE", None, TRAINED_MODEL)
    group.switch("--use-ema", "predict with the moving average of the weights (EMA)")
    promised = "share of the filled cells that must be right, above 0 and below 1"
    add("--precision", open_fraction, 0.97, promised, metavar="P")
    output = "filled table to write, in the format of TABLE (default: TABLE's name with -filled, beside it)"
    add("--output -o", "FILE", "", output)
    held_out = (
        "labeled images that the model was not trained on: a table, or a folder with a validation table (default: the "
        "validation table that the checkpoint names)"
    )
    add("--holdout", "TABLE", None, held_out)
    scope = (
        "cells that the precision holds for: all of each class with enough held-out cells, or of the attribute as a "
        "whole; auto takes class unless it fills less than 0.9 of what attribute does"
    )
    add("--promise", ["auto", "class", "attribute"], "auto", scope)
    add(
        "--queue",
        csv_file,
        "",
        "also write the cells that stay blank, the most valuable to label first",
        metavar="FILE",
    )
    doubted = "also write the given labels that are probably wrong, the most suspect first"
    add("--suspects", csv_file, "", doubted, metavar="FILE")
    add("--attributes", "NAME", None, "attributes to fill and to judge (default: all of the model)", nargs="+")
    data_flag(group)
    image_root_flag(group)
    separator_flag(group, "the checkpoint's")
    spreadsheet_flag(group)
    add("--batch-size -b", BATCH, 64, "images per step")
    tta_flag(group)
    preprocessing_flags(parser.group("Preprocessing"), "the checkpoint's")
    computing = parser.group("Device and precision")
    precision_flags(computing, compiles=False)
    engine_flag(computing)
    loading_flags(parser.group("Loading"))
    return parser


def _conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags."""
    if not args.table:
        yield "TABLE is missing: the table whose blank cells are filled"
    elif not Path(args.table).name:  # such as "."
        yield f"TABLE {args.table} has no name for the filled one: give {Path(args.table).resolve()}"
    if not args.checkpoint:
        yield "--checkpoint is missing: the file that holds the trained model (model_best.pth.tar of a run)"
    yield from shared_conflicts(args)
    read = {"TABLE": args.table, "--checkpoint": args.checkpoint, "--holdout": args.holdout}
    written = {"--output": args.output, "--queue": args.queue, "--suspects": args.suspects}
    names = {name: Path(path).resolve() for name, path in (read | written).items() if path}
    for place, name in enumerate(names):
        same = [other for other in list(names)[:place] if names[other] == names[name]]
        if name in written and same:
            yield f"{name} {written[name]} is {same[0]}, which it would replace: name another file"
    texts = [path for path in (args.output or args.table or "", args.queue, args.suspects) if path]
    if args.spreadsheet_safe and not any(path.lower().endswith((".csv", ".csv.gz")) for path in texts):
        yield "--spreadsheet-safe is about CSV, and no file to write is: leave it out"
