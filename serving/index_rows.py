"""The rows of an index: the images of files and tables, their labels and predictions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from catalog.image_list import ImageList
from reports.predictions import Predictions, prediction_columns
from serving.index_folder import ERROR, IMAGE_FILE, IMAGE_PATH

_ROWS = 1 << 16  # rows that are read or made at a time


def table_labels(lists: Sequence[ImageList]) -> dict[str, pa.ChunkedArray]:
    """Return the labels of all rows by attribute, as Arrow strings, null where an input has none."""
    return {
        name: pa.chunked_array(
            [
                part.labels[name].cast(pa.string()) if name in part.labels else pa.nulls(len(part.paths), pa.string())
                for part in lists
            ],
            pa.string(),
        )
        for name in dict.fromkeys(name for part in lists for name in part.labels)
    }


def rows_sha256(lists: Sequence[ImageList]) -> str:
    """Return a hash of the images' paths, as they are spelled and absolute, and of their labels."""
    paths, files = (
        pa.chunked_array(parts, pa.large_string())
        for parts in ([part.names for part in lists], [part.files() for part in lists])
    )
    labels = table_labels(lists)
    digest = hashlib.sha256(json.dumps([len(paths), *labels]).encode())
    for column in (paths, files, *labels.values()):
        for start in range(0, len(column), _ROWS):
            part = column.slice(start, _ROWS).combine_chunks()
            digest.update(pa.record_batch([part], ["column"]).serialize())
    return digest.hexdigest()


def row_tables(
    lists: Sequence[ImageList], predictions: Predictions, errors: Mapping[int, str], schema: pa.Schema
) -> Iterator[pa.Table]:
    """Yield the rows of an index, some at a time.

    Args:
        lists: the images.
        predictions: the predictions for every image.
        errors: by row, the reason why its image could not be read.
        schema: the columns of the index.
    """
    labels = table_labels(lists)
    paths, files = (
        pa.chunked_array(parts, pa.large_string())
        for parts in ([part.names for part in lists], [part.files() for part in lists])
    )
    for start in range(0, len(paths), _ROWS):
        rows = slice(start, min(start + _ROWS, len(paths)))
        columns: dict[str, Any] = {
            IMAGE_PATH: paths[rows],
            IMAGE_FILE: files[rows],
            ERROR: pa.array([errors.get(row) for row in range(rows.start, rows.stop)], pa.string()),
        }
        for name in predictions.label_space.attributes:
            both = prediction_columns(predictions, name, 0, rows)
            columns |= dict(zip((f"{name}:predicted", f"{name}:probability"), both, strict=True))
        columns |= {name: column[rows] for name, column in labels.items() if name in schema.names}
        yield pa.table([columns[name].cast(schema.field(name).type) for name in schema.names], schema)
