"""Decoded images of a table, kept in memory or on disk, so that no image is decoded twice.

All images are decoded once, before training, by worker processes, into one file: without a name in memory, or on disk
for later runs too. Afterwards every process of the host reads that file and none writes it.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from multiprocessing import reduction
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog.decode import Pixels, image_size, load_pixels
from catalog.image_roots import image_roots
from catalog.table import Table
from runtime.progress import progress_bar

_CHUNK = 256  # images that the workers are given at a time, each
_MISSING = (-1, -1, -1)

Index = npt.NDArray[np.int64]
Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class ImageSources:
    """The image files of a table. A path that occurs in several rows is one source.

    Attributes:
        paths: Arrow strings [sources], as in the table.
        roots: folders that the paths are relative to, tried in order.
        of_row: int32 [rows], the source of each row.
    """

    paths: pa.LargeStringArray
    roots: tuple[str, ...]
    of_row: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.paths)

    def find(self, source: int) -> tuple[str, tuple[int, int, int]]:
        """Return the file of a source, and its stamp: time of change (ns), length in bytes, number of the root.

        A missing file is below the last root and has the stamp (-1, -1, -1).
        """
        path, file = str(self.paths[source].as_py()), ""
        for number, root in enumerate(self.roots):
            file = os.path.join(root, path)  # noqa: PTH118 - with millions, a Path takes several times as long
            try:
                status = os.stat(file)  # noqa: PTH116
            except (OSError, ValueError):  # ValueError: a path with a NUL byte names no file
                continue
            return file, (status.st_mtime_ns, status.st_size, number)
        return file, _MISSING

    def files(self) -> Iterator[str]:
        """Yield the file of each source."""
        return (self.find(source)[0] for source in range(len(self)))

    def areas(self, workers: int, show: bool) -> npt.NDArray[np.int64]:
        """Return the pixels that the header of each source announces, int64 [sources]; 0 if it is no image.

        Args:
            workers: processes that read headers; 0 reads them in this one.
            show: show a progress bar.
        """
        return np.array([*_in_processes(_area, self.files(), len(self), workers, "Measuring", show)], dtype=np.int64)

    def key(self) -> str:
        """Return a key that two tables share only if they list the same unchanged images in the same order."""
        stamps = np.array([self.find(source)[1] for source in range(len(self))], dtype="<i8")
        # Only roots that have an image count: the working directory is a root, and may differ next time.
        used = [self.roots[number] for number in np.unique(stamps[:, 2]) if number >= 0]
        key = hashlib.sha256("\0".join(used).encode(errors="surrogateescape"))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, pa.schema([("path", self.paths.type)])) as stream:
            stream.write_batch(pa.record_batch([self.paths], names=["path"]))
        key.update(sink.getvalue())
        key.update(stamps.tobytes())
        return key.hexdigest()[:32]


def image_sources(table: Table, roots: tuple[os.PathLike[str], ...] | None = None) -> ImageSources:
    """Return the sources of a table.

    Args:
        table: the table.
        roots: result of `image_roots` if it is known already, as it looks for some of the files.
    """
    encoded = table.image_paths.dictionary_encode()
    folders = tuple(os.fspath(root) for root in roots or image_roots(table))
    return ImageSources(encoded.dictionary, folders, encoded.indices.to_numpy().astype(np.int32, copy=False))


class ImageCache:
    """The pixels of a table's images. Worker processes may receive it, however they are started.

    Args:
        file: descriptor of the pixels, uint8 [H, W, C] of one source after the other; the cache closes it.
        index: int64 [sources, 3], offset in bytes, height and width; a height of 0 marks a source without pixels.
        channels: 1 or 3.
        of_row: int32 [rows], the source of each row.
    """

    def __init__(self, file: int, index: Index, channels: int, of_row: npt.NDArray[np.int32]) -> None:
        self.index, self.channels, self.of_row = index, channels, of_row
        self._open(file)

    def get(self, row: int) -> Pixels | None:
        """Return the pixels of a row's image, uint8 [H, W, C], writable; None if it could not be decoded or read."""
        offset, height, width = self.index[self.of_row[row]].tolist()
        if not height:
            return None
        pixels = np.empty((height, width, self.channels), dtype=np.uint8)
        try:
            # Reading is as fast as a mapping for whole images, and a failing disk is an error, not the signal SIGBUS.
            count = os.preadv(self._file, [pixels.reshape(-1).data], offset)
        except OSError:
            return None
        return pixels if count == pixels.nbytes else None

    def _open(self, file: int) -> None:
        self._file = file
        weakref.finalize(self, os.close, file)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": reduction.DupFd(self._file)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._open(state["_file"].detach())


def decode_into(
    place: str, sources: ImageSources, areas: npt.NDArray[np.int64], channels: int, workers: int, show: bool
) -> Index:
    """Write the pixels of all sources to a file; return the index.

    Args:
        place: path of the file, under which worker processes can open it.
        sources: the images.
        areas: pixels of each source, int64 [sources], as `ImageSources.areas` returns them.
        channels: 1 or 3.
        workers: processes that decode; 0 decodes in this one.
        show: show a progress bar.

    Raises:
        OSError: the file cannot be written.
        concurrent.futures.process.BrokenProcessPool: a worker was killed.
    """
    sizes = areas * channels
    offsets = np.cumsum(sizes) - sizes
    os.truncate(place, int(sizes.sum()))
    numbers = zip(offsets.tolist(), sizes.tolist(), strict=True)
    jobs = ((place, file, channels, *number) for file, number in zip(sources.files(), numbers, strict=True))
    shapes = [*_in_processes(_decode, jobs, len(sources), workers, "Decoding", show)]
    return np.column_stack([offsets, np.array(shapes, dtype=np.int64).reshape(-1, 2)])


def _in_processes(
    function: Callable[[Item], Answer], items: Iterable[Item], count: int, workers: int, title: str, show: bool
) -> Iterator[Answer]:
    """Yield `function(item)` for each item in order, computed by worker processes unless there are few items."""
    pool: Any = ProcessPoolExecutor(workers) if workers and count > _CHUNK else None
    remaining = iter(items)
    with progress_bar(count, title, "image", show) as bar, pool or nullcontext():
        while chunk := list(islice(remaining, _CHUNK * max(workers, 1))):
            for answer in pool.map(function, chunk, chunksize=16) if pool else map(function, chunk):
                yield answer
                bar.update()


def _area(file: str) -> int:
    try:
        width, height = image_size(file)
    except OSError:
        return 0
    return width * height


def _decode(job: tuple[str, str, int, int, int]) -> tuple[int, int]:
    """Write the pixels of one image to its place; return height and width, or zeros if it has no pixels to keep."""
    place, path, channels, offset, size = job
    try:
        pixels = load_pixels(path, channels) if size else None
    except OSError:
        return 0, 0
    if pixels is None or pixels.nbytes != size:  # the header is wrong, or the image has just changed
        return 0, 0
    data = np.ascontiguousarray(pixels).reshape(-1).data
    file = os.open(place, os.O_WRONLY)
    try:
        written = 0
        while written < size:
            written += os.pwrite(file, data[written:], offset + written)
    finally:
        os.close(file)
    return pixels.shape[0], pixels.shape[1]
