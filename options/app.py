"""The flags of app.py."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from options.parser import Parser, parse
from options.rules import on
from options.shared import TRAINED_MODEL, data_flag
from options.values import Number, csv_file, open_fraction

_PORT = Number(int, 0, 65_535, "a port")
_ABSTAINS = (on("abstain", "it is about abstention"),)
_QUEUES = (on("queue", "it is about the cells of a queue"),)


def parse_app_args(argv: Sequence[str] | None = None, check_paths: bool = False) -> argparse.Namespace:
    """Return the options of app.py; on a mistake, print a sentence and exit with status 2.

    Args:
        argv: the words after the command's name; None reads them from `sys.argv`.
        check_paths: whether a missing folder or file is a mistake too.
    """
    return parse(app_parser(), argv, check_paths, _conflicts)


def app_parser() -> Parser:
    """Return the parser of app.py."""
    about = "Serve a page to try a trained model on photographs, and to label the cells of a queue."
    parser = Parser("app.py", about, "--checkpoint FILE [--index FOLDER] [--queue FILE] [flags]")
    group = parser.group("Model")
    add = group.value
    add("--checkpoint", "FILE", None, TRAINED_MODEL)
    group.switch("--use-ema", "predict with the moving average of the weights (EMA)")
    data_flag(group)
    add("--device", "NAME", None, "cpu, cuda, cuda:1, mps, ... (default: cuda if there is one, else cpu)")
    add("--index", "FOLDER", "", "folder that embed.py wrote: also show the most similar images in it")
    _abstention_flags(parser)
    _queue_flags(parser)
    add = parser.group("Server").value
    add("--port", _PORT, 7860, "port of the page; 0 takes a free one")
    anywhere = "address to listen on; any other than a loopback one lets whoever reaches it see and label the images"
    add("--host", "ADDRESS", "127.0.0.1", anywhere)
    return parser


def _abstention_flags(parser: Parser) -> None:
    group = parser.group("Abstention")
    group.switch("--abstain", "say which labels do not reach --precision", default=True)
    add = group.value
    promised = "share of right labels among those that the model does not abstain from, above 0 and below 1"
    add("--precision", open_fraction, 0.97, promised, metavar="P", needs=_ABSTAINS)
    held_out = (
        "labeled images that the model was not trained on: a table, or a folder with a validation table (default: the "
        "validation table that the checkpoint names)"
    )
    add("--validation", "TABLE", None, held_out, needs=_ABSTAINS)


def _queue_flags(parser: Parser) -> None:
    add = parser.group("Queue").value
    add("--queue", csv_file, "", "cells to label, as fill.py --queue writes them", metavar="FILE")
    answers = "table that receives the labels, with a row for each image (default: QUEUE-answers.csv beside the queue)"
    add("--answers", csv_file, "", answers, metavar="FILE", needs=_QUEUES)
    folder = "folder that the queue's image paths are relative to (default: the queue's folder, or the working one)"
    add("--image-root", "FOLDER", "", folder, needs=_QUEUES)


def default_answers(queue: Path) -> Path:
    """Return the default name of the table of answers: beside the queue, such as queue-answers.csv."""
    return queue.with_name(f"{queue.stem}-answers.csv")


def _conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags."""
    if not args.checkpoint:
        yield "--checkpoint is missing: the file that holds the trained model (model_best.pth.tar of a run)"
    if args.queue and not Path(args.queue).is_file():
        yield f"--queue: no such file: {args.queue}"
    if args.answers and Path(args.answers).resolve() == Path(args.queue).resolve():
        yield f"--answers {args.answers} is --queue, which it would replace: name another file"
