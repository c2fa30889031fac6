#!/usr/bin/env python3
"""Score a checkpoint, or each of several, on a split of a table.

    python validate.py DATA --checkpoint output/train/RUN/model_best.pth.tar
    python validate.py DATA --checkpoint output/train --split test --results-file results.csv
    python validate.py DATA --checkpoint 'output/train/*/last.pth.tar' --model 'efficientnet_*' --use-ema
    python validate.py DATA --checkpoint FILE --calibrate calibrated.pth.tar        (a copy with honest probabilities)
    python validate.py DATA --checkpoint FILE --per-class        (precision, recall and confusions of each class)
    python validate.py DATA --checkpoint FILE --split test --report        (a page for people)
    torchrun --nproc-per-node 2 validate.py DATA --checkpoint FILE        (the same numbers, from two processes)

DATA holds val.csv, test.csv, ... (docs/data.md). Architecture, attributes, classes and preprocessing come from
the checkpoint. Every image of the split counts once. Blank cells and unreadable images count in no metric; a class
that the model does not know counts as wrong.
"""

from commands.early_mistakes import report_table_mistakes
from options.validate import parse_validate_args, validate_parser

if __name__ == "__main__":
    # --help, a misspelled flag and a wrong table are answered at once, not after torch was imported.
    report_table_mistakes("validate.py", parse_validate_args(check_paths=True))

import gc
import logging
from argparse import Namespace
from pathlib import Path
from typing import Any

from catalog.repeated_images import warn_of_repeated_images
from catalog.separated_cells import with_separator
from catalog.splits import find_split
from catalog.table import Table, read_table
from options.serving_kwargs import NAMED, serving_kwargs
from options.shared import SMALLER
from options.train_kwargs import process_kwargs
from reports.per_class import file_stems, write_per_class
from reports.results import (
    Result,
    best_first,
    check_results_path,
    result_text,
    score_columns,
    score_lines,
    write_results,
)
from runtime.atomic_file import check_writable
from runtime.errors import UsageError, report_usage_errors
from runtime.process import Process, leave_process_group, set_up_process
from runtime.rank_watch import explained_ranks
from runtime.stop_signals import stop_signals
from serving.calibration import check_calibrated_path, save_temperatures
from serving.checkpoint_files import find_checkpoints, is_several, matches, names_below, stem
from serving.cost import cost_line, measure_cost
from serving.exported import read_model
from serving.loading import EvaluationModel
from serving.multi_label import MultiLabel
from serving.reported_model import ReportedModel, report_results
from serving.run_report import write_report
from serving.scoring import Scores
from timm.data.loader_workers import explained_workers
from timm.models.multi_label_checkpoint import Checkpoint
from training.flag_names import naming_flags

_logger = logging.getLogger("validate")


def main(argv: list[str] | None = None) -> None:
    """Score as the command line says; exit with 1 if one of several checkpoints cannot be scored."""
    args = parse_validate_args(argv)
    with (
        leave_process_group(),
        report_usage_errors("validate.py", SMALLER),
        naming_flags("results_file", "calibrate", "workers", "batch_size", "separator", "image_root"),
        explained_workers(),
        explained_ranks(),
        stop_signals("validate.py"),
    ):
        validate(args)


def validate(args: Namespace) -> None:
    """Score the checkpoints: find them, read the table, score each, write the results."""
    results_path = check_results_path(args.results_file)
    if args.calibrate:
        check_calibrated_path(args.calibrate, args.checkpoint)
    with naming_flags("device", "dist_backend"):
        process = set_up_process(**process_kwargs(args))
    for note in validate_parser().notes(args, process.device):
        _logger.info(note)
    files = find_checkpoints(args.checkpoint)
    table = read_table(find_split(args.data, args.split), None, False, args.image_root or None)
    results, failed = score_all(args, process, table, files, results_path)
    if process.is_primary:
        if results_path and results:
            _logger.info(f"Results: {results_path}")
        shown: Any = results if is_several(args.checkpoint) else results[0]
        print(f"--result\n{result_text(shown)}", flush=True)
        if failed:
            _logger.error(f"{failed} of {len(files)} checkpoints could not be scored, for the reasons above")
    if failed:
        raise SystemExit(1)


def score_all(
    args: Namespace, process: Process, table: Table, files: list[Path], results_path: Path | None
) -> tuple[list[Result], int]:
    """Score one checkpoint after the other; return the results, best first, and the number of failures.

    The results file is written after each checkpoint, so that a later crash loses nothing.
    """
    several = is_several(args.checkpoint)
    names = file_stems(names_below(files)) if several else [stem(files[0])]
    results: list[Result] = []
    failed = 0
    for file, name in zip(files, names, strict=True):
        try:
            checkpoint = read_model(file)
            if not is_wanted(args.model, checkpoint, several):
                continue
            if not (results or failed):
                warn_of_repetitions(args, table, checkpoint)
            folder = per_class_folder(args, file, name, table, several)
            page = report_page(args, file, name, table)
            results = best_first([*results, score(args, process, table, checkpoint, folder, page)])
        except UsageError as error:
            if not several:
                raise
            failed += 1
            if process.is_primary:
                _logger.error(f"Not scored: {error}")
            continue
        if results_path and process.is_primary:
            write_results(results_path, results if several else results[0], args.spreadsheet_safe)
        del checkpoint
        if several:
            gc.collect()  # a compiled model is in a reference cycle, which keeps its memory on the GPU
    if not results and not failed:
        raise UsageError(
            f"--model {args.model}: none of the {len(files)} checkpoints at {args.checkpoint} holds this model: "
            "correct or drop --model"
        )
    return results, failed


