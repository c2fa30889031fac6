"""The flags of choose.py."""

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from options.candidates import CANDIDATES, SOFT_LABELS, Stage, fitted, reads_unlabeled
from options.parser import Parser, parse
from options.rules import Implied, off
from options.shared import image_root_flag, multi_valued_flags, precision_flags, processes, unreadable_flag
from options.train import train_parser
from options.values import COUNT, SEED, SIDE, STEPS, WORKERS, duration

# what every training of a choice shares
_SHARED = (
    *("train_split", "model", "pretrained_path", "pretrained", "initial_checkpoint", "img_size", "unlabeled", "seed"),
    *("separator", "image_root", "max_unreadable", "device", "amp", "amp_dtype", "torchcompile", "channels_last"),
)
_WEIGHTS = ("pretrained", "pretrained_path", "initial_checkpoint")


def parse_choose_args(argv: Sequence[str] | None = None, check_paths: bool = False) -> argparse.Namespace:
    """Return the options of choose.py; on a mistake, print a sentence and exit with status 2.

    Args:
        argv: the words after the command's name; None reads them from `sys.argv`.
        check_paths: whether a missing folder or file is a mistake too.
    """
    return parse(choose_parser(), argv, check_paths, _conflicts)


def choose_parser() -> Parser:
    """Return the parser of choose.py."""
    about = "Find the recipe for a table: try candidates on repeated splits of its training rows, within a time budget."
    parser = Parser("choose.py", about, "DATA --budget 30m [flags]")
    group = parser.group("Choosing")
    add = group.value
    add("data_dir", "DATA", None, "folder that holds train.csv; no other split is read", nargs="?")
    add("--data-dir", "DATA", None, "DATA as a flag")
    add("--budget", duration, None, "time to spend, in all sessions together: 90s, 30m or 2h", metavar="TIME")
    same = "column of train.csv that says which rows belong together: a product, a contributor; none is divided"
    add("--group", "COLUMN", None, same)
    add("--splits", COUNT.to(1000), 5, "largest number of splits; the candidates share each")
    names = "candidates to try (default: all that the weights and the images allow)"
    add("--candidates", list(CANDIDATES), None, names, nargs="+")
    steps = "updates of each fine-tuning (default: the candidate's own)"
    add("--steps", STEPS, None, steps)
    add("--seed", SEED, 0, "seed of the splits and of all training")
    folder = "folder for the recipe and for the state, from which the same command continues"
    add("--output", "FOLDER", "output/choose", folder)
    _data_flags(parser)
    _model_flags(parser)
    precision_flags(parser.group("Device and precision"))
    loading = parser.group("Loading").value
    loading("--workers -j", WORKERS, 4, "worker processes that load images; 0 loads in the main process")
    return parser


def _data_flags(parser: Parser) -> None:
    group = parser.group("Data")
    add = group.value
    add("--train-split", "NAME", "train", "table to split; train means train.csv")
    add("--attributes", "NAME", None, "columns to learn (default: all but image_path and --group)", nargs="+")
    multi_valued_flags(group)
    images = "more images without labels: folders, tables, image files or glob patterns"
    add("--unlabeled", "PATH", None, images, nargs="+", action="extend")
    image_root_flag(group)
    unreadable_flag(group)


def _model_flags(parser: Parser) -> None:
    group = parser.group("Model")
    add = group.value
    add("--model", "NAME", "efficientnet_b0", "architecture of the backbone, any of timm's")
    overwritten = off("initial_checkpoint", "that checkpoint overwrites the pretrained weights; leave one of them out")
    group.switch("--pretrained", "start the backbone from timm's pretrained weights", needs=(overwritten,))
    named = Implied((), "pretrained", True, "the file holds pretrained weights; leave one of them out")
    path = "local file of pretrained backbone weights: timm's, or a checkpoint of this project; implies --pretrained"
    add("--pretrained-path", "FILE", "", path, implies=named, needs=(overwritten,))
    add("--initial-checkpoint", "FILE", "", "checkpoint of this project to start from, such as a pretrained one")
    add("--img-size", SIDE, None, "side of the square RGB input in pixels (default: the model's own)")


