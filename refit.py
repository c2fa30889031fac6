#!/usr/bin/env python3
"""Solve a checkpoint's heads anew on a table: new labels, classes or attributes, in minutes and without training.

    python refit.py output/train/RUN/model_best.pth.tar DATA
    python refit.py CHECKPOINT DATA -o FILE --attributes article color season        (season is new)
    torchrun --nproc-per-node 2 refit.py CHECKPOINT DATA        (the same heads, from two processes)

DATA/train.csv has all labels, old and new. The backbone stays as it is and represents each labeled image once. The best
heads for these features are a convex problem, which is solved exactly; DATA/val.csv chooses how strongly each head is
regularized. A new head replaces the old one if it scores at least as well on val.csv, or if there are new classes. The
file written is a checkpoint for validate.py, inference.py and train.py --initial-checkpoint.
"""

from commands.early_mistakes import report_table_mistakes
from options.refit import parse_refit_args, refit_parser

if __name__ == "__main__":
    # --help, a misspelled flag and a wrong table are answered at once, not after torch was imported.
    report_table_mistakes("refit.py", parse_refit_args(check_paths=True))

import logging
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from catalog.table import Table, read_table
from commands.check_tables import find_refit_validation
from options.serving_kwargs import NAMED, loader_kwargs, model_kwargs
from options.shared import SMALLER
from options.train_kwargs import process_kwargs
from reports.results import score_lines
from runtime.atomic_file import check_writable
from runtime.errors import UsageError, printable, report_usage_errors
from runtime.process import Process, leave_process_group, set_up_process
from runtime.rank_watch import explained_ranks
from runtime.stop_signals import stop_signals
from serving.checkpoint_files import run_checkpoint
from serving.loading import EvaluationModel, load_evaluation_model, make_loader
from serving.refitting import (
    Labels,
    RefittedModel,
    read_labels,
    refit_model,
    refitted_path,
    save_refitted,
    trained_attributes,
)
from timm.data.loader_workers import explained_workers
from timm.models.multi_label_checkpoint import Checkpoint, read_checkpoint
from training.find_tables import find_train_table
from training.flag_names import naming_flags

_logger = logging.getLogger("refit")


def main(argv: list[str] | None = None) -> None:
    """Refit as the command line says."""
    args = parse_refit_args(argv)
    settings = (*NAMED, "max_unreadable", "val_split", "separator", "image_root")
    with (
        leave_process_group(),
        report_usage_errors("refit.py", SMALLER),
        naming_flags(*settings, "workers", "batch_size"),
        explained_workers(),
        explained_ranks(),
        stop_signals("refit.py"),
    ):
        refit(args)


def refit(args: Namespace) -> None:
    """Refit the heads: read checkpoint and tables, solve, score, write the file."""
    # checkpoint
    path = run_checkpoint(args.checkpoint)
    output = Path(args.output) if args.output else refitted_path(path)
    checkpoint = read_checkpoint(path)
    if output.exists() and output.samefile(path):
        raise UsageError("--output is the checkpoint, which would lose what --resume needs: name another file")
    check_writable(output)
    with naming_flags("device", "dist_backend"):
        process = set_up_process(**process_kwargs(args))
    for note in refit_parser().notes(args, process.device):
        _logger.info(note)
    loading = model_kwargs(args) | {"needs_heads": False}
    ready = load_evaluation_model(checkpoint, process.device, **loading)

    # labels
    train, validation = read_tables(args, trained_attributes(checkpoint, ready.label_space))
    metric = args.eval_metric or checkpoint.trained_flags.get("eval_metric") or "top1"
    settings = {"eval_metric": metric, "channels": ready.channels, "max_unreadable": args.max_unreadable}
    with naming_flags("attributes"):
        labels = read_labels(ready.label_space, train, validation, separator=args.separator, **settings)
    _logger.info(f"{train.path}: {len(labels.train)} labeled images; {ready.arch}, {ready.data_config}")

    # heads
    refitted = refit_weights(args, process, checkpoint, ready, labels, "Refit")
    averaged = None
    if checkpoint.state_dict_ema is not None:
        ready = load_evaluation_model(checkpoint, process.device, **loading | {"use_ema": True})
        averaged = refit_weights(args, process, checkpoint, ready, labels, "Refit (EMA)")

    # file
    if process.is_primary:
        save_refitted(output, checkpoint, labels, refitted, averaged)
        print(f"Refitted: {printable(str(output))}", flush=True)


def read_tables(args: Namespace, trained: list[str]) -> tuple[Table, Table | None]:
    """Return the training table with the attributes to solve heads for, and the validation table.

    Args:
        args: the flags; --val-split none has no validation table.
        trained: attributes of the checkpoint, to solve heads for if --attributes names none.
    """
    root = args.image_root or None
    train = read_table(find_train_table(args.data, args.train_split), args.attributes, False, root)
    if args.attributes is None:
        train = replace(train, columns={name: train.columns[name] for name in trained if name in train.columns})
    if not train.columns:
        why = (
            f"{train.path} has none of the columns {', '.join(trained)}"
            if trained
            else "the checkpoint has no attributes"
        )
        raise UsageError(f"{why}: choose with --attributes the columns of {train.path} that get heads")
    if args.val_split == "none":
        return train, None
    path = find_refit_validation(args, train.path)
    return train, read_table(path, None, False, root)


def refit_weights(
    args: Namespace, process: Process, checkpoint: Checkpoint, ready: EvaluationModel, labels: Labels, name: str
) -> RefittedModel:
    """Refit the heads of a checkpoint's weights, or of its averaged weights, and log their scores."""
    loading = loader_kwargs(args) | {"distributed": process.distributed}
    train = make_loader(ready, labels.train, **loading)
    validation = None if labels.validation is None else make_loader(ready, labels.validation, **loading)
    refitted = refit_model(ready, checkpoint, labels, train, validation, tta=args.tta, name=name)
    for line in score_lines(refitted.metrics) if refitted.metrics is not None else []:
        _logger.info(line)
    return refitted


if __name__ == "__main__":
    main()
