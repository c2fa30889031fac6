#!/usr/bin/env python3
"""Fill a table's blank cells where held-out labels warrant a precision, and say what a person should look at.

    python fill.py products.csv --checkpoint output/train/RUN/model_best.pth.tar --precision 0.97
    python fill.py products.csv --checkpoint FILE -o filled.csv --queue queue.csv        (what to label next)
    python fill.py products.csv --checkpoint FILE -o filled.csv --suspects suspects.csv        (labels that seem wrong)

A blank cell gets the model's class if it is so probable that, by the labels of the hold-out, at least that share of
such cells is right. Given cells are never changed, and all other columns stay as they are. `<attribute>_source` says
given, filled or blank, and `<attribute>_probability` how probable a filled class is. The hold-out is the validation
table that the checkpoint names, or --holdout. A table without a column for an attribute gets one.
"""

from commands.early_mistakes import report_table_mistakes
from options.fill import fill_parser, parse_fill_args

if __name__ == "__main__":
    # --help, a misspelled flag and a wrong table are answered at once, not after torch was imported.
    report_table_mistakes("fill.py", parse_fill_args(check_paths=True))

import logging
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from catalog.data_error import DataError
from catalog.fillable_table import FillableTable, read_fillable_table
from catalog.filled_table import write_filled_table
from catalog.find_images import with_found_images
from catalog.shared_images import Rows, image_codes, warn_of_shared_images
from catalog.splits import find_split
from catalog.table import Table, read_table
from commands.check_tables import check_fill_places, check_kept
from options.serving_kwargs import NAMED, serving_kwargs
from options.shared import SMALLER
from options.train_kwargs import process_kwargs
from reports.fill_files import GUESSES, SuspectCell, write_queue, write_suspects
from reports.fill_report import fill_lines
from runtime.atomic_file import atomic_file
from runtime.errors import UsageError, printable, report_usage_errors
from runtime.process import set_up_process
from runtime.process_group import check_single
from runtime.stop_signals import stop_signals
from serving.abstention import named_validation
from serving.cell_reading import Reading, held_out_cells, image_dataset, read_cells
from serving.class_promise import HeldOut
from serving.filling import Filling, fill_attribute, queued_cells
from serving.inputs import find_table
from serving.multi_label import MultiLabel
from serving.suspect_labels import suspect_labels
from timm.data.loader_workers import explained_workers
from timm.models.multi_label_checkpoint import Checkpoint
from training.flag_names import naming_flags

_logger = logging.getLogger("fill")

NOTHING = HeldOut(np.empty(0), np.empty(0, int), np.empty(0, bool))
BY_CLASS = {"auto": None, "class": True, "attribute": False}


def main(argv: list[str] | None = None) -> None:
    """Fill as the command line says."""
    args = parse_fill_args(argv)
    with (
        report_usage_errors("fill.py", SMALLER),
        naming_flags(*NAMED, "workers", "image_root", "output", "separator", **{"validation=": "--holdout"}),
        explained_workers(),
        stop_signals("fill.py"),
    ):
        fill(args)


def fill(args: Namespace) -> None:
    """Fill the table: read it, judge the model on the hold-out, predict, decide, write the files."""
    # model and tables
    check_single("several processes would write one file")
    target = check_fill_places(args)
    with naming_flags("device", "dist_backend"):
        device = set_up_process(**process_kwargs(args)).device
    for note in fill_parser().notes(args, device):
        _logger.info(note)
    model = load_model(args, device)
    space = model.label_space
    with naming_flags("attributes"):
        settings = {"image_root": args.image_root or None, "separator": args.separator}
        source = read_fillable_table(Path(args.table), space, args.attributes, **settings)
    rows = rows_to_read(source, bool(args.suspects))
    has_blank = not all(source.given(name).all() for name in source.attributes)
    holdout = read_holdout(args, model) if has_blank else None
    if holdout is not None:
        written = {"--output": str(target), "--queue": args.queue, "--suspects": args.suspects}
        check_kept(holdout.path, "the hold-out", written)
    codes = compared_images(source, holdout, model.checkpoints[0])

    # predictions
    model.choose_engine(len(rows) + (0 if holdout is None else len(holdout)))
    predict: dict[str, Any] = {"tta": model.tta, "loading": model.loading}
    held_out = {} if holdout is None else held_out_cells(model.ensemble, holdout, args.separator, **predict)
    images = image_dataset(source.table, rows)
    with_features = bool(args.queue or args.suspects)
    reading = read_cells(model.ensemble, images, "Table", topk=GUESSES, with_features=with_features, **predict)

    # decisions
    promise = {"precision": args.precision, "by_class": BY_CLASS[args.promise]}
    fillings = {
        name: fill_attribute(name, source, rows, reading.cells[name], held_out.get(name, NOTHING), space, **promise)
        for name in source.attributes
    }
    suspects = judge(source, rows, reading, codes) if args.suspects else []

    # files
    errors = {int(rows[place]): reason for place, reason in reading.errors.items()}
    with ExitStack() as unfinished:  # no file is replaced before all are written
        place = unfinished.enter_context(atomic_file(target))
        columns = [one.column for one in fillings.values()]
        compress, safe = target.suffix.lower() == ".gz", args.spreadsheet_safe
        write_filled_table(source.table.path, place, columns, errors, compress=compress, spreadsheet_safe=safe)
        if args.queue:
            queue = queued_cells(fillings, source, rows, reading, space)
            write_queue(unfinished.enter_context(atomic_file(Path(args.queue))), queue, safe)
        if args.suspects:
            write_suspects(unfinished.enter_context(atomic_file(Path(args.suspects))), suspects, safe)
    for line in report(args, target, source, fillings, holdout, suspects):
        print(printable(line), flush=True)


