#!/usr/bin/env python3
"""Solve a checkpoint's heads anew on a table: new labels, classes or attributes, in minutes and without training.

    python refit.py output/train/RUN/model_best.pth.tar DATA
    python refit.py CHECKPOINT DATA -o FILE --attributes article color season        (season is new)
    torchrun --nproc-per-node 2 refit.py CHECKPOINT DATA        (the same heads, from two processes)

DATA/train.csv has all labels, old and new. The backbone stays as it is and represents each labeled image once. The best
heads for these features are a convex problem, which is solved exactly; DATA/val.csv chooses how strongly each head is
regularized. A head is replaced only where val.csv scores the new one no lower. The file written is a checkpoint for
validate.py, inference.py and train.py --initial-checkpoint.
"""

from options.refit import parse_refit_args, refit_parser

if __name__ == "__main__":
    # --help, a misspelled flag and a missing file answer at once, not after the seconds that torch takes to import.
    parse_refit_args(check_paths=True)

import logging
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from catalog.data_error import DataError
from catalog.splits import find_split
from catalog.table import Table, read_table
from catalog.targets import encode_targets
from options.serving_kwargs import NAMED, loader_kwargs, model_kwargs
from options.train import resolve_eval_metric
from options.train_kwargs import process_kwargs
from reports.results import score_lines
from runtime.atomic_file import check_writable
from runtime.errors import UsageError, report_usage_errors
from runtime.process import Process, leave_process_group, set_up_process
from serving.loading import load_evaluation_model, make_loader
from serving.refitting import (
    RefittedModel,
    extend_label_space,
    labeled_images,
    refit_model,
    refitted_path,
    save_refitted,
)
from serving.scoring import attribute_weights
from timm.data.two_view_dataset import TwoViewDataset
from timm.models.multi_label_checkpoint import Checkpoint, read_checkpoint
from training.flag_names import naming_flags

_logger = logging.getLogger("refit")


def main(argv: list[str] | None = None) -> None:
    """Refit as the command line says."""
    args = parse_refit_args(argv)
    with leave_process_group(), report_usage_errors("refit.py"), naming_flags(*NAMED, "max_unreadable"):
        refit(args)


def refit(args: Namespace) -> None:
    """Refit the heads: read checkpoint and tables, solve, score, write the file."""
    # checkpoint and tables
    output = Path(args.output) if args.output else refitted_path(Path(args.checkpoint))
    check_writable(output)
    with naming_flags("device", "dist_backend"):
        process = set_up_process(**process_kwargs(args))
    for note in refit_parser().notes(args, process.device):
        _logger.info(note)
    checkpoint = read_checkpoint(args.checkpoint)
    train, validation = read_tables(args)

    # heads
    refitted = refit_weights(args, process, checkpoint, train, validation, ema=False)
    averaged = None
    if checkpoint.state_dict_ema is not None:
        averaged = refit_weights(args, process, checkpoint, train, validation, ema=True)

    # file
    if process.is_primary:
        save_refitted(output, checkpoint, refitted, averaged)
        print(f"Refitted: {output}", flush=True)


def read_tables(args: Namespace) -> tuple[Table, Table | None]:
    """Return the training table and the validation table; None for --val-split none."""
    train = read_table(find_split(args.data, args.train_split), args.attributes, require_attributes=False)
    if args.val_split == "none":
        return train, None
    try:
        path = find_split(args.data, args.val_split)
    except DataError as error:
        raise UsageError(f"{error}; --val-split none does without") from error
    return train, read_table(path, None, require_attributes=False)


def refit_weights(
    args: Namespace, process: Process, checkpoint: Checkpoint, train: Table, validation: Table | None, ema: bool
) -> RefittedModel:
    """Refit the heads of a checkpoint's weights, or of its averaged weights, and log their scores."""
    # model
    ready = load_evaluation_model(checkpoint, process.device, **model_kwargs(args) | {"use_ema": ema})
    name = "Refit (EMA)" if ema else "Refit"
    known = ready.label_space
    if args.attributes is None:
        train = replace(train, columns={one: train.columns[one] for one in known.attributes if one in train.columns})
    if not train.columns:
        raise UsageError(
            f"{train.path} has no column {', '.join(known.attributes)}: name the columns to solve heads for with "
            "--attributes"
        )
    label_space = extend_label_space(known, train)

    # images
    train_set = labeled_images(train, label_space, ready.channels, args.max_unreadable)
    _logger.info(f"{name}: {train.path}: {len(train_set)} labeled images; {ready.arch}, {ready.data_config}")
    loading = loader_kwargs(args) | {"distributed": process.distributed}
    eval_loader = None
    if validation is not None:
        targets = encode_targets(validation, label_space, strict=False)
        eval_set = TwoViewDataset(validation, targets, None, ready.channels, max_unreadable=args.max_unreadable)
        eval_loader = make_loader(ready, eval_set, **loading)

    # heads
    metric = args.eval_metric or checkpoint.trained_flags.get("eval_metric") or resolve_eval_metric(None, True, False)
    refitted = refit_model(
        ready,
        checkpoint,
        label_space,
        make_loader(ready, train_set, **loading),
        eval_loader,
        attribute_weights(checkpoint, label_space),
        eval_metric=metric,
        tta=args.tta,
        distributed=process.distributed,
        name=name,
    )
    if refitted.metrics is not None:
        for line in score_lines(refitted.metrics):
            _logger.info(line)
    return refitted


if __name__ == "__main__":
    main()
