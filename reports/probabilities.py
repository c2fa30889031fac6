"""The probability of every class for many images, as a Parquet file that is written batch by batch.

A row is an image: `image_path`, and for each attribute a list of float32 with the probability of each class; null where
the image could not be read. The key `label_space` of the schema's metadata names the attributes and their classes in
the order of the lists, as JSON:

    space = json.loads(pyarrow.parquet.read_schema("soft.parquet").metadata[b"label_space"])

pandas and polars read the columns. The memory for writing depends on the number of classes, not of images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from catalog.label_space import LabelSpace
from catalog.soft_labels import LABEL_SPACE_KEY
from catalog.table import IMAGE_PATH
from runtime.atomic_file import atomic_file

_GROUP = 1 << 22  # probabilities in a row group, 16 MiB
_MOST_ROWS = 1 << 16  # rows in a row group

Distributions = Mapping[str, npt.NDArray[np.float32]]


class NoProbabilities:
    """Probabilities that nobody asked for."""

    def add(self, distributions: Distributions, readable: npt.NDArray[np.bool_]) -> None:
        """Write nothing."""


class Probabilities(NoProbabilities):
    """A writer of probabilities, which takes the images in their order.

    Args:
        writer: the file, with the schema of `probability_schema`.
        label_space: the attributes and their classes.
        image_paths: the image paths, Arrow strings, one a row.
    """

    def __init__(self, writer: Any, label_space: LabelSpace, image_paths: pa.ChunkedArray) -> None:
        self.writer, self.label_space, self.image_paths = writer, label_space, image_paths
        self.group = min(_MOST_ROWS, max(1, _GROUP // max(1, sum(label_space.num_classes.values()))))
        self.written = self.waiting = 0
        self.parts: list[tuple[Distributions, npt.NDArray[np.bool_]]] = []

    def add(self, distributions: Distributions, readable: npt.NDArray[np.bool_]) -> None:
        """Add the next images.

        Args:
            distributions: probabilities of each attribute's classes, float32 [B, K].
            readable: whether each image could be read, bool [B].
        """
        self.parts.append((distributions, readable))
        self.waiting += len(readable)
        if self.waiting >= self.group:
            self.flush()

    def flush(self) -> None:
        """Write the images that wait for a full row group."""
        if not self.waiting:
            return
        readable = np.concatenate([part for _, part in self.parts])
        columns = [self.image_paths.slice(self.written, self.waiting)]
        for name in self.label_space.attributes:
            columns.append(_lists(np.concatenate([part[name] for part, _ in self.parts]), readable))
        schema = probability_schema(self.label_space)
        self.writer.write_table(pa.table(columns, schema=schema), row_group_size=self.waiting)
        self.written += self.waiting
        self.waiting, self.parts = 0, []


@contextmanager
def write_probabilities(
    path: Path | None, label_space: LabelSpace, image_paths: pa.ChunkedArray
) -> Iterator[NoProbabilities]:
    """Yield a writer; at the end its file replaces an older one, and after an error nothing changes.

    Args:
        path: the file; None for none.
        label_space: the attributes and their classes.
        image_paths: the image paths, Arrow strings, one a row.
    """
    if path is None:
        yield NoProbabilities()
        return
    schema = probability_schema(label_space)
    with atomic_file(path) as unfinished, pq.ParquetWriter(unfinished, schema, use_dictionary=False) as writer:
        probabilities = Probabilities(writer, label_space, image_paths)
        yield probabilities
        probabilities.flush()


def probability_schema(label_space: LabelSpace) -> pa.Schema:
    """Return the columns of the file; its metadata names the classes."""
    columns = [(IMAGE_PATH, pa.large_string()), *((name, pa.list_(pa.float32())) for name in label_space.attributes)]
    return pa.schema(columns, {LABEL_SPACE_KEY: json.dumps(label_space.to_dict(), ensure_ascii=False).encode()})


def _lists(values: npt.NDArray[np.float32], readable: npt.NDArray[np.bool_]) -> pa.ListArray:
    """Return the rows [N, K] as lists, null where an image could not be read."""
    lengths = np.where(readable, values.shape[1], 0)
    offsets = pa.array(np.concatenate([[0], lengths.cumsum()]).astype(np.int32))
    flat = pa.array(values[readable].reshape(-1), pa.float32())
    return pa.ListArray.from_arrays(offsets, flat, mask=pa.array(~readable))