def warn_of_repetitions(args: Namespace, table: Table, checkpoint: Checkpoint) -> None:
    """Warn of rows that repeat an image or contradict each other in what the checkpoint predicts."""
    space = checkpoint.label_space
    if space is None:
        warn_of_repeated_images(table, table.attributes)
    else:
        table = with_separator(table, args.separator or space.separator, space.multi_valued)
        warn_of_repeated_images(table, space.attributes)


def is_wanted(pattern: str | None, checkpoint: Checkpoint, several: bool) -> bool:
    """Return whether a checkpoint's architecture matches --model.

    Raises:
        UsageError: it is the only checkpoint, and it does not match.
    """
    if pattern is None or matches(str(checkpoint.arch), pattern):
        return True
    if not several:
        raise UsageError(
            f"--model {pattern} contradicts {checkpoint.path}, which holds a model {checkpoint.arch}: leave --model out"
        )
    _logger.info(f"{checkpoint.path} holds a model {checkpoint.arch}, which --model {pattern} leaves out")
    return False


@naming_flags(*NAMED, "max_unreadable")
def score(
    args: Namespace, process: Process, table: Table, checkpoint: Checkpoint, folder: Path | None, page: Path | None
) -> Result:
    """Score one checkpoint; log its cost and its scores; return its row of the results.

    Args:
        args: the flags.
        process: where this process computes.
        table: the scored table.
        checkpoint: the checkpoint.
        folder: folder for the tables of its classes; None for none.
        page: file for its report; None for none.
    """
    data = args.data if checkpoint.is_original else None  # ours hold the names of their classes
    settings = serving_kwargs(args) | {"distributed": process.distributed, "data": data}
    model = MultiLabel(checkpoint, device=process.device, **settings)
    model.check_heads()
    ready = model.ready
    cost = measure_cost(ready, args.tta, latency=not args.no_latency)
    averaged = " (averaged weights)" if args.use_ema else ""
    _logger.info(f"{checkpoint.path}{averaged}: {ready.arch}, epoch {checkpoint.epoch}, {cost_line(ready, cost)}")
    scores = model.score(
        table,
        max_unreadable=args.max_unreadable,
        separator=args.separator,
        log_interval=args.log_freq,
        confusion=folder is not None,
        calibrate=bool(args.calibrate),
    )
    if args.calibrate and process.is_primary:
        save_temperatures(checkpoint, Path(args.calibrate), scores.temperatures, args.use_ema)
        _logger.info(f"Calibrated checkpoint: {args.calibrate}")
    for line in score_lines(scores.metrics, scores.images_per_second):
        _logger.info(line)
    if folder is not None and process.is_primary:
        file = checkpoint.path
        title = f"{ready.arch}, {file.parent.absolute().name}/{file.name}{averaged}, {table.path.name}"
        space, safe = ready.label_space, args.spreadsheet_safe
        write_per_class(folder, scores.confusion, space.classes, title, space.multi_valued, safe)
        _logger.info(f"Classes: {folder}")
    if page is not None:
        write_page(args, ReportedModel(checkpoint.path.absolute().parent, checkpoint, model, args.use_ema), table, page)
    return result_row(args, ready, checkpoint, table, scores, cost)


def write_page(args: Namespace, reported: ReportedModel, table: Table, page: Path) -> None:
    """Write the report of a checkpoint on a table."""
    results = report_results(
        reported,
        table,
        logistic_images=0,
        max_unreadable=args.max_unreadable,
        data=args.data,
        separator=args.separator,
    )
    write_report(page, reported, results, card=False)
    _logger.info(f"Report: {page}")


def result_row(
    args: Namespace, ready: EvaluationModel, checkpoint: Checkpoint, table: Table, scores: Scores, cost: Result
) -> Result:
    """Return the columns of the results file: the checkpoint, its scores, its cost, its preprocessing."""
    return {
        "model": ready.arch,
        "checkpoint": str(checkpoint.path),
        "split": table.path.stem,
        "use_ema": args.use_ema,
        "epoch": checkpoint.epoch,
        "images": len(table),
        **score_columns(scores.metrics),
        **cost,
        "images_per_second": round(scores.images_per_second, 2),
        "img_size": ready.data_config["input_size"][-1],
        "crop_pct": ready.data_config["crop_pct"],
        "interpolation": ready.data_config["interpolation"],
    }


def per_class_folder(args: Namespace, file: Path, name: str, table: Table, several: bool) -> Path | None:
    """Return the folder for the tables of a checkpoint's classes; None without --per-class.

    Args:
        args: the flags.
        file: the checkpoint.
        name: a name that no other of the checkpoints has.
        table: the scored table.
        several: whether other checkpoints may be scored too, which need folders of their own.
    """
    if args.per_class is None:
        return None
    if args.per_class:
        return Path(args.per_class, name) if several else Path(args.per_class)
    weights = "-ema" if args.use_ema else ""
    if args.results_file:
        return Path(args.results_file).parent / f"{name}{weights}-{table.path.stem}-per-class"
    return file.parent / f"{stem(file)}{weights}-{table.path.stem}-per-class"


def report_page(args: Namespace, file: Path, name: str, table: Table) -> Path | None:
    """Return the page for the report of a checkpoint; None without --report.

    Args:
        args: the flags.
        file: the checkpoint.
        name: a name that no other of the checkpoints has.
        table: the scored table.
    """
    if not args.report:
        folder = Path(args.results_file).parent if args.results_file else file.parent
        weights = "-ema" if args.use_ema else ""
        return None if args.report is None else folder / f"{name}{weights}-{table.path.stem}-report.html"
    check_writable(Path(args.report))
    return Path(args.report)


if __name__ == "__main__":
    main()
