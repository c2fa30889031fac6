"""Images that occur twice: in the rows of one table, or in the tables of two splits.

Images are compared by path, however it is spelled: `./a.jpg`, `images/../a.jpg`, an absolute path, or a folder behind a
symbolic link. Everything is vectorized, so that a table of a million rows takes about a second.
"""

import logging
import os
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from catalog.data_error import DataError
from catalog.image_roots import image_roots
from catalog.label_space import SEPARATOR, values_of
from catalog.table import Table

_logger = logging.getLogger(__name__)
pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see

_RESOLVED = 10_000  # folders whose symbolic links are resolved, which takes a system call for each of their parts
_SHOWN = 2  # places in a warning

Rows = npt.NDArray[np.int64]


def file_paths(table: Table) -> pa.LargeStringArray:
    """Return each image's absolute path, the same for all spellings of one file, below the table's first root.

    Args:
        table: the table; without any image that exists, paths are relative to its folder.
    """
    try:
        root = str(image_roots(table)[0])
    except DataError:
        root = str(table.path.parent.resolve())
    nothing = pa.scalar("", pa.large_string())
    folders, names = _split(table.image_paths)
    folders = folders.dictionary_encode()
    resolve = os.path.realpath if len(folders.dictionary) <= _RESOLVED else os.path.normpath
    found = [resolve(os.path.join(root, folder)) for folder in folders.dictionary.to_pylist()]  # noqa: PTH118 - many
    prefixes = pa.array([folder.rstrip("/") + "/" for folder in found], pa.large_string())
    return pc.binary_join_element_wise(prefixes.take(folders.indices), names, nothing)


def _split(paths: pa.LargeStringArray) -> tuple[pa.LargeStringArray, pa.LargeStringArray]:
    """Return each path up to its last slash, and the name behind it."""
    paths = pa.concat_arrays([paths, pa.array([], pa.large_string())])  # a copy without an offset
    _, offsets, data = paths.buffers()
    starts = np.frombuffer(offsets, np.int64)[: len(paths) + 1]
    slashes = np.flatnonzero(np.frombuffer(data, np.uint8)[: starts[-1]] == ord("/"))
    last = np.concatenate([[-1], slashes])[np.searchsorted(slashes, starts[1:])]
    cuts = np.maximum(last + 1, starts[:-1])
    bounds = np.append(np.stack([starts[:-1], cuts], axis=1).reshape(-1), starts[-1])
    parts = pa.LargeStringArray.from_buffers(2 * len(paths), pa.py_buffer(bounds), data)
    even = np.arange(0, 2 * len(paths), 2)
    return parts.take(pa.array(even)), parts.take(pa.array(even + 1))


def warn_of_repeated_images(table: Table, attributes: Collection[str], scored: Table | None = None) -> None:
    """Warn of rows with the image of an earlier row, of labels that contradict each other, and of images in two tables.

    Args:
        table: the table.
        attributes: the attributes whose labels are compared; a table may lack some.
        scored: the table of another split, which is checked too and compared with the first. Images that `with_images`
            added to the first are not compared.
    """
    paths = file_paths(table)
    _warn_of_repeated_rows(table, attributes, paths)
    if scored is not None:
        scored_paths = file_paths(scored)
        _warn_of_repeated_rows(scored, attributes, scored_paths)
        _warn_of_shared_images(table, scored, paths, scored_paths)


