"""The report of a run: its model's predictions for a split and the files of its folder, as a page and a model card."""

from __future__ import annotations

import csv
import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from catalog.data_error import DataError
from catalog.separated_cells import with_separator
from catalog.splits import find_split
from catalog.table import Table, read_table
from reports.model_card import model_card
from reports.run_page import RunReport, write_run_page
from reports.run_record import VIEWS, read_record, record_lines, table_hashes
from reports.run_results import RunResults
from reports.summary_file import Summary, read_summary
from runtime.atomic_file import atomic_file
from runtime.errors import UsageError
from serving.abstention import named_validation
from serving.checkpoint_files import run_checkpoint
from serving.feature_baseline import solve_on_features
from serving.loading import EvaluationModel
from serving.multi_label import MultiLabel
from serving.run_results import Targets, run_results, training_targets
from timm.models.multi_label_checkpoint import Checkpoint, read_checkpoint

_logger = logging.getLogger("report")

PAGE, CARD = "report.html", "README.md"
_FEW = 500  # images that are read in this process
_LARGEST_SHEET = 400_000  # bytes of views.jpg that a page has room for


@dataclass(frozen=True, eq=False)
class ReportedModel:
    """A trained model that is reported.

    Attributes:
        folder: folder of its run.
        checkpoint: what it was loaded from.
        model: the model.
        averaged: whether its weights are the moving average.
    """

    folder: Path
    checkpoint: Checkpoint
    model: MultiLabel
    averaged: bool

    @property
    def ready(self) -> EvaluationModel:
        """The model, ready for evaluation."""
        return self.model.ready

    @property
    def flags(self) -> Mapping[str, Any]:
        """The flags of the run."""
        return self.checkpoint.trained_flags


def load_reported(
    source: str | Path,
    *,
    device: str | torch.device | None,
    use_ema: bool | None = None,
    batch_size: int = 64,
    workers: int = 0,
    **settings: Any,
) -> ReportedModel:
    """Load the model of a run.

    Args:
        source: the run's folder, or one of its checkpoints.
        device: the device; None for the GPU if there is one.
        use_ema: whether to take the averaged weights; None takes them where their score chose the best checkpoint.
        batch_size: images that the model sees at a time.
        workers: processes that load images.
        settings: further arguments of `serving.MultiLabel`.

    Raises:
        UsageError: there is no such checkpoint.
    """
    checkpoint = read_checkpoint(run_checkpoint(source))
    flags = checkpoint.trained_flags
    chosen = str(flags.get("eval_metric") or "").startswith("ema_") and checkpoint.state_dict_ema is not None
    averaged = chosen if use_ema is None else use_ema
    model = MultiLabel(
        checkpoint,
        device=device,
        use_ema=averaged,
        batch_size=batch_size,
        workers=workers,
        tta=2 if flags.get("tta") == 2 else 0,
        data=flags.get("data_dir") if checkpoint.is_original else None,
        **settings,
    )
    return ReportedModel(checkpoint.path.absolute().parent, model.checkpoints[0], model, averaged)


def reported_table(
    reported: ReportedModel, data: str | None = None, split: str | None = None, image_root: str | None = None
) -> Table:
    """Return the table that a model is reported on.

    Args:
        reported: the model.
        data: a data folder; None for the run's.
        split: name of a split; None for the run's validation split.
        image_root: folder that image paths are relative to; None for the run's.

    Raises:
        UsageError: there is no such table.
    """
    if data is None and split is None:
        path = named_validation([reported.checkpoint])
    else:
        folder = data or reported.flags.get("data_dir")
        if not folder:
            raise UsageError(f"{reported.checkpoint.path} names no data folder: give one with data_dir")
        path = find_split(folder, split or reported.flags.get("val_split") or "validation")
    return read_table(path, None, False, image_root or reported.flags.get("image_root") or None)


