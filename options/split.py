"""The flags of split.py."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from options.parser import Parser, parse
from options.shared import separator_flag
from options.values import RATE, WHOLE

SHARE = 0.15


def parse_split_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of split.py; on a mistake, print a sentence and exit with status 2.

    Args:
        argv: the words after the command's name; None reads them from `sys.argv`.
    """
    return parse(split_parser(), argv, check_paths=False, conflicts=_conflicts)


def split_parser() -> Parser:
    """Return the parser of split.py."""
    parser = Parser(
        "split.py", "Make train, val and test tables from one table or from folders of classes.", "DATA [flags]"
    )
    add = parser.group("Splitting").value
    source = "a table, or a folder that holds all.csv, train.csv, a single table, or a folder of images for each class"
    add("source", "DATA", None, source, nargs="?")
    add("--output -o", "FOLDER", "", "folder of the tables to write (default: the table's own); images are not copied")
    drawn = "part of the rows for {} (default: 0.15{}); 0 makes no such table"
    add("--val", RATE, None, drawn.format("val", ""))
    add("--test", RATE, None, drawn.format("test", ", or 0 where DATA says which rows are train or val"))
    add("--seed", WHOLE, 0, "seed of the draw")
    same = "column that says which rows belong together: a product, a contributor; none is divided"
    add("--group", "COLUMN", None, same)
    said = (
        "column that says train, val or test, which is kept and not written; none ignores it (default: the column "
        "split, subset, partition or phase, if it has such words)"
    )
    add("--split-column", "COLUMN", None, said)
    add("--attributes", "NAME", None, "columns to balance (default: all that a model can learn)", nargs="+")
    separator_flag(parser.groups[0], "|")
    parser.groups[0].switch("--overwrite", "replace tables that exist")
    return parser


def shares(args: argparse.Namespace, given: Sequence[str]) -> dict[str, float]:
    """Return the share of each part to draw, train first, given the parts that the table says itself."""
    val = SHARE if args.val is None else args.val
    test = (0.0 if given else SHARE) if args.test is None else args.test
    drawn = {name: share for name, share in (("val", val), ("test", test)) if share and name not in given}
    return {"train": 1 - sum(drawn.values()), **drawn}


def _conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags."""
    if not args.source:
        yield "DATA is missing: a table, or a folder that holds one, or folders of classes"
        return
    if args.output and Path(args.output).is_file():
        yield f"--output {args.output} is a file: name a folder"
    drawn = shares(args, ())
    if len(drawn) == 1:
        yield "--val 0 with --test 0 makes no table besides train: raise either"
    if drawn["train"] <= 0:
        yield f"--val {drawn.get('val', 0):g} and --test {drawn.get('test', 0):g} leave nothing to train on: lower them"
    if args.group and args.group in (args.attributes or ()):
        yield f"--group {args.group} is also in --attributes: a group is not balanced; leave it out there"
