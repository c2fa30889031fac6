"""Image files whose names a table spells in another form than the disk.

A table may have backslashes, accents in another Unicode form, another case or no ending, and may lie in a folder beside
the images. A path stands for a file if exactly one file fits.
"""

import logging
import os
import unicodedata
from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalog.embedded_images import is_image_file, unpacked
from catalog.image_roots import image_roots
from catalog.parquet_table import parquet_parts
from catalog.table import Table

_logger = logging.getLogger(__name__)

_TRIED = 200  # rows that are tried, evenly spaced, before any folder is listed
_SUBFOLDERS = 50  # subfolders of the table's folder that may hold its images


def with_found_images(table: Table) -> tuple[Table, tuple[Path, ...]]:
    """Return a table whose image paths name existing files as far as possible, and the folders they are relative to.

    If the files that the table names exist, the table is returned as it is. Otherwise folders are listed, and each path
    for which exactly one file fits becomes that file's absolute path, with one warning. Images inside a Parquet table
    are unpacked.

    Args:
        table: the table.

    Raises:
        DataError: if no image exists, in any form.
    """
    folders = table.folders
    if table.names is not None:
        for part in parquet_parts(table.path):
            unpacked(str(part.resolve()))
        return table, folders
    rows = np.unique(np.linspace(0, len(table) - 1, min(_TRIED, len(table)), dtype=np.int64)).tolist()
    missing = [row for row in rows if not _exists(table.image_path(row), *folders)]
    if not missing:
        return table, image_roots(table)
    find = _Finder()
    nearby = table.image_root is None and len(missing) == len(rows)
    root = _best_root(table, missing, find, nearby)
    if root is None:
        return table, image_roots(table)

    # all paths that name no file
    paths = table.image_paths.to_pylist()
    found = {
        row: file
        for row, path in enumerate(paths)
        if not _exists(path, *folders) and (file := find(root, path)) is not None
    }
    row, file = next(iter(found.items()))
    _logger.warning(
        f"{table.path.name}: {len(found)} of {len(table)} image paths differ from the names of their files, which were "
        f"found ({table.image_path(row)!r} in {table.place(row)} is {file}): correct them, since listing folders takes "
        "time"
    )
    for row, file in found.items():
        paths[row] = file
    table = replace(table, image_paths=pa.array(paths, pa.large_string()))
    return table, image_roots(table)


def _exists(path: str, *roots: Path) -> bool:
    return any(is_image_file(root / path) for root in roots)


def _best_root(table: Table, missing: list[int], find: "_Finder", nearby: bool) -> Path | None:
    """Return the folder below which most of the missing images are found; None if there is none, or several.

    Args:
        table: the table.
        missing: rows whose image does not exist as it is spelled.
        find: finds files.
        nearby: whether the images may also be in the folder above the table's, or in a folder of it.
    """
    near, far = dict.fromkeys(table.folders), {}
    if nearby:
        folder = table.path.parent.resolve()
        with os.scandir(folder) as entries:
            below = sorted(entry.name for entry in entries if entry.is_dir())[:_SUBFOLDERS]
        far = dict.fromkeys((folder.parent, *(folder / name for name in below)))
    for roots in (near, far):  # a folder that paths are relative to anyway needs no majority
        counts = {root: sum(find(root, table.image_path(row)) is not None for row in missing) for root in roots}
        best = [root for root, count in counts.items() if count and count == max(counts.values())]
        if best and (len(best) == 1 or roots is near):
            return best[0]
    return None


class _Finder:
    """Finds the one file that a path stands for; each folder is listed once."""

    def __init__(self) -> None:
        self._names = cache(_names_by_form)

    def __call__(self, root: Path, path: str) -> str | None:
        """Return the absolute path of the one file that fits; None if there is none, or several."""
        place = str(root)
        *folders, name = path.replace("\\", "/").split("/")
        for part in folders:
            if part in ("", "."):
                continue
            found = part if part == ".." else self._one(place, part, folder=True)
            if found is None:
                return None
            place = os.path.normpath(os.path.join(place, found))  # noqa: PTH118 - many
        file = self._one(place, name, folder=False)
        return None if file is None else os.path.join(place, file)  # noqa: PTH118 - many

    def _one(self, place: str, name: str, folder: bool) -> str | None:
        exact, by_form, by_stem = self._names(place, folder)
        if name in exact:
            return name
        form = _form(name)
        fitting = by_form.get(form) or ([] if folder else by_stem.get(form, []))
        return fitting[0] if len(fitting) == 1 else None


_Names = tuple[frozenset[str], dict[str, list[str]], dict[str, list[str]]]


def _names_by_form(place: str, folder: bool) -> _Names:
    """Return the names in a folder, by form, and by form without their ending: its folders', or else its files'."""
    try:
        with os.scandir(place) as entries:
            names = [entry.name for entry in entries if entry.is_dir() == folder]
    except OSError:
        names = []
    by_form: dict[str, list[str]] = defaultdict(list)
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_form[_form(name)].append(name)
        by_stem[_form(os.path.splitext(name)[0])].append(name)  # noqa: PTH122 - many
    return frozenset(names), dict(by_form), dict(by_stem)


def _form(name: str) -> str:
    """Return what a name has in common with its spellings in another Unicode form or case."""
    return unicodedata.normalize("NFC", name).casefold()