def report_results(
    reported: ReportedModel,
    table: Table,
    *,
    logistic_images: int,
    max_unreadable: float = 0.01,
    data: str | None = None,
    most: int | None = None,
    separator: str | None = None,
) -> RunResults:
    """Return a model's results on a table, with the baselines that its data allows.

    Args:
        reported: the model.
        table: the split.
        logistic_images: number of training images for a logistic regression; 0 for none.
        max_unreadable: largest share of unreadable images, 0-1.
        data: a data folder, whose training table is read; None for the run's.
        most: number of images to read at most; None for `rows_read`.
        separator: the text between the values of a cell; None for the model's.

    Raises:
        UsageError: too many images are unreadable.
    """
    ready = reported.ready
    loading, tta = reported.model.loading, reported.model.tta
    train, targets = _training_table(reported, data)
    baseline = None
    if logistic_images and train is not None and targets is not None and len(ready.label_space):
        baseline = solve_on_features(
            ready,
            train,
            targets,
            most=logistic_images,
            tta=tta,
            loading=loading,
            max_unreadable=max_unreadable,
        )
    return run_results(
        ready,
        table,
        tta=tta,
        loading=loading,
        max_unreadable=max_unreadable,
        heads_trained=not reported.checkpoint.heads_are_untrained,
        neighbors=_neighbors(reported),
        train_targets=targets,
        baseline=baseline,
        most=most,
        separator=separator,
    )


def write_report(
    path: Path,
    reported: ReportedModel,
    results: RunResults | None,
    *,
    notes: tuple[str, ...] = (),
    card: bool = True,
) -> None:
    """Write the page of a model, and beside its checkpoint the model card.

    Args:
        path: the page.
        reported: the model.
        results: its predictions; None without a split to score.
        notes: sentences about what the page lacks.
        card: whether to write the model card into the run's folder.

    Raises:
        UsageError: a file cannot be written.
    """
    folder, checkpoint = reported.folder, reported.checkpoint
    weights = ", averaged weights" if reported.averaged else ""
    epoch = "" if checkpoint.epoch is None else f", epoch {checkpoint.epoch}"
    split = "" if results is None else f", scored on {results.split}"
    report = RunReport(
        title=f"{folder.name}, {reported.ready.arch}",
        checkpoint=f"{checkpoint.path.name}{epoch}{weights}{split}.",
        results=results,
        summary=read_epochs(folder),
        facts=_facts(reported),
        commands=usage(reported),
        views=_views(folder),
        notes=notes,
    )
    write_run_page(path, report)
    if card:
        config = dict(reported.ready.data_config)
        text = model_card(
            reported.ready.arch, reported.ready.label_space, config, False, results=results, source=checkpoint.path.name
        )
        with atomic_file(folder / CARD) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


def usage(reported: ReportedModel) -> list[tuple[str, str]]:
    """Return how to use a model, as pairs of a sentence and commands."""
    path = reported.checkpoint.path
    file, data = shlex.quote(str(path)), shlex.quote(str(reported.flags.get("data_dir") or "DATA"))
    ema = " --use-ema" if reported.averaged else ""
    averaged = ", use_ema=True" if reported.averaged else ""
    commands = []
    if len(reported.ready.label_space):
        commands = [
            (
                "Label a folder of images: one row for each, with a class and a probability for each attribute.",
                f"python inference.py PHOTOS --checkpoint {file}{ema} -o predictions.csv",
            ),
            (
                "Leave cells blank so that 97% of the others are right, as warranted by the validation split.",
                f"python inference.py PHOTOS --checkpoint {file}{ema} --precision 0.97 -o predictions.csv",
            ),
            (
                "Score it on another split, with tables by class.",
                f"python validate.py {data} --checkpoint {file}{ema} --split test --per-class",
            ),
        ]
    predict = '\ntable = model.predict("photo.jpg")' if len(reported.ready.label_space) else ""
    commands.append(
        (
            "From Python, in the checkout: labels, and representations for search.",
            f'from serving import MultiLabel\n\nmodel = MultiLabel("{path}"{averaged}){predict}\n'
            'h = model.embed("PHOTOS", normalize=True)',
        )
    )
    commands.append(
        (
            "Hand it to other tools: timm and transformers, or ONNX.",
            f"python export.py {file} --format onnx -o model.onnx",
        )
    )
    return commands


