"""Images without labels beside a training table, and the order that mixes them into every batch.

As in FixMatch (arXiv:2001.07685, its mu) a batch has the table's rows and so many times as many unlabeled images.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from catalog.data_error import DataError
from catalog.image_list import ImageList, list_images
from catalog.table import Table


def unlabeled_per_batch(ratio: float, batch_size: int) -> int:
    """Return how many unlabeled images a batch of a process has beside so many of the table's rows."""
    return round(ratio * batch_size)


def with_unlabeled(table: Table, inputs: Sequence[str]) -> Table:
    """Return a table with more rows at its end, all of whose cells are blank: images that it does not have yet.

    Args:
        table: the training table.
        inputs: folders, tables, image files, and patterns of these (`shop/*.jpg`, `**` for folders below); the labels
            of tables are not read.

    Raises:
        DataError: an input is missing, or all its images are in the table already.
    """
    here = {_join(root, path) for root in _folders(table) for path in _texts(table)}
    paths = dict.fromkeys(path for images in list_images(_expanded(inputs)) for path in _absolute(images))
    new = pa.array([path for path in paths if path not in here], type=pa.large_string())
    if not len(new):
        raise DataError(f"--unlabeled {' '.join(inputs)}: all its images are in {table.path.name} already")
    image_paths = pa.concat_arrays([table.image_paths.cast(pa.large_string()), new])
    columns = {
        name: pa.concat_arrays([column, pa.DictionaryArray.from_arrays(_blanks(column, len(new)), column.dictionary)])
        for name, column in table.columns.items()
    }
    return replace(table, image_paths=image_paths, columns=columns, unlabeled=len(new))


def shared_images(table: Table, other: Table) -> int:
    """Return how many of the rows that `with_unlabeled` added to a table are images of another one."""
    theirs = {_join(root, path) for root in _folders(other) for path in _texts(other)}
    return sum(path in theirs for path in table.image_paths[len(table) - table.unlabeled :].to_pylist())


def _blanks(column: pa.DictionaryArray, count: int) -> pa.Array:
    return pa.nulls(count, column.type.index_type)


def _folders(table: Table) -> tuple[str, str]:
    return str(table.path.parent.resolve()), str(Path.cwd())


def _texts(table: Table) -> list[str]:
    texts: list[str] = table.image_paths.to_pylist()
    return texts


def _expanded(inputs: Sequence[str]) -> list[str]:
    """Return the inputs with patterns replaced by what they find."""
    found: list[str] = []
    for text in inputs:
        matches = [text] if Path(text).exists() or not glob.has_magic(text) else _matches(text)
        if not matches:
            raise DataError(f"--unlabeled {text}: nothing matches the pattern")
        found += matches
    return found


def _matches(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - a pattern may be absolute, and with `**`


def _absolute(images: ImageList) -> Iterator[str]:
    """Yield the absolute path of each image, in the first of its roots that has it."""
    roots = [str(root.resolve()) for root in images.roots]
    for path in images.paths.to_pylist():
        places = [_join(root, path) for root in roots]
        yield next((place for place in places[:-1] if Path(place).exists()), places[-1])


def _join(folder: str, path: str) -> str:
    return os.path.normpath(os.path.join(folder, path))  # noqa: PTH118 - of millions, a Path takes several times as long
