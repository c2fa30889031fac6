"""The tables of a data folder: `train`, `val`, `test` and optionally `all`, as .csv, .tsv or .parquet."""

import glob
import os
import re
from pathlib import Path

from catalog.data_error import DataError
from runtime.regular_file import irregular_file

FORMATS = (".csv", ".tsv", ".parquet", ".csv.gz", ".tsv.gz")
PARTS = "-*.parquet"  # ends the name of a table in several files, such as train-00000-of-00002.parquet

_TABLE_FOLDERS = ("annotations", "tables", "labels", "splits")
ALIASES = {"val": ("val", "validation"), "validation": ("validation", "val")}


class MissingTable(DataError):
    """A data folder that lacks a table."""


def find_split(data_dir: str | os.PathLike[str], name: str) -> Path:
    """Return the path of a split's table.

    Args:
        data_dir: the folder with the tables.
        name: "train", "val" (or "validation"), "test", or another table's name without its extension. A file also
            works, relative to the working directory or to `data_dir`, and so does a folder of Parquet parts.

    Returns:
        The file, the folder, or `NAME-*.parquet` for parts beside each other.

    Raises:
        MissingTable: if the folder has no such table.
        DataError: if there are several, it is no regular file, or there is no such folder.
    """
    folder = Path(data_dir)
    for stem in ALIASES.get(name, (name,)):
        if table := _find(folder, stem):
            return table
    for file in (Path(name), folder / name):
        if file.is_file() or (file.is_dir() and is_table(file)):
            return file
        if fault := irregular_file(file, folders=True):
            raise DataError(fault)
    below = [
        table for place in _subfolders(folder) for stem in ALIASES.get(name, (name,)) if (table := _find(place, stem))
    ]
    if len(below) == 1:
        return below[0]
    if below:
        raise DataError(
            f"{folder} has no table {name}, but its folders have several: give the path of one table ({below[0]}, ...)"
        )
    if not folder.is_dir():
        raise DataError(f"no such data folder: {folder}")
    name = "val" if name == "validation" else name  # "validation" is timm's default; our documents say "val"
    expected = name if Path(name).suffix else f"{name}.csv, {name}.tsv or {name}.parquet"
    raise MissingTable(f"{folder} has no {expected}: {tables_nearby(folder)}")


def _subfolders(folder: Path) -> list[Path]:
    """Return the folders in a data folder that may hold its tables."""
    return [place for name in _TABLE_FOLDERS if (place := folder / name).is_dir()]


def is_table(path: Path) -> bool:
    """Return whether a file is a table, by its name, or a folder one in Parquet parts, by what is in it."""
    named = path.name.lower().endswith(FORMATS)
    if not path.is_dir():
        return named
    return (named or (path / "_SUCCESS").exists()) and _has_parts(path)


def find_label_table(data_dir: str | os.PathLike[str], train_path: str | os.PathLike[str]) -> Path:
    """Return the path of the table that defines the classes: `all` in the data folder, else the training split.

    Raises:
        DataError: if the folder has `all` in several formats, or as no regular file.
    """
    folder = Path(data_dir)
    found = (_find(place, "all") for place in (folder, *_subfolders(folder)))
    return next(filter(None, found), Path(train_path))


def tables_nearby(folder: Path) -> str:
    """Return which tables a folder has, for an error message."""
    if not folder.is_dir():
        return f"there is no folder {folder}"
    names = sorted(file.name for file in folder.iterdir() if is_table(file))
    return f"found {', '.join(names[:10])}{', ...' if names[10:] else ''}" if names else f"no tables in {folder}"


def _find(folder: Path, stem: str) -> Path | None:
    """Return the table with this name in a folder; None if there is none.

    Raises:
        DataError: if there are several, or the only one is a pipe, a device or a folder.
    """
    found = [file for suffix in FORMATS if (file := folder / f"{stem}{suffix}").is_file()]
    found += [parts for parts in (folder / stem, folder / f"{stem}.parquet") if _has_parts(parts)]
    if not found and Path(stem).name == stem and (shards := _shards(folder, stem)):
        found.append(shards[0] if len(shards) == 1 else folder / f"{stem}{PARTS}")
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise DataError(f"{folder} has several tables called {stem}: name the file you mean ({names})")
    if not found:
        faults = filter(None, (irregular_file(folder / f"{stem}{suffix}") for suffix in FORMATS))
        if fault := next(faults, ""):
            raise DataError(fault)
    return found[0] if found else None


def _shards(folder: Path, stem: str) -> list[Path]:
    """Return the Parquet files of a table in several, such as `train-00000-of-00002.parquet`.

    Raises:
        DataError: if their names say that some are missing.
    """
    shards = sorted(folder.glob(f"{glob.escape(stem)}-[0-9]*.parquet"))
    counts = {int(named[1]) for file in shards if (named := re.search(r"-of-(\d+)\.parquet$", file.name))}
    if counts and counts != {len(shards)}:
        raise DataError(
            f"{folder} has {len(shards)} of the {max(counts)} parts of {stem} ({shards[0].name}, ...): add the others, "
            "or name a file"
        )
    return shards


def _has_parts(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*.parquet"))
