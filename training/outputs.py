"""The files of a run: summary.csv, curves, checkpoints, view sheets; only the primary process writes them."""

from __future__ import annotations

import errno
import io
import json
import logging
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from reports.curves import draw_curves
from reports.per_class import draw_confusion
from runtime.errors import UsageError
from training.loggers import Loggers
from training.summary import Row, ranked, write_summary

_logger = logging.getLogger("train")
_UNTIL_CURVES = 20.0  # seconds before the first drawing, unless the run ends sooner

LogRow = Callable[[Row], None]
DrawViews = Callable[[Tensor, Tensor], Image.Image]


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint in a run's folder from which the fewest steps are repeated; None before the first one."""
    files = [folder / "last.pth.tar", *folder.glob("recovery-*.pth.tar")]
    return max((file for file in files if file.exists()), key=lambda file: file.stat().st_mtime_ns, default=None)


def resume_command(launch: str, checkpoint: Path) -> str:
    """Return the command that resumes from a checkpoint in the folder of its run.

    Args:
        launch: words that start train.py as the run was started.
        checkpoint: the file.
    """
    words = ["-c", str(checkpoint.with_name("args.yaml")), "--resume", str(checkpoint)]
    return f"{launch} {shlex.join(words)}"


def way_to_resume(launch: str, folder: Path) -> str:
    """Return a sentence with the command that continues from the newest checkpoint; "" on a host without the folder."""
    if not folder.exists():
        return ""
    newest = newest_checkpoint(folder)
    if newest is None:
        return "No checkpoint is complete yet: start again"
    return f"Resume with {resume_command(launch, newest)}"