def _warn_of_repeated_rows(table: Table, attributes: Collection[str], file_paths: pa.LargeStringArray) -> None:
    """Warn of rows that have the image of an earlier row, and of labels that contradict each other."""
    paths = file_paths.dictionary_encode()
    images: Rows = paths.indices.to_numpy().astype(np.int64)
    if len(paths.dictionary) == len(table):
        return
    repeated = np.flatnonzero(np.bincount(images)[images] > 1)  # rows whose image has another row
    order = np.argsort(images[repeated], kind="stable")
    rows = repeated[order]
    groups = images[rows]
    is_first = np.concatenate([[True], groups[1:] != groups[:-1]])
    first = rows[np.maximum.accumulate(np.where(is_first, np.arange(len(rows)), 0))]  # the image's first row
    later = ~is_first
    pairs = sorted(zip(rows[later].tolist(), first[later].tolist(), strict=True))[:_SHOWN]
    place = table.places({row for pair in pairs for row in pair})
    shown = "; ".join(f"{place[row]} has the image of {place[earlier]}" for row, earlier in pairs)
    _logger.warning(
        f"{table.path.name}: {later.sum()} rows repeat the image of an earlier row ({shown}): delete them, since they "
        "count more than once"
    )
    _warn_of_contradictions(table, attributes, rows, groups)


def _warn_of_shared_images(train: Table, other: Table, paths: pa.LargeStringArray, others: pa.LargeStringArray) -> None:
    """Warn of a training table's images that are also in the table of another split."""
    where = pc.index_in(others, value_set=paths.filter(pa.array(~train.added)))
    rows = np.flatnonzero(where.is_valid().to_numpy(zero_copy_only=False))
    if not len(rows):
        return
    in_train = np.flatnonzero(~train.added)[where.drop_null().to_numpy()]
    pairs = list(zip(rows[:_SHOWN].tolist(), in_train[:_SHOWN].tolist(), strict=True))
    here, there = other.places({row for row, _ in pairs}), train.places({row for _, row in pairs})
    shown = "; ".join(f"{here[row]} is {there[source]}" for row, source in pairs)
    _logger.warning(
        f"{other.path.name}: {len(rows)} of its {len(other)} images are also in {train.path.name} ({shown}): scores "
        "will be too high, so leave each image in one table only"
    )


def _warn_of_contradictions(table: Table, attributes: Collection[str], rows: Rows, groups: Rows) -> None:
    """Warn of images whose rows have different labels of an attribute.

    Args:
        table: the table.
        attributes: the attributes that are compared.
        rows: rows that share their image with others, grouped by image, int64 [N].
        groups: number of each one's image, int64 [N].
    """
    images: set[int] = set()
    pairs: list[tuple[int, int, str]] = []
    for name in attributes:
        if name not in table.columns:
            continue
        codes = label_codes(table.columns[name])[rows]
        known = np.flatnonzero(codes >= 0)
        before, after = known[:-1], known[1:]
        differ = (groups[before] == groups[after]) & (codes[before] != codes[after])
        images.update(groups[after[differ]].tolist())
        found = zip(rows[before[differ]].tolist(), rows[after[differ]].tolist(), strict=True)
        pairs += [(row, other, name) for row, other in found][:_SHOWN]
    if not pairs:
        return

    pairs = sorted(pairs)[:_SHOWN]
    place = table.places({row for *both, _ in pairs for row in both})

    def described(row: int, name: str) -> str:
        return f"{table.columns[name][row].as_py()!r} in {place[row]}"

    shown = "; ".join(f"{name} is {described(row, name)} and {described(other, name)}" for row, other, name in pairs)
    _logger.warning(
        f"{table.path.name}: {len(images)} images have labels that contradict each other ({shown}): keep the right one"
    )


def label_codes(column: pa.DictionaryArray) -> Rows:
    """Return a number for each row's label, int64 [rows], equal for sets in another order; -1 for a blank cell."""
    cells = column.dictionary.to_pylist()
    sets = [SEPARATOR.join(sorted(values_of(cell))) if SEPARATOR in cell else cell for cell in cells]
    number = {cell: code for code, cell in enumerate(dict.fromkeys(sets))}
    codes = np.array([*(number[cell] for cell in sets), -1], dtype=np.int64)
    positions = column.indices.fill_null(len(cells)).to_numpy(zero_copy_only=False)
    of_rows: Rows = codes[positions]
    return of_rows
