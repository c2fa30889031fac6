"""The flags of embed.py."""

import argparse
from collections.abc import Iterator, Sequence

from options.parser import Parser, parse
from options.shared import (
    TRAINED_MODEL,
    data_flag,
    engine_flag,
    image_root_flag,
    loading_flags,
    precision_flags,
    preprocessing_flags,
    shared_conflicts,
    tta_flag,
)
from options.values import BATCH, STEPS


def parse_embed_args(argv: Sequence[str] | None = None, check_paths: bool = False) -> argparse.Namespace:
    """Return the options of embed.py; on a mistake, print a sentence and exit with status 2.

    Args:
        argv: the words after the command's name; None reads them from `sys.argv`.
        check_paths: whether a missing folder or file is a mistake too.
    """
    return parse(embed_parser(), argv, check_paths, _conflicts)


def embed_parser() -> Parser:
    """Return the parser of embed.py."""
    about = "Make an index of images for search.py: embeddings, labels and predictions."
    parser = Parser("embed.py", about, "INPUT [INPUT ...] --checkpoint FILE -o FOLDER [flags]")
    group = parser.group("Embedding")
    add = group.value
    images = "images, a folder of images, or a table with a column image_path; its other columns are labels"
    add("input", "INPUT", None, images, nargs="+")
    add("--checkpoint", "FILE", None, TRAINED_MODEL)
    group.switch("--use-ema", "embed with the moving average of the weights (EMA)")
    add("--output -o", "FOLDER", "index", "folder of the index; an unfinished one there is continued")
    group.switch("--overwrite", "replace another index in the folder")
    group.switch("--projection", "embed by the projection z instead of the representation h")
    data_flag(group)
    image_root_flag(group)
    add("--batch-size -b", BATCH, 64, "images per step")
    tta_flag(group)
    add("--log-freq", STEPS, 10, "batches between log lines, where no terminal shows a progress bar")
    preprocessing_flags(parser.group("Preprocessing"), "the checkpoint's")
    computing = parser.group("Device and precision")
    precision_flags(computing, compiles=False)
    engine_flag(computing)
    loading_flags(parser.group("Loading"))
    return parser


def _conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags."""
    yield from shared_conflicts(args)
    if not args.checkpoint:
        yield "--checkpoint is missing: the file that holds the trained model (model_best.pth.tar of a run)"
