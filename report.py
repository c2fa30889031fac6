#!/usr/bin/env python3
"""Show a trained run as one page for people, report.html; or compare several runs on the same images.

    python report.py output/train/RUN
    python report.py output/train/RUN --split test -o test.html
    python report.py output/train/RUN output/train/OTHER        (paired differences, classes that changed, flags)

Every training leaves a report of its validation split in its folder. This command writes it again, adds a logistic
regression on the model's representations of training images, and reads other splits. Beside the page of a run it
writes the model card, README.md. The page is one file that loads nothing.
"""

from options.report import parse_report_args

if __name__ == "__main__":
    # --help, a misspelled flag and a missing run answer at once, not after the seconds that torch takes to import.
    parse_report_args(check_paths=True)

import logging
from argparse import Namespace
from pathlib import Path

from options.shared import SMALLER
from options.train_kwargs import precision_kwargs
from reports.comparison_page import ComparedRun, write_comparison
from runtime.atomic_file import check_writable
from runtime.errors import UsageError, printable, report_usage_errors
from runtime.log import set_up_log
from runtime.process import open_device
from runtime.stop_signals import stop_signals
from serving.reported_model import (
    ReportedModel,
    load_reported,
    read_epochs,
    report_results,
    reported_table,
    scored_table,
)
from serving.run_report import PAGE, write_report
from serving.run_results import rows_read
from timm.data.loader_workers import explained_workers
from training.flag_names import naming_flags

_logger = logging.getLogger("report")

_COMPARISON = "comparison.html"
_NAMED = ("amp", "amp_dtype", "workers", "batch_size", "max_unreadable", "image_root", "device", "data_dir")


def main(argv: list[str] | None = None) -> None:
    """Report as the command line says."""
    args = parse_report_args(argv)
    with (
        report_usage_errors("report.py", SMALLER),
        naming_flags(*_NAMED),
        explained_workers(),
        stop_signals("report.py"),
    ):
        set_up_log(logging.INFO)
        path = report(args) if len(args.runs) == 1 else compare(args)
        print(printable(f"Report: {path}"), flush=True)


def report(args: Namespace) -> Path:
    """Write the page and the model card of a run; return the page's path."""
    reported = load(args, args.runs[0])
    path = Path(args.output or reported.folder / PAGE)
    check_writable(path)
    of_run = not (args.split or args.data_dir or args.image_root)
    if of_run:
        table = scored_table(reported)
    else:
        table = reported_table(reported, args.data_dir, args.split, args.image_root or None)
    results = None
    if table is not None:
        results = report_results(
            reported,
            table,
            logistic_images=args.baseline_images,
            max_unreadable=args.max_unreadable,
            data=args.data_dir,
        )
    write_report(path, reported, results, card=of_run and not args.output)
    return path


def compare(args: Namespace) -> Path:
    """Write the page that compares runs; return its path.

    Raises:
        UsageError: the runs have no attribute in common, or a checkpoint is named twice.
    """
    models = [load(args, run) for run in args.runs]
    path = Path(args.output or models[0].folder.parent / _COMPARISON)
    check_writable(path)
    names = run_names(models)
    table = reported_table(models[0], args.data_dir, args.split, args.image_root or None)
    most = min(rows_read(one.ready.label_space) for one in models)
    runs = []
    for name, model in zip(names, models, strict=True):
        _logger.info(f"{name}: {model.checkpoint.path}")
        settings = {"max_unreadable": args.max_unreadable, "data": args.data_dir, "most": most}
        results = report_results(model, table, logistic_images=0, **settings)
        runs.append(ComparedRun(name, results, read_epochs(model.folder), model.flags))
    predicted = [{one.name for one in run.results.attributes if len(one)} for run in runs if run.results.heads_trained]
    if len(predicted) < len(runs) or not set.intersection(*predicted):
        raise UsageError(
            f"{', '.join(names)} predict no labeled attribute of {table.path} in common: compare runs that do"
        )
    write_comparison(path, runs)
    return path


def load(args: Namespace, run: str) -> ReportedModel:
    """Load the model of a run."""
    return load_reported(
        run,
        device=open_device(args.device),
        use_ema=args.use_ema,
        batch_size=args.batch_size,
        workers=args.workers,
        data=args.data_dir,
        number_format=precision_kwargs(args),
        channels_last=args.channels_last,
        pin_memory=args.pin_mem,
        prefetcher=not args.no_prefetcher,
    )


def run_names(models: list[ReportedModel]) -> list[str]:
    """Return a name for each model: its run's folder, with the checkpoint or the place where several are equal.

    Raises:
        UsageError: a checkpoint is named twice.
    """
    paths = [model.checkpoint.path.resolve() for model in models]
    if twice := next((path for place, path in enumerate(paths) if path in paths[:place]), None):
        raise UsageError(f"{twice} is named twice: compare it with another run")
    for kind in (
        lambda path: path.parent.name,
        lambda path: f"{path.parent.name}/{path.name.removesuffix('.pth.tar')}",
    ):
        names = [kind(path) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


if __name__ == "__main__":
    main()
