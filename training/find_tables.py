"""Finding the tables of a run; where one is missing, the command that makes it from the user's only table."""

from __future__ import annotations

import shlex
from pathlib import Path

from catalog.splits import MissingTable, find_label_table, find_split, is_table
from runtime.errors import UsageError


def find_train_table(data_dir: str, name: str) -> Path:
    """Return the path of the training table.

    Args:
        data_dir: folder of the tables.
        name: name of the split, or a file.

    Raises:
        UsageError: it is missing; for a folder with another table, or with folders of classes, with the command that
            splits these.
    """
    try:
        return find_split(data_dir, name)
    except MissingTable as error:
        if name != "train":
            raise
        folder = Path(data_dir)
        tables = [file for file in sorted(folder.iterdir()) if is_table(file)]
        below = [place for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")]
        if len(tables) == 1 and not _has(folder, "val", "test"):
            raise UsageError(f"{error}; split it with: {_command(tables[0])}") from error
        if not tables and below:
            raise UsageError(f"{error}; if its folders are classes, make tables with: {_command(folder)}") from error
        raise


def find_val_table(data_dir: str, name: str, train: Path) -> Path:
    """Return the path of the validation table.

    Args:
        data_dir: folder of the tables.
        name: name of the split, or a file.
        train: path of the training table.

    Raises:
        UsageError: it is missing; with the command that splits the training table.
    """
    try:
        return find_split(data_dir, name)
    except MissingTable as error:
        if name not in ("val", "validation"):
            raise
        folder = train.parent
        is_train = train.name.lower().partition(".")[0] == "train"
        words = ["--test", "0"] if is_train and _has(folder, "test") else []
        if not is_train and not _has(folder, "train", "test"):
            pass  # the tables are written beside it
        elif is_train and find_label_table(folder, train) == train:
            words += ["--overwrite"]  # which keeps it as all.csv
        else:
            words += ["-o", str(folder / "split")]
        raise UsageError(f"{error}; split {train.name} with: {_command(train, *words)}") from error


def _has(folder: Path, *names: str) -> bool:
    """Return whether a folder has a table of any of these names."""
    return any(is_table(file) and file.name.partition(".")[0] in names for file in folder.iterdir())


def _command(place: Path, *words: str) -> str:
    return shlex.join(["python", "split.py", str(place), *words])
