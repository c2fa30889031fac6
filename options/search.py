"""The flags of search.py."""

import argparse
from collections.abc import Iterator, Sequence

from options.parser import Parser, parse
from options.shared import replaced_inputs, spreadsheet_flag
from options.values import COUNT, shortened

ENDINGS = (".csv", ".json", ".html", ".png")
ENGINES = ["auto", "exact", "faiss"]


def parse_search_args(argv: Sequence[str] | None = None, check_paths: bool = False) -> argparse.Namespace:
    """Return the options of search.py; on a mistake, print a sentence and exit with status 2.

    Args:
        argv: the words after the command's name; None reads them from `sys.argv`.
        check_paths: whether a missing folder or file is a mistake too.
    """
    return parse(search_parser(), argv, check_paths, _conflicts)


def search_parser() -> Parser:
    """Return the parser of search.py."""
    about = "Find the images of an index that are most similar to an image, filtered by their labels."
    parser = Parser("search.py", about, "IMAGE [IMAGE ...] --index FOLDER [flags]")
    group = parser.group("Searching")
    add = group.value
    add("image", "IMAGE", None, "images to search with: files, folders, or the image_path of a row", nargs="+")
    add("--index", "FOLDER", "index", "folder that embed.py wrote")
    where = (
        "only images that fit: color=Red, article!=Tshirts, color:probability>=0.9; given several times, all must fit"
    )
    add("--where", "FILTER", None, where, action="append")
    add("--top", COUNT, 12, "number of images to return for each IMAGE")
    answers = "file to write; its ending, .csv, .json, .html or .png, is its format (default: lines on the terminal)"
    add("--output -o", answers_file, "", answers, metavar="FILE")
    spreadsheet_flag(group)
    group.switch("--keep-query", "also return the row of IMAGE itself, if the index has one")
    _model_flags(parser)
    return parser


def _model_flags(parser: Parser) -> None:
    add = parser.group("Model and engine").value
    moved = "the checkpoint that made the index, if it was moved (default: where it was)"
    add("--checkpoint", "FILE", None, moved)
    add("--device", "NAME", None, "cpu, cuda, cuda:1, mps, ... (default: cuda if there is one, else cpu)")
    engine = "how to search: faiss needs faiss-cpu; auto takes it beyond a million images, if its index was built"
    add("--engine", ENGINES, "auto", engine)


def answers_file(text: str) -> str:
    """Return the name of a file of answers, whose ending is its format."""
    if not text.endswith(ENDINGS):
        raise argparse.ArgumentTypeError(f"'{shortened(text)}' does not end in .csv, .json, .html or .png")
    return text


def _conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags."""
    yield from replaced_inputs({"--output": args.output}, args.image)
    if args.spreadsheet_safe and not args.output.endswith(".csv"):
        yield f"--spreadsheet-safe is about CSV, and --output {args.output or '(none)'} is not: leave it out"