def _conflicts(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong between the flags."""
    if not args.data_dir:
        yield "DATA is missing: the folder that holds train.csv"
    if not args.budget:
        yield "--budget is missing: say how long choose.py may take, such as --budget 30m"
    if processes() > 1:
        yield "several processes would try the same candidates: start a single process, without torchrun"
    if args.group and args.group in (args.attributes or ()):
        yield f"--group {args.group} is also in --attributes: the model would learn the groups; leave it out there"


def trained_weights(args: argparse.Namespace) -> bool:
    """Return whether there are weights to start from."""
    return bool(args.pretrained or args.initial_checkpoint)


def data_kwargs(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `training.choice_data.read_choice_data`."""
    names = ("data_dir", "train_split", "attributes", "multi_valued", "separator", "group", "splits", "seed")
    return {name: getattr(args, name) for name in names} | {"image_root": args.image_root or None}


def choice_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options that decide the scores, for the state of a choice."""
    names = (*_SHARED, "data_dir", "attributes", "multi_valued", "group", "steps")
    return {name: getattr(args, name) for name in names}


def recipes(
    args: argparse.Namespace,
    columns: dict[str, list[str]],
    own_size: int | None,
    name: str,
    labeled: int,
    rows: int,
) -> list[Stage]:
    """Return a candidate's stages as recipes for train.py, with the model, the weights and the columns.

    Args:
        args: the options.
        columns: `attributes` and `multi-valued`, the columns to learn.
        own_size: side of the images that the model was made for, in pixels; None if it is not known.
        name: name of the candidate.
        labeled: number of labeled rows to train on.
        rows: number of all rows to train on.
    """
    unlabeled = math.inf if args.unlabeled else rows - labeled
    defaults = choose_parser().defaults
    given = {dest: getattr(args, dest) for dest in _SHARED}
    shared = {dest: value for dest, value in given.items() if value != defaults[dest] or dest in ("model", "seed")}
    candidate, stages = CANDIDATES[name], []
    for index, stage in enumerate(candidate.stages):
        # a later stage starts from the checkpoint of the one before, a student from the weights
        idle = set(_WEIGHTS if index and not candidate.teaches else ())
        idle |= set() if reads_unlabeled(stage) else {"unlabeled"}
        kept = {dest.replace("_", "-"): value for dest, value in shared.items() if dest not in idle}
        if candidate.teaches and not index and args.img_size and own_size:
            kept["img-size"] = max(args.img_size, own_size)
        stages.append({**kept, **columns, **fitted(stage, args.steps, labeled, unlabeled)})
        if "pseudo-labels" in stage:
            stages[-1]["pseudo-labels"] = str(Path(args.output, SOFT_LABELS))
    return stages


def labeling_words(args: argparse.Namespace, table: str) -> list[str]:
    """Return the words of inference.py with which a teacher labels the images of a table and of --unlabeled."""
    words = [table, *(args.unlabeled or ()), "-j", str(args.workers)]
    words += ["--device", args.device] if args.device else []
    words += ["--amp"] if args.amp else []
    return words + (["--amp-dtype", args.amp_dtype] if args.amp_dtype else [])


def trial(args: argparse.Namespace, stage: Stage, tables: str, table: str) -> Stage:
    """Return a recipe for a trial, which reads a split's tables and is validated once, at its end.

    Args:
        args: the options.
        stage: the recipe.
        tables: folder of the split's tables.
        table: name of the training table there.
    """
    place = {"data-dir": tables, "train-split": table, "val-split": f"{table}-validation"}
    place |= {"separator": "|"} if "separator" in stage else {}  # the split's tables have it
    once = {"workers": args.workers, "checkpoint-hist": 1, "val-interval": 1_000_000, "knn-interval": 0}
    return {**stage, **place, **once}


def train_args(stage: Stage) -> argparse.Namespace:
    """Return the options of train.py that a recipe gives."""
    return train_parser().combine({name.replace("-", "_"): value for name, value in stage.items()}, {})
