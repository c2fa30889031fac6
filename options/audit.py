"""The flags of audit.py."""

import argparse
from collections.abc import Iterator, Sequence

from options.parser import Parser, parse
from options.rules import on
from options.shared import separator_flag
from options.values import COUNT, FRACTION, WHOLE, Number

_RATIO = Number(float, 1, 1000)
_EMBEDS = (on("checkpoint", "it compares images by the model's embeddings"),)


def parse_audit_args(argv: Sequence[str] | None = None, check_paths: bool = False) -> argparse.Namespace:
    """Return the options of audit.py; on a mistake, print a sentence and exit with status 2.

    Args:
        argv: the words after the command's name; None reads them from `sys.argv`.
        check_paths: whether a missing folder or file is a mistake too.
    """
    return parse(audit_parser(), argv, check_paths, _conflicts)


def audit_parser() -> Parser:
    """Return the parser of audit.py."""
    about = "Look at a data set before training: labels, images, duplicates, leakage between splits."
    parser = Parser("audit.py", about, "DATA [TABLE ...] -o FOLDER [flags]")
    group = parser.group("Auditing")
    add = group.value
    data = "folder that holds train, val and test, as far as there are; or tables, the training table first"
    add("input", "DATA", None, data, nargs="+")
    add("--output -o", "FOLDER", "output/audit", "folder for audit.html and findings.csv")
    add("--attributes", "NAME", None, "columns to audit (default: all but image_path and --group)", nargs="+")
    several = "columns whose cells hold several values, separated by | (default: all with a | in a cell; no NAME: none)"
    add("--multi-valued", "NAME", None, several, nargs="*")
    separator_flag(group, "|")
    same = "column that says which rows belong together: a product, a contributor; in two splits, it is leakage"
    add("--group", "COLUMN", None, same)
    group.switch("--strict", "exit with status 1 if there is leakage or an unreadable image")
    add("--workers -j", WHOLE, None, "processes that decode; 0 decodes in the main process (default: one for each CPU)")
    _limit_flags(parser)
    _model_flags(parser)
    return parser


def _limit_flags(parser: Parser) -> None:
    add = parser.group("Limits").value
    add("--rare", COUNT, 10, "training images below which a class is rare")
    add("--min-side", COUNT, 32, "pixels of the shorter side below which an image is tiny")
    add("--max-aspect", _RATIO, 3.0, "ratio of the sides above which an image is oddly shaped")
    add("--min-sharpness", FRACTION, 0.2, "sharpness, about 0.3 to 1 in photographs, below which an image is blurred")
    add("--similarity", FRACTION, 0.82, "correlation of details from which two images are near duplicates")


def _model_flags(parser: Parser) -> None:
    group = parser.group("Embeddings", "A trained model also finds photographs that show the same product.")
    add = group.value
    checkpoint = "also compare images by the embeddings of this model: the folder of a run, or a file"
    add("--checkpoint", "FILE", None, checkpoint)
    alike = "cosine similarity of embeddings from which two images are similar"
    add("--embedding-similarity", FRACTION, 0.95, alike, needs=_EMBEDS)
    group.switch("--use-ema", "embed with the moving average of the weights (EMA)", needs=_EMBEDS)
    add("--batch-size -b", COUNT, 64, "images per step", needs=_EMBEDS)
    add(
        "--device", "NAME", None, "cpu, cuda, cuda:1, mps, ... (default: cuda if there is one, else cpu)", needs=_EMBEDS
    )


def _conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags."""
    if args.separator and args.multi_valued == []:
        yield "--separator divides cells with several values, and --multi-valued without NAME has none: leave one out"
    if args.group and args.group in (args.attributes or ()):
        yield f"--group {args.group} is among --attributes: a group is no attribute; leave it out of one of them"
