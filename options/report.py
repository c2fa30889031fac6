"""The flags of report.py."""

import argparse
from collections.abc import Iterator, Sequence

from options.parser import Parser, parse
from options.shared import image_root_flag, loading_flags, precision_flags, processes, unreadable_flag
from options.values import BATCH, WHOLE


def parse_report_args(argv: Sequence[str] | None = None, check_paths: bool = False) -> argparse.Namespace:
    """Return the options of report.py; on a mistake, print a sentence and exit with status 2.

    Args:
        argv: the words after the command's name; None reads them from `sys.argv`.
        check_paths: whether a missing folder or file is a mistake too.
    """
    return parse(report_parser(), argv, check_paths, _conflicts)


def report_parser() -> Parser:
    """Return the parser of report.py."""
    about = (
        "Show a run as one page: scores, curves, confusions, mistakes, a map of the images; or compare several runs."
    )
    parser = Parser("report.py", about, "RUN [RUN ...] [flags]")
    group = parser.group("Reporting")
    add = group.value
    runs = "folders of runs, or checkpoints; several are compared with the first one on the same images"
    add("runs", "RUN", None, runs, nargs="+")
    page = "the page (default: report.html in the run's folder, or comparison.html beside several runs)"
    add("--output -o", "FILE", "", page)
    add("--data-dir", "DATA", None, "data folder (default: the run's)")
    add("--split", "NAME", None, "split to report on: validation, test, ... (default: the run's validation split)")
    image_root_flag(group)
    unreadable_flag(group)
    weights = "report the moving average of the weights (default: if its score chose the best checkpoint)"
    group.switch("--use-ema", weights, default=None)
    baseline = "labeled training images for a logistic regression on their representations; 0 leaves it out"
    add("--baseline-images", WHOLE, 2000, baseline)
    add("--batch-size -b", BATCH, 64, "images per step")
    precision_flags(parser.group("Device and precision"), compiles=False)
    loading_flags(parser.group("Loading"))
    return parser


def _conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags."""
    if processes() > 1:
        yield "several processes would write one file: start a single one, without torchrun"
    if args.output and not args.output.lower().endswith((".html", ".htm")):
        yield f"--output {args.output} does not end in .html: name the page to write"
