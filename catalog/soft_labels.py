"""Soft labels of a table's images, read from a Parquet file of probabilities.

`inference.py --probabilities` writes such files: `image_path`, a list of probabilities for each attribute, and the
classes in the metadata. A column `<attribute>_weight` may weigh each cell, from 0; without one every weight is 1.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from catalog.data_error import DataError, quoted
from catalog.label_space import LabelSpace
from catalog.table import IMAGE_PATH, Table
from catalog.unlabeled import join_paths
from runtime.errors import first_line
from runtime.regular_file import irregular_file

pc: Any = pyarrow.compute  # its functions are made at run time, which mypy does not see

LABEL_SPACE_KEY = b"label_space"  # key of the schema's metadata; its value is LabelSpace.to_dict as JSON
_IN_MEMORY = 1 << 30  # bytes of probabilities; more are kept in a temporary file that is mapped into memory
_BATCH = 1 << 22  # probabilities that are read at a time
_TOLERANCE = 1e-3  # largest error in the sum of a distribution


@dataclass(frozen=True)
class SoftLabels:
    """The soft labels of a table's images.

    Attributes:
        row_of: int64 [rows of the table], the row of `values`; -1 for an image that the file lacks.
        values: float32 [N, sum of K], the probabilities of all attributes side by side; 0 where there are none.
        weights: float32 [N, A], the weight of each cell; negative for a cell without probabilities.
    """

    row_of: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]


def read_soft_labels(path: Path, table: Table, label_space: LabelSpace, skipped: Collection[str] = ()) -> SoftLabels:
    """Read the soft labels of a table's images, matched by image path.

    A path is relative to the folder of the training table, to the working directory, or to the folder of the file.
    Only images of the table are kept.

    Args:
        path: the Parquet file.
        table: the training table, with its unlabeled images.
        label_space: the attributes and classes of the model, which may have another order than the file's.
        skipped: attributes that need no soft labels.

    Raises:
        DataError: the file cannot be read, has other attributes or classes, no image of the table, or a list that is no
            distribution.
    """
    file = _open(path)
    saved = _saved_label_space(path, file.schema_arrow)
    taught = [name for name in label_space.attributes if name not in skipped]
    order = {name: _class_order(path, name, saved, label_space) for name in taught}

    try:
        # the rows of the file that the table has
        paths = file.read(columns=[IMAGE_PATH])[IMAGE_PATH].cast(pa.large_string()).combine_chunks()
        file_row = _match(table, paths, path)
        kept, row_of = np.unique(file_row[file_row >= 0], return_inverse=True)
        if not len(kept):
            raise _no_image(path, table, paths)
        found = np.full(len(table), -1, dtype=np.int64)
        found[file_row >= 0] = row_of

        # their probabilities
        values, weights = _read_rows(path, file, kept, label_space, order)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name} is damaged ({first_line(error)}): write it again") from None
    return SoftLabels(found, values, weights)


def _read_rows(
    path: Path,
    file: pq.ParquetFile,
    kept: npt.NDArray[np.int64],
    label_space: LabelSpace,
    order: Mapping[str, npt.NDArray[np.int64]],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the probabilities and weights of some rows of the file, as `SoftLabels` has them.

    Args:
        path: the file, for messages.
        file: the open file.
        kept: the rows to return, sorted.
        label_space: the attributes and classes of the model.
        order: the file's position of each class, for each attribute that is read.
    """
    sizes = label_space.num_classes
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    values = _storage(len(kept), sum(sizes.values()))
    weights = np.full((len(kept), len(sizes)), -1, dtype=np.float32)
    for first, batch in _batches(file, order, sum(sizes.values())):
        begin, end = np.searchsorted(kept, [first, first + len(batch)])
        inside = kept[begin:end] - first
        for index, name in enumerate(sizes):
            if name not in order or begin == end:
                continue
            columns = slice(starts[name], starts[name] + sizes[name])
            part, valid = _distributions(path, name, batch, first, sizes[name], name in label_space.multi_valued)
            values[begin:end, columns] = part[inside][:, order[name]]
            weights[begin:end, index] = np.where(valid, _cell_weights(path, name, batch, first), -1)[inside]
    return values, weights


def _no_image(path: Path, table: Table, paths: pa.LargeStringArray) -> DataError:
    """Return the error for a file without any image of a table."""
    seen = (
        f"the file begins with {paths[0].as_py()}, the table with {table.image_path(0)}"
        if len(paths)
        else "the file is empty"
    )
    return DataError(
        f"{path.name} has none of the images of {table.path.name} ({seen}): label this table's images with "
        "inference.py --probabilities"
    )


def _open(path: Path) -> pq.ParquetFile:
    """Open the file; refuse one that is not Parquet or has no image paths."""
    if fault := irregular_file(path):
        raise DataError(fault)
    if not path.is_file():
        raise DataError(f"no such file of soft labels: {path}")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError):
        raise DataError(f"{path.name} is not a Parquet file, or is damaged: write it again") from None
    if IMAGE_PATH not in file.schema_arrow.names:
        raise DataError(f"{path.name} has no column {IMAGE_PATH}: write it with inference.py --probabilities")
    return file


