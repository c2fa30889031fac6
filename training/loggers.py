"""The loggers of a run beside its folder: TensorBoard, Weights & Biases, Trackio.

Each takes an epoch's numbers and pictures. None of them may end a training: one that fails is dropped with a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from runtime.errors import UsageError, first_line
from training.summary import Row

_logger = logging.getLogger("train")

SERVICES = ("wandb", "trackio")  # packages with the same calls
_PHASES = {"train_": "train", "eval_": "eval", "ema_": "ema"}  # beginning of a column -> its group in TensorBoard


class RunLogger(Protocol):
    """What the outputs of a run need of a logger."""

    def log_row(self, row: Row) -> None:
        """Log an epoch's row of summary.csv; blank cells are left out."""

    def log_picture(self, name: str, epoch: int, picture: Image.Image) -> None:
        """Log a picture of an epoch under a name such as `confusion/article`."""

    def close(self) -> None:
        """Write what is not yet written."""


class TensorBoardLogger:
    """Event files for TensorBoard.

    Args:
        folder: folder of the event files.
        first_epoch: the epoch that a resumed run repeats first; TensorBoard then hides it and the later ones of the
            earlier run. 0 for a new run.
        attributes: names of the attributes; each has a group of its own.
    """

    def __init__(self, folder: Path, first_epoch: int, attributes: Sequence[str]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # here: tensorboard is optional

        self.attributes = attributes
        self.writer = SummaryWriter(str(folder), purge_step=first_epoch or None)

    def log_row(self, row: Row) -> None:
        """Log each number under its group and name."""
        numbers = numbers_of(row)
        epoch = int(numbers.pop("epoch"))
        for column, value in numbers.items():
            self.writer.add_scalar(grouped_name(column, self.attributes), value, epoch)
        self.writer.flush()

    def log_picture(self, name: str, epoch: int, picture: Image.Image) -> None:
        """Log a picture."""
        self.writer.add_image(name, np.asarray(picture.convert("RGB")), epoch, dataformats="HWC")

    def close(self) -> None:
        """Write what is not yet written."""
        self.writer.close()


class WandbLogger:
    """Weights & Biases, or a package with the same calls, such as Trackio.

    Args:
        package: name of the package.
        project: name of the project; None for the package's default.
        folder: folder of the run. Its name is the run's, and a resumed run continues the earlier one.
        config: the flags of the run.

    Raises:
        UsageError: the service cannot be reached, or refuses the run.
    """

    def __init__(self, package: str, project: str | None, folder: Path, config: Mapping[str, Any]) -> None:
        self.module: Any = import_module(package)
        settings: dict[str, Any] = {"project": project, "name": folder.name, "config": dict(config), "resume": "allow"}
        settings |= {"id": run_id(folder)} if package == "wandb" else {"project": project or "simclr"}
        try:
            self.module.init(**settings)
        except Exception as error:
            way = "set WANDB_MODE=offline to send them later, or " if package == "wandb" else ""
            raise UsageError(
                f"cannot log to {package} ({first_line(error)}): {way}train without this logger"
            ) from error

    def log_row(self, row: Row) -> None:
        """Log each number under its column."""
        numbers = numbers_of(row)
        self.module.log(numbers, step=int(numbers["epoch"]))

    def log_picture(self, name: str, epoch: int, picture: Image.Image) -> None:
        """Log a picture."""
        self.module.log({name: self.module.Image(picture)}, step=epoch)

    def close(self) -> None:
        """Send what is not yet sent."""
        self.module.finish()


class Loggers:
    """All loggers of a run. One that fails is dropped.

    Args:
        loggers: the loggers by the name that a warning has for them.
    """

    def __init__(self, loggers: Mapping[str, RunLogger] | None = None) -> None:
        self.loggers = dict(loggers or {})

    def __bool__(self) -> bool:
        """Return whether there is a logger left."""
        return bool(self.loggers)

    def log_row(self, row: Row) -> None:
        """Log an epoch's row of summary.csv."""
        self._each(lambda logger: logger.log_row(row))

    def log_picture(self, name: str, epoch: int, picture: Image.Image) -> None:
        """Log a picture of an epoch."""
        self._each(lambda logger: logger.log_picture(name, epoch, picture))

    def close(self) -> None:
        """End all loggers."""
        self._each(lambda logger: logger.close())

    def _each(self, call: Callable[[RunLogger], None]) -> None:
        for name, logger in list(self.loggers.items()):
            try:
                call(logger)
            except Exception as error:
                del self.loggers[name]
                _logger.warning(f"{name} failed ({first_line(error)}): training continues without it")


def numbers_of(row: Row) -> dict[str, float]:
    """Return the cells of a row that are not blank."""
    return {column: value for column, value in row.items() if value is not None and value == value}


def grouped_name(column: str, attributes: Sequence[str]) -> str:
    """Return a column's name in TensorBoard: `train/loss`, `article/top1`, `article/balanced_accuracy`, `run/lr`.

    Args:
        column: a column of summary.csv.
        attributes: names of the attributes.
    """
    for start, group in _PHASES.items():
        rest = column.removeprefix(start)
        if rest != column:
            within = grouped_name(rest, attributes)
            return f"{group}/{rest}" if within.startswith("run/") else f"{group}_{within}"
    for attribute in sorted(attributes, key=len, reverse=True):
        if column == attribute:
            return f"{attribute}/top1"
        if column.startswith(f"{attribute}_"):
            return f"{attribute}/{column.removeprefix(f'{attribute}_')}"
    return f"run/{column}"


def run_id(folder: Path) -> str:
    """Return the identity of a run that W&B continues after a resume: the folder's, kept in a file of the folder."""
    file = folder / "wandb-id.txt"
    if not file.exists():
        import uuid

        file.write_text(uuid.uuid4().hex[:16] + "\n", encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()
