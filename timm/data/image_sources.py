"""The image files of a table, each once, and what is known of them without decoding: their sizes and their age."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, Dataset

from catalog.decode import image_size
from catalog.image_roots import image_roots
from catalog.table import Table
from runtime.progress import progress_bar

_CHUNK = 512  # images that a worker looks at between two turns of the progress bar
_NOWHERE = (-1, -1, -1)

Stamp = tuple[int, int, int]
Stamps = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageSources:
    """The image files of a table; a path that several rows have is one source.

    Attributes:
        paths: Arrow strings [sources], as the table has them.
        roots: the folders that they are relative to, tried in order.
        of_row: int32 [rows], the source of each row.
    """

    paths: pa.LargeStringArray
    roots: tuple[str, ...]
    of_row: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.paths)

    def find(self, source: int) -> tuple[str, Stamp]:
        """Return where a source is, and its stamp: when it was last changed (ns), its length in bytes, and its root.

        One that is nowhere is at the last of the roots and has a stamp that no file has.
        """
        path, file = str(self.paths[source].as_py()), ""
        for number, root in enumerate(self.roots):
            file = os.path.join(root, path)  # noqa: PTH118 - of millions, a Path takes several times as long
            try:
                status = os.stat(file)  # noqa: PTH116
            except (OSError, ValueError):  # ValueError: no file's name has a NUL in it
                continue
            return file, (status.st_mtime_ns, status.st_size, number)
        return file, _NOWHERE

    def area(self, source: int) -> int:
        """Return how many pixels the header of a source promises; 0 for what is no image."""
        try:
            width, height = image_size(self.find(source)[0])
        except OSError:
            return 0
        return width * height

    def stamps(self, workers: int, show: bool) -> Stamps:
        """Return the stamp of each source, int64 [sources, 3].

        Args:
            workers: processes that look; 0 for this one.
            show: whether to show a progress bar.
        """
        return _look(_Chunks(self, _stamp), workers, "Looking for images", show).reshape(-1, 3)

    def areas(self, workers: int, show: bool) -> npt.NDArray[np.int64]:
        """Return the pixels of each source, int64 [sources], as `area` and `stamps` do."""
        return _look(_Chunks(self, ImageSources.area), workers, "Measuring images", show)


def image_sources(table: Table, roots: tuple[os.PathLike[str], ...] | None = None) -> ImageSources:
    """Return the sources of a table.

    Args:
        table: the table.
        roots: of `image_roots`, which looks for some of the images, where they are known already.
    """
    encoded = table.image_paths.dictionary_encode()
    folders = tuple(os.fspath(root) for root in roots or image_roots(table))
    return ImageSources(encoded.dictionary, folders, encoded.indices.to_numpy().astype(np.int32, copy=False))


class _Chunks(Dataset[npt.NDArray[np.int64]]):
    """What a function says of each of a chunk of sources; as a dataset, so that a loader's workers share the work."""

    def __init__(self, sources: ImageSources, look: Callable[[ImageSources, int], int | Stamp]) -> None:
        self.sources = sources
        self.look = look

    def __len__(self) -> int:
        return -(-len(self.sources) // _CHUNK)

    def __getitem__(self, chunk: int) -> npt.NDArray[np.int64]:
        numbers = range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, len(self.sources)))
        return np.array([self.look(self.sources, number) for number in numbers], dtype=np.int64)


def _look(chunks: _Chunks, workers: int, title: str, show: bool) -> npt.NDArray[np.int64]:
    loader: DataLoader[Any] = DataLoader(
        chunks,
        batch_size=None,
        num_workers=min(workers, len(chunks) - 1),
        collate_fn=_same,  # or each chunk would travel as a tensor, in shared memory of which there may be little
        generator=torch.Generator(),  # of its own: a run draws the same numbers with a cache as without
    )
    found = []
    with progress_bar(len(chunks.sources), title, "image", show) as bar:
        for chunk in loader:
            found.append(chunk)
            bar.update(len(chunk))
    return np.concatenate(found)


def _stamp(sources: ImageSources, number: int) -> Stamp:
    return sources.find(number)[1]


def _same(chunk: Any) -> Any:
    return chunk