class NoOutputs:
    """The outputs of a process that writes nothing.

    Args:
        way_to_resume: function that returns a sentence on how to continue the run; "" if that is unknown.
    """

    folder: Path | None = None

    def __init__(self, way_to_resume: Callable[[], str] = lambda: "") -> None:
        self.way_to_resume = way_to_resume

    def save_epoch(self, epoch: int, row: Row, value: float | None, last: bool) -> None:
        """Write nothing after an epoch."""

    def save_recovery(self, epoch: int, step: int) -> None:
        """Write nothing inside an epoch."""

    def save_views(self, epoch: int, step: int, images: Tensor, target: Tensor) -> None:
        """Write no view sheet."""

    def log_confusion(self, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Log no picture."""

    def finish(self) -> None:
        """Print nothing."""


class Outputs(NoOutputs):
    """The outputs of the primary process.

    Args:
        folder: folder of the run.
        saver: timm's saver of checkpoints.
        metric: --eval-metric, which chooses the best epoch.
        attributes: names of the attributes.
        launch: words that start train.py as this run was started.
        continues: whether training continues after a file could not be written; otherwise it stops.
        loggers: loggers beside the folder.
        log_row: function that records that an epoch has ended.
        draw_views: function that draws a batch's views; None if there are no views to draw.
        keep_views: function that keeps the first batch's views for the report.
        saves_views: whether view sheets are saved in the folder.
        class_names: names of the classes by attribute, for the loggers' confusion matrices.
    """

    def __init__(
        self,
        folder: Path,
        saver: Any,
        metric: str,
        attributes: Sequence[str],
        launch: str = "python train.py",
        continues: bool = False,
        loggers: Loggers | None = None,
        log_row: LogRow = lambda row: None,
        draw_views: DrawViews | None = None,
        keep_views: Callable[[Tensor, Tensor], None] | None = None,
        saves_views: bool = False,
        class_names: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.folder: Path = folder
        self.saver, self.metric, self.attributes, self.continues = saver, metric, attributes, continues
        super().__init__(partial(way_to_resume, launch, folder))
        self.launch = launch
        self.loggers, self.draw_views, self.saves_views = loggers or Loggers(), draw_views, saves_views
        self.log_row, self.keep_views, self.class_names = log_row, keep_views, class_names or {}
        self.rows: list[Row] = []
        self.best: tuple[float | None, int | None] = (None, None)
        self.next_drawing = time.perf_counter() + _UNTIL_CURVES
        self.next_confusion = 0.0

    def save_epoch(self, epoch: int, row: Row, value: float | None, last: bool) -> None:
        """Write an epoch's row, curves and checkpoint.

        Args:
            epoch: index of the epoch, from 0.
            row: row of summary.csv.
            value: value of the metric; None where it is unknown.
            last: whether this is the last epoch.
        """
        self.rows.append({name: None if v is None or v != v else v for name, v in row.items()})
        with self._explained():
            write_summary(self.folder / "summary.csv", row)
        self._draw_curves(last)
        self.log_row(row)
        self.loggers.log_row(row)
        with self._explained():
            self.best = self.saver.save_checkpoint(epoch, metric=value)

    def save_recovery(self, epoch: int, step: int) -> None:
        """Write a checkpoint inside an epoch, after a step."""
        with self._explained():
            self.saver.save_recovery(epoch, batch_idx=step)

    def save_views(self, epoch: int, step: int, images: Tensor, target: Tensor) -> None:
        """Draw the first images of a step's batch [V*B, C, H, W] with their targets [B, C].

        The folder has a sheet for each of these steps, the loggers have one for each epoch's first step.
        """
        if images.ndim != 4:  # representations of a frozen backbone have no pixels
            return
        if self.keep_views is not None:
            self.keep_views(images, target)
            self.keep_views = None
        logged = step == 0 and self.loggers
        if self.draw_views is None or not (self.saves_views or logged):
            return
        sheet = self.draw_views(images, target)
        if self.saves_views:
            with self._explained():
                sheet.save(self.folder / f"train-{epoch}-{step}.png")
        if logged:
            self.loggers.log_picture("views", epoch, sheet)

    def log_confusion(self, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Log each attribute's confusion matrix, if drawing takes at most 5% of the time.

        Args:
            epoch: index of the epoch, from 0.
            metrics: metrics of the validation split, with the matrices under `confusion` where they were counted.
        """
        start = time.perf_counter()
        matrices = {name: matrix for name, matrix in metrics.get("confusion", {}).items() if matrix.any()}
        if not self.loggers or start < self.next_confusion:
            return
        for attribute, matrix in matrices.items():
            figure = draw_confusion(attribute, self.class_names[attribute], matrix, f"epoch {epoch}")
            file = io.BytesIO()
            figure.savefig(file, format="png")
            self.loggers.log_picture(f"confusion/{attribute}", epoch, Image.open(file))
        end = time.perf_counter()
        self.next_confusion = end + 20 * (end - start)

    def finish(self) -> None:
        """Log the best epoch, and print the last ten rows in the order of the metric.

        If no epoch has a value of the metric, the last one becomes `model_best`.
        """
        if self.best[0] is not None:
            _logger.info(f"*** Best {self.metric}: {self.best[0]:.4f} (epoch {self.best[1]})")
        elif (self.folder / "last.pth.tar").exists() and self.rows:
            with self._explained():
                self.saver.make_last_the_best()
            _logger.warning(f"No epoch has a value of {self.metric}: model_best.pth.tar is the last epoch")
        self.loggers.close()
        best_last = ranked(self.rows, self.metric, self.attributes) or self.rows
        print(f"--result\n{json.dumps(best_last[-10:], indent=4)}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn an error of writing into one sentence: what, why, what is needed, what is whole, how to continue.

        Raises:
            UsageError: a file could not be written, and the run does not continue.
        """
        try:
            yield
        except (OSError, UsageError) as error:
            reason = (
                str(error) if isinstance(error, UsageError) else f"cannot write into {self.folder}: {error.strerror}"
            )
            self.saver.remove_unfinished()
            if self.continues:
                _logger.error(f"{reason}. Training continues without this file")
            else:
                raise UsageError(f"{reason}. {self._way_out(error)}") from error

    def _way_out(self, error: Exception) -> str:
        """Return what a user must do after a file could not be written."""
        too_large = isinstance(error, OSError) and error.errno == errno.EFBIG
        remedy = "allow larger files (ulimit -f unlimited)" if too_large else "make room"
        if not self.folder.exists():
            return "The folder was removed, with all that it held: start again"
        newest = newest_checkpoint(self.folder)
        try:
            free, size = shutil.disk_usage(self.folder).free, newest.stat().st_size if newest else 0
        except OSError:  # the folder cannot be read
            newest = None
        if newest is None:
            return f"No checkpoint is complete: {remedy} or name another --output, and start again"
        return (
            f"A checkpoint has {size / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free. {newest} is whole: {remedy}, "
            f"and continue with {resume_command(self.launch, newest)}"
        )

    def _draw_curves(self, last: bool) -> None:
        """Draw the curves after the last epoch, and after others while that takes about 5% of the time at most."""
        start = time.perf_counter()
        if start < self.next_drawing and not last:
            return
        try:
            draw_curves(self.folder / "summary.csv", self.folder)
        except (UsageError, OSError) as error:
            _logger.warning(f"No curves this time: {error}")  # a picture must not end a run
        end = time.perf_counter()
        self.next_drawing = end + 20 * (end - start)
