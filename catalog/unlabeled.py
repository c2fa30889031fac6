"""Images without labels that are added to a training table.

As in FixMatch (2020, https://arxiv.org/abs/2001.07685, its ratio mu), each batch then mixes unlabeled images with the
table's rows.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from catalog.data_error import DataError
from catalog.embedded_images import is_image_file
from catalog.image_list import ImageList, list_images
from catalog.table import Table

pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see

_PATHS_AT_ONCE = 1 << 13  # paths that become Python strings at a time, since a table may have millions
_UNTIDY = r"/\.{0,2}(/|$)|^\.{1,2}(/|$)"  # has a //, a part . or .., or a / at its end


def unlabeled_per_batch(ratio: float, batch_size: int) -> int:
    """Return the number of unlabeled images in a process's batch, beside `batch_size` rows of the table."""
    return round(ratio * batch_size)


def with_unlabeled(table: Table, inputs: Sequence[str], image_root: str | None = None) -> Table:
    """Return a table with unlabeled images added at its end, each once; images that it already has are skipped.

    Args:
        table: the training table.
        inputs: folders, tables, image files, and patterns of these (`shop/*.jpg`; `**` includes folders below). The
            labels of tables are not read.
        image_root: the folder that the paths in these tables are relative to; None for the table's own.

    Raises:
        DataError: if an input is missing, or the table already has all its images.
    """
    found = pa.concat_arrays([absolute_paths(images) for images in list_images(_expanded(inputs), image_root)]).unique()
    new = found.filter(pc.invert(pc.is_in(found, value_set=_all_absolute_paths(table))))
    if not len(new):
        raise DataError(f"unlabeled {' '.join(inputs)}: {table.path.name} already has all these images: name others")
    return table.with_images(new)


def shared_images(table: Table, other: Table) -> int:
    """Return how many of the images that `with_unlabeled` added to a table are also in another table."""
    added = table.image_paths.filter(pa.array(table.added))
    return int(pc.sum(pc.is_in(added, value_set=_all_absolute_paths(other))).as_py() or 0)


def join_paths(folder: str, paths: pa.LargeStringArray) -> pa.LargeStringArray:
    """Return each path joined to a folder and normalized, as `os.path` does, without a Python string for each.

    Args:
        folder: an absolute, normalized path.
        paths: Arrow strings; absolute ones do not depend on the folder.
    """
    prefix, nothing = (pa.scalar(text, pa.large_string()) for text in (folder.rstrip("/") + "/", ""))
    below = pc.binary_join_element_wise(prefix, paths, nothing)
    joined = pc.if_else(pc.starts_with(paths, "/"), paths, below)
    untidy = pc.match_substring_regex(paths, _UNTIDY)
    if os.sep != "/":  # Windows has other rules: normalize every path
        untidy = pa.array(np.ones(len(paths), dtype=bool))
    if not pc.any(untidy).as_py():
        return joined
    normalized = [
        pa.array([_normalized(folder, path) for path in part], pa.large_string())
        for part in _in_parts(paths.filter(untidy))
    ]
    return pc.replace_with_mask(joined, untidy, pa.concat_arrays(normalized))


def _normalized(folder: str, path: str) -> str:
    return os.path.normpath(os.path.join(folder, path))  # noqa: PTH118 - Path takes several times as long, and keeps ..


def _all_absolute_paths(table: Table) -> pa.LargeStringArray:
    """Return each of a table's paths below each of the folders that it may be relative to."""
    return pa.concat_arrays([join_paths(str(folder), table.image_paths) for folder in table.folders])


def absolute_paths(images: ImageList) -> pa.LargeStringArray:
    """Return each image's absolute path: below the first root that has it, or below the last root if none has."""
    *earlier, last = (join_paths(str(root.resolve()), images.paths) for root in images.roots)
    for paths in reversed(earlier):
        last = pc.if_else(pa.array(_exist(paths)), paths, last)
    return last


def _exist(paths: pa.LargeStringArray) -> npt.NDArray[np.bool_]:
    exists = (is_image_file(path) for part in _in_parts(paths) for path in part)
    return np.fromiter(exists, dtype=bool, count=len(paths))


def _in_parts(paths: pa.LargeStringArray) -> Iterator[list[str]]:
    """Yield the paths as lists of at most `_PATHS_AT_ONCE` Python strings."""
    for start in range(0, len(paths), _PATHS_AT_ONCE):
        yield paths.slice(start, _PATHS_AT_ONCE).to_pylist()


def _expanded(inputs: Sequence[str]) -> list[str]:
    """Return the inputs with each pattern replaced by what it matches."""
    found: list[str] = []
    for text in inputs:
        matches = [text] if Path(text).exists() or not glob.has_magic(text) else _matches(text)
        if not matches:
            raise DataError(f"unlabeled {text}: nothing matches the pattern: correct it or the working directory")
        found += matches
    return found


def _matches(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - a pattern may be absolute, and with `**`
