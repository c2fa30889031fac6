"""Decoded images of a table, kept in memory or on disk, so that no image is decoded twice.

Before training, worker processes decode all images into one file. The file is in memory and has no name, or it is on
disk, where later runs find it. Afterwards all processes of the host read the file, and none writes it.
"""

from __future__ import annotations

import hashlib
import os
import signal
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
from catalog.embedded_images import containing_file
from catalog.image_roots import image_roots
from catalog.table import Table
from runtime.progress import progress_bar

_CHUNK = 256  # images handed to each worker at a time
_MISSING = (-1, -1, -1)

Index = npt.NDArray[np.int64]
Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class ImageSources:
    """The image files of a table. A path that occurs in several rows is one source.

    Attributes:
        paths: the path of each source as the table spells it, Arrow strings [sources].
        roots: the folders that the paths are relative to, tried in order.
        of_row: the source of each row, int32 [rows].
    """

    paths: pa.LargeStringArray
    roots: tuple[str, ...]
    of_row: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.paths)

    def find(self, source: int) -> tuple[str, tuple[int, int, int]]:
        """Return a source's file, and its stamp: modification time in ns, length in bytes, and index of its root.

        For a missing file, return its path below the last root and the stamp (-1, -1, -1).
        """
        path, file = str(self.paths[source].as_py()), ""
        for number, root in enumerate(self.roots):
            file = os.path.join(root, path)  # noqa: PTH118 - with millions, a Path takes several times as long
            try:
                status = os.stat(containing_file(file))  # noqa: PTH116
            except (OSError, ValueError):  # ValueError: a path with a NUL byte names no file
                continue
            return file, (status.st_mtime_ns, status.st_size, number)
        return file, _MISSING

    def files(self) -> Iterator[str]:
        """Yield the file of each source."""
        return (self.find(source)[0] for source in range(len(self)))

    def areas(self, workers: int, show: bool) -> npt.NDArray[np.int64]:
        """Return each source's number of pixels according to its header, int64 [sources]; 0 if it is not an image.

        Args:
            workers: the number of processes that read headers; 0 reads them in this process.
            show: whether to show a progress bar.
        """
        return np.array([*in_processes(_area, self.files(), len(self), workers, "Measuring", show)], dtype=np.int64)

    def key(self) -> str:
        """Return a key that two tables share only if they list the same unchanged images in the same order."""
        stamps = np.array([self.find(source)[1] for source in range(len(self))], dtype="<i8")
        # Leave out roots without an image: the working directory is a root, and the next run may have another.
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
        roots: the result of `image_roots`, if known; finding it takes time, because it looks for some of the files.
    """
    encoded = table.image_paths.dictionary_encode()
    folders = tuple(os.fspath(root) for root in roots or image_roots(table))
    return ImageSources(encoded.dictionary, folders, encoded.indices.to_numpy().astype(np.int32, copy=False))


class ImageCache:
    """The pixels of a table's images. Forked and spawned worker processes can receive it.

    Args:
        file: the descriptor of a file with the sources' pixels in order, uint8 [H, W, C] each; the cache closes it.
        index: the offset in bytes, height and width of each source, int64 [sources, 3]; a height of 0 means no pixels.
        channels: 3 for color, 1 for gray.
        of_row: the source of each row, int32 [rows].
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
            # For whole images, reading is as fast as mapping, and a failing disk raises an error instead of SIGBUS.
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
    path: str, sources: ImageSources, areas: npt.NDArray[np.int64], channels: int, workers: int, show: bool
) -> Index:
    """Write the pixels of all sources to a file; return the index that `ImageCache` takes.

    Args:
        path: the path of an existing file, which worker processes can open too.
        sources: the images.
        areas: the number of pixels of each source, int64 [sources], as `ImageSources.areas` returns it.
        channels: 3 for color, 1 for gray.
        workers: the number of processes that decode; 0 decodes in this process.
        show: whether to show a progress bar.

    Raises:
        OSError: if the file cannot be written.
        concurrent.futures.process.BrokenProcessPool: if a worker was killed.
    """
    sizes = areas * channels
    offsets = np.cumsum(sizes) - sizes
    os.truncate(path, int(sizes.sum()))
    places = zip(offsets.tolist(), sizes.tolist(), strict=True)
    jobs = ((path, file, channels, *place) for file, place in zip(sources.files(), places, strict=True))
    shapes = [*in_processes(_decode, jobs, len(sources), workers, "Decoding", show)]
    return np.column_stack([offsets, np.array(shapes, dtype=np.int64).reshape(-1, 2)])


def in_processes(
    function: Callable[[Item], Answer], items: Iterable[Item], count: int, workers: int, title: str, show: bool
) -> Iterator[Answer]:
    """Yield `function(item)` for each item, in order; worker processes compute it unless there are few items.

    Args:
        function: what is computed; a function of a module, which processes can receive.
        items: its arguments.
        count: number of items.
        workers: the number of processes; 0 computes in this process.
        title: the activity, for the progress bar.
        show: whether to show the bar.

    Raises:
        concurrent.futures.process.BrokenProcessPool: if a worker was killed.
    """
    pool: Any = ProcessPoolExecutor(workers, initializer=_ignore_ctrl_c) if workers and count > _CHUNK else None
    remaining = iter(items)
    with progress_bar(count, title, "image", show) as bar, pool or nullcontext():
        while chunk := list(islice(remaining, _CHUNK * max(workers, 1))):
            for answer in pool.map(function, chunk, chunksize=16) if pool else map(function, chunk):
                yield answer
                bar.update()


def _ignore_ctrl_c() -> None:
    """Leave Ctrl-C to the parent, which ends the pool; a worker would print a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _area(file: str) -> int:
    try:
        width, height = image_size(file)
    except OSError:
        return 0
    return width * height


def _decode(job: tuple[str, str, int, int, int]) -> tuple[int, int]:
    """Write one image's pixels at their offset in the cache; return height and width, or zeros if it has no pixels."""
    cache, file, channels, offset, size = job
    try:
        pixels = load_pixels(file, channels) if size else None
    except OSError:
        return 0, 0
    if pixels is None or pixels.nbytes != size:  # the header is wrong, or the image has changed since
        return 0, 0
    data = np.ascontiguousarray(pixels).reshape(-1).data
    descriptor = os.open(cache, os.O_WRONLY)
    try:
        written = 0
        while written < size:
            written += os.pwrite(descriptor, data[written:], offset + written)
    finally:
        os.close(descriptor)
    return pixels.shape[0], pixels.shape[1]
