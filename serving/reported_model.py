"""A trained model whose report is made: its checkpoint, its tables, and its predictions for a split."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from catalog.data_error import DataError
from catalog.separated_cells import with_separator
from catalog.splits import find_split
from catalog.table import Table, read_table
from reports.run_results import RunResults
from reports.summary_file import Summary, read_summary
from runtime.errors import UsageError
from serving.checkpoint_files import run_checkpoint
from serving.feature_baseline import solve_on_features
from serving.loading import EvaluationModel
from serving.multi_label import MultiLabel
from serving.run_results import Targets, run_results, training_targets
from timm.models.multi_label_checkpoint import Checkpoint, read_checkpoint

_logger = logging.getLogger("report")


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
    data: str | None = None,
    **settings: Any,
) -> ReportedModel:
    """Load the model of a run.

    Args:
        source: the run's folder, or one of its checkpoints.
        device: the device; None for the GPU if there is one.
        use_ema: whether to take the averaged weights; None takes them where their score chose the best checkpoint.
        batch_size: images that the model sees at a time.
        workers: processes that load images.
        data: a data folder that names the classes of a checkpoint of the original; None for the run's.
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
        data=(data or flags.get("data_dir")) if checkpoint.is_original else None,
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
    folder = data or reported.flags.get("data_dir")
    if not folder:
        raise UsageError(f"{reported.checkpoint.path} names no data folder: give one with data_dir")
    try:
        path = find_split(folder, split or reported.flags.get("val_split") or "validation")
    except DataError as error:
        remedy = "" if data else ", or name the data folder of today with data_dir"
        raise UsageError(f"{error}; choose another split{remedy}") from error
    return read_table(path, None, False, image_root or reported.flags.get("image_root") or None)


def scored_table(reported: ReportedModel) -> Table | None:
    """Return the validation table of a run; None if the run has no attributes and so needs none.

    Raises:
        UsageError: the table is not here.
    """
    try:
        return reported_table(reported)
    except UsageError:
        if len(reported.ready.label_space):
            raise
        return None


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
