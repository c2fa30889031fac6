"""The images of an index that are most similar to one that somebody sends, for a page that names them by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from PIL import Image

from reports.hits import Hits, label_texts
from serving.index_folder import IMAGE_FILE, IMAGE_PATH
from serving.search import Index

MOST_VALUES = 500  # that a page offers to filter by

SIDE = 224  # pixels of the longer side of a picture


def similar_images(index: Index, image: Image.Image, where: Sequence[str], top: int) -> list[dict[str, Any]]:
    """Return the most similar rows that fit all filters, in plain values: `row`, `name`, `similarity`, `labels`.

    Args:
        index: the index.
        image: the image.
        where: filters, as in `Index.search`.
        top: number of rows.

    Raises:
        UsageError: a filter is wrong, or no row fits.
    """
    fits = index.fitting(where)
    (query,) = index.queries([image])
    rows, similarity = index.nearest(query, top, fits)
    table = index.rows.take(pa.array(rows))
    hits = Hits(table, index.label_space, tuple(index.info.labels))
    return [
        {
            "row": int(row),
            "name": entry[IMAGE_PATH],
            "similarity": min(1.0, float(value)),
            "labels": [text for _, text in label_texts(hits, entry)],
        }
        for row, value, entry in zip(rows, similarity, table.to_pylist(), strict=True)
    ]


def index_facts(index: Index) -> dict[str, Any]:
    """Return what a page says about an index: its size, and by attribute the values to filter by."""
    values = {}
    for name in dict.fromkeys([*index.label_space.attributes, *index.info.labels]):
        found = list(index.label_space.classes.get(name, ()))
        if name in index.info.labels and not found:
            found = sorted(filter(None, index.rows[name].unique().to_pylist()))
        values[name] = found[:MOST_VALUES]
    return {"images": len(index), "values": values}


def index_image(index: Index, row: int) -> str:
    """Return the file of a row's image."""
    return str(index.rows[IMAGE_FILE][row].as_py())