def load_model(args: Namespace, device: Any) -> MultiLabel:
    """Return the model, and log what it is.

    Raises:
        UsageError: it has no attributes, or its classes have no names.
    """
    model = MultiLabel(args.checkpoint, device=device, **serving_kwargs(args))
    model.check_heads()
    model.check_names()
    ready = model.ready
    _logger.info(f"{args.checkpoint}: {ready.arch}, {ready.data_config}; classes: {ready.label_space}")
    return model


def rows_to_read(source: FillableTable, with_labels: bool) -> Rows:
    """Return the rows whose images are read, int64 [N]: those with a blank cell and, to be judged, those with a label.

    Raises:
        UsageError: there are none.
    """
    given = np.stack([source.given(name) for name in source.attributes], axis=1)
    rows: Rows = np.flatnonzero(~given.all(axis=1) | (given.any(axis=1) & with_labels))
    if not len(rows):
        names = ", ".join(source.attributes)
        raise UsageError(
            f"{source.table.path.name} has no blank cell of {names}, so there is nothing to fill: to judge its labels, "
            "add --suspects FILE"
        )
    return rows


def read_holdout(args: Namespace, model: MultiLabel) -> Table:
    """Return the table that warrants the precision.

    Raises:
        UsageError: there is none.
    """
    if args.holdout is not None:
        table = read_table(find_table(args.holdout, "validation"), None, False, args.image_root or None)
        if args.image_root and len(table) and not Path(args.image_root, table.image_paths[0].as_py()).exists():
            return read_table(table.path, None, False, None)  # its images are beside it, and not below TABLE's root
        return table
    path = named_validation(model.checkpoints)
    return read_table(path, None, False, model.checkpoints[0].trained_flags.get("image_root") or None)


def compared_images(source: FillableTable, holdout: Table | None, checkpoint: Checkpoint) -> Rows:
    """Return the code of each row's image, after warning of images of the hold-out that the model may know.

    Args:
        source: the table to fill.
        holdout: the hold-out; None without any.
        checkpoint: the checkpoint, which names the training table.
    """
    if holdout is None:
        return image_codes([source.table])[0]
    flags = checkpoint.trained_flags
    train = None
    try:
        path = find_split(flags["data_dir"], flags["train_split"])
        train = with_found_images(read_table(path, [], False, flags.get("image_root") or None))[0]
    except (KeyError, TypeError, DataError):
        _logger.info(
            f"{checkpoint.path} names no training table that is here, so {holdout.path} is not compared with it"
        )
    tables = [source.table, holdout, *([] if train is None else [train])]
    ours, theirs, *trained = image_codes(tables)
    if train is not None:
        said = (
            "the model was trained on them, so it is surer of them than of new images; leave them out of the hold-out"
        )
        warn_of_shared_images(holdout, theirs, train, trained[0], said)
    labeled = np.any([source.given(name) for name in source.attributes], axis=0)
    said = "if the model was trained on their labels there, leave them out of the hold-out"
    warn_of_shared_images(holdout, theirs, source.table, np.where(labeled, ours, -1), said)
    return ours


def judge(source: FillableTable, rows: Rows, reading: Reading, codes: Rows) -> list[SuspectCell]:
    """Return the given labels that are probably wrong, the most suspect first."""
    assert reading.features is not None
    table = source.table.take(rows)
    columns = {name: table.columns[name] for name in source.spelled}

    def note(name: str, judged: int, why: str) -> None:
        said = f"not judged, as {why}" if why else f"{judged:,} labels judged"
        _logger.info(f"Suspects: {name}: {said}")

    found = suspect_labels(columns, source.multi_valued, reading.features, codes[rows], note)
    lines = table.lines({one.row for one in found})
    return [
        SuspectCell(
            table.image_path(one.row),
            lines[one.row],
            one.attribute,
            one.given,
            one.likely,
            one.probability_given,
            one.probability_likely,
        )
        for one in found
    ]


def report(
    args: Namespace,
    target: Path,
    source: FillableTable,
    fillings: dict[str, Filling],
    holdout: Table | None,
    suspects: list[SuspectCell],
) -> Iterator[str]:
    """Yield the lines about what was done."""
    yield from fill_lines(
        [one.report for one in fillings.values()], args.precision, holdout.path.name if holdout else ""
    )
    if args.queue:
        yield f"{sum(len(one.open) for one in fillings.values()):,} cells to label: {args.queue}"
    if args.suspects:
        yield f"{len(suspects):,} given labels are doubted, the most suspect first: {args.suspects}"
    yield f"Filled: {target}"
    folders = {path.parent.resolve() for path in (target, source.table.path)}
    relative = not Path(source.table.image_path(0)).is_absolute()
    if len(folders) > 1 and relative and source.table.names is None:
        yield f"Its image paths are relative to {source.table.folders[0]}, as in the table: use it with --image-root"


if __name__ == "__main__":
    main()