def _saved_label_space(path: Path, schema: pa.Schema) -> LabelSpace:
    """Return the attributes and classes that the file's metadata names."""
    text = (schema.metadata or {}).get(LABEL_SPACE_KEY)
    if text is None:
        raise DataError(
            f"{path.name} lacks the names of its classes (schema metadata {LABEL_SPACE_KEY.decode()!r}), which pandas "
            "drops: write the file with inference.py --probabilities, and change it only with pyarrow"
        )
    try:
        return LabelSpace.from_dict(json.loads(text))
    except ValueError as error:  # a DataError, or text that is not JSON
        raise DataError(f"{path.name} cannot be used: {first_line(error)}") from error


def _class_order(path: Path, name: str, saved: LabelSpace, label_space: LabelSpace) -> npt.NDArray[np.int64]:
    """Return the file's position of each class of an attribute.

    Raises:
        DataError: the file lacks the attribute, or has other classes.
    """
    if name not in saved.attributes:
        raise DataError(
            f"{path.name} has no soft labels of {name!r}, only of {quoted(saved.attributes)}: label with a teacher "
            f"that predicts {name!r}, or name {name!r} in pseudo_skip"
        )
    if (name in saved.multi_valued) != (name in label_space.multi_valued):
        held, wanted = (
            ("several values", "one class") if name in saved.multi_valued else ("one class", "several values")
        )
        raise DataError(
            f"{path.name}: {name!r} has {held} an image, but the training table has {wanted}: name {name!r} in "
            "multi_valued for both the teacher and this run, or for neither"
        )
    theirs, ours = saved.classes[name], label_space.classes[name]
    missing = next((one for one in ours if saved.class_of(name, one) is None), None)
    extra = next((one for one in theirs if label_space.class_of(name, one) is None), None)
    if len(theirs) != len(ours) or missing is not None or extra is not None:
        difference = f"lacks {missing!r}" if missing is not None else f"has {extra!r}"
        raise DataError(
            f"{path.name}: the classes of {name!r} differ from the model's (the file {difference}): label with a "
            "teacher that was trained with the same all.csv"
        )
    return np.array([theirs.index(str(saved.class_of(name, one))) for one in ours], dtype=np.int64)


def _match(table: Table, paths: pa.LargeStringArray, file: Path) -> npt.NDArray[np.int64]:
    """Return the row of each of the table's images in the file, int64 [rows]; -1 for none."""
    folders = [str(folder) for folder in (*table.folders, table.path.parent.resolve(), Path.cwd())]
    found = np.full(len(table), -1, dtype=np.int64)
    for of_file in dict.fromkeys((*folders, str(file.parent.resolve()))):
        known = join_paths(of_file, paths)
        for of_table in map(str, table.folders):
            places = pc.index_in(join_paths(of_table, table.image_paths), value_set=known)
            position = places.fill_null(-1).to_numpy(zero_copy_only=False)
            found = np.where(found < 0, position, found)
    return found


def _storage(rows: int, width: int) -> npt.NDArray[np.float32]:
    """Return zeros [rows, width], in memory or in a temporary file without a name."""
    if rows * width * 4 <= _IN_MEMORY:
        return np.zeros((rows, width), dtype=np.float32)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=(rows, width))


def _batches(file: pq.ParquetFile, taught: Collection[str], width: int) -> Iterator[tuple[int, pa.Table]]:
    """Yield parts of the file, and the number of each part's first row."""
    names = [name for name in file.schema_arrow.names if name in {*taught, *(f"{one}_weight" for one in taught)}]
    first = 0
    for batch in file.iter_batches(max(1, _BATCH // width), columns=names):
        yield first, pa.table(batch)
        first += len(batch)


def _distributions(
    path: Path, name: str, batch: pa.Table, first: int, k: int, multi_valued: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return the lists of an attribute as an array [B, K], 0 for a null, and which rows have one, bool [B].

    Raises:
        DataError: a list has another length, or is no distribution.
    """
    lists = batch[name].combine_chunks()
    valid = lists.is_valid().to_numpy(zero_copy_only=False)
    lengths = pc.list_value_length(lists).fill_null(k).to_numpy(zero_copy_only=False)
    if len(wrong := np.flatnonzero(lengths != k)):
        raise DataError(
            f"{path.name} row {first + wrong[0] + 1}: {name} has {lengths[wrong[0]]} probabilities for {k} classes: "
            "write the file again with inference.py --probabilities"
        )
    values = np.zeros((len(batch), k), dtype=np.float32)
    values[valid] = pc.list_flatten(lists).to_numpy(zero_copy_only=False).reshape(-1, k)
    inside = ((values >= 0) & (values <= 1 + _TOLERANCE)).all(axis=1)  # False for NaN
    if not multi_valued:
        inside &= ~valid | (abs(values.sum(axis=1) - 1) <= _TOLERANCE)
    if len(wrong := np.flatnonzero(~inside)):
        rule = "are not all from 0 to 1" if multi_valued else "do not sum to 1"
        raise DataError(f"{path.name} row {first + wrong[0] + 1}: the probabilities of {name} {rule}: correct them")
    return values, valid


def _cell_weights(path: Path, name: str, batch: pa.Table, first: int) -> npt.NDArray[np.float32]:
    """Return the weight of each row's cell, float32 [B]; 1 without a column of weights, 0 for a null.

    Raises:
        DataError: a weight is negative or not finite.
    """
    column = f"{name}_weight"
    if column not in batch.column_names:
        return np.ones(len(batch), dtype=np.float32)
    weights: npt.NDArray[np.float32] = batch[column].cast(pa.float32()).fill_null(0).to_numpy()
    if len(wrong := np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))):
        raise DataError(f"{path.name} row {first + wrong[0] + 1}: {column} is {weights[wrong[0]]}: use 0 or more")
    return weights