def _facts(reported: ReportedModel) -> list[tuple[str, str]]:
    """Return how a run was made: from its record, or as far as its checkpoint knows."""
    flags, lines = reported.flags, record_lines(read_record(reported.folder))
    names = {name for name, _ in lines}
    arguments = reported.folder / "args.yaml"
    if "command" not in names:
        command = f"python train.py -c {arguments}" if arguments.is_file() else ""
        lines = [("command", f"{command} (the exact one was not recorded)" if command else "not recorded"), *lines]
    ready = reported.ready
    parameters = sum(one.numel() for one in ready.model.parameters()) / 1e6
    lines.append(("model", f"{ready.arch}, {parameters:.2f} M parameters, {len(ready.label_space)} attributes"))
    size = " x ".join(map(str, ready.data_config["input_size"][1:]))
    lines.append(("images", f"{size} pixels, crop {ready.data_config['crop_pct']:g}"))
    if flags.get("data_dir"):
        lines.append(("data", str(flags["data_dir"])))
    if not any(name.startswith("SHA-256") for name in names):
        hashes = table_hashes(flags.get("data_dir"), flags.get("train_split"), flags.get("val_split"))
        lines += [(f"SHA-256 of {name}, now", digest) for name, digest in hashes.items()]
    return lines


def _training_table(reported: ReportedModel, data: str | None) -> tuple[Table | None, Targets | None]:
    """Return the training table with its targets; None where it is not here."""
    flags, space = reported.flags, reported.ready.label_space
    folder, split = data or flags.get("data_dir"), flags.get("train_split")
    if not folder or not split or not len(space):
        return None, None
    try:
        table = read_table(find_split(folder, split), None, False, flags.get("image_root") or None)
        table = with_separator(table, space.separator, space.multi_valued)
        return table, training_targets(table, space)
    except DataError as error:
        _logger.warning(f"Without the training table: {error}")
        return None, None


def _neighbors(reported: ReportedModel) -> dict[str, float]:
    """Return the accuracy of 20 nearest neighbors by attribute, in percent, from the epoch of the checkpoint."""
    summary, epoch = read_epochs(reported.folder), reported.checkpoint.epoch
    rows = [row for row in summary.rows if row["epoch"] == epoch] if summary is not None else []
    if not rows:
        return {}
    names = reported.ready.label_space.attributes
    return {name: rows[-1][f"{name}_knn20"] for name in names if f"{name}_knn20" in rows[-1]}


def read_epochs(folder: Path) -> Summary | None:
    """Return the epochs of a run; None if it has none."""
    path = folder / "summary.csv"
    try:
        return read_summary(path) if path.exists() else None
    except (UsageError, csv.Error) as error:
        _logger.warning(f"Without curves: {error}")
        return None


def _views(folder: Path) -> bytes | None:
    """Return the picture of training views in a run's folder; None without one."""
    path = folder / VIEWS
    try:
        return path.read_bytes() if path.is_file() and path.stat().st_size <= _LARGEST_SHEET else None
    except OSError:
        return None


def leave_page(folder: Path, device: torch.device, batch_size: int, workers: int, note: str) -> Path:
    """Write the page and the model card of a run that has just ended, from one pass over its validation images.

    Args:
        folder: folder of the run.
        device: device of the model.
        batch_size: images at a time.
        workers: processes that load images, if there are many.
        note: a sentence for the page.

    Returns:
        The path of the page.

    Raises:
        UsageError: the run has no checkpoint, or too many images are unreadable.
    """
    reported = load_reported(folder, device=device, batch_size=batch_size)
    try:
        table: Table | None = reported_table(reported)
    except (UsageError, DataError):  # a run without attributes needs no validation split
        if len(reported.ready.label_space):
            raise
        table = None
    results = None
    if table is not None:
        reported.model.loading["workers"] = workers if len(table) > _FEW else 0  # a worker takes a second to start
        unreadable = float(reported.flags.get("max_unreadable") or 0.01)
        results = report_results(reported, table, logistic_images=0, max_unreadable=unreadable)
    path = folder / PAGE
    notes = (note,) if results is not None and results.attributes else ()
    write_report(path, reported, results, notes=notes)
    return path
