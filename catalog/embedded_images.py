"""Images inside Parquet files: a column of bytes, or, as Hugging Face writes it, of structs of bytes and path.

Such an image has a path of its own, FILE#ROW with rows from 1, such as `train.parquet#7`. Wherever an image file is
opened, that path works too.

Parquet has no random access: one image costs the decoding of its row group, which may be the whole file. So the bytes
of a file are unpacked once, page by page, into the user's folder for caches. All processes and later runs read
single images from there, without keeping them in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from catalog.data_error import DataError, quoted
from catalog.image_formats import max_decoded_bytes, shows_format
from runtime.cache_folder import default_cache_folder
from runtime.errors import first_line
from runtime.free_space import available_disk, gib
from runtime.progress import progress_bar

_logger = logging.getLogger(__name__)

_LOCATION = re.compile(r"(.+\.parquet)#([1-9][0-9]{0,17})", re.DOTALL | re.IGNORECASE)
_PREFERRED = "image_path"
_PEEKED = 8  # rows whose bytes show whether a column holds images
_AT_ONCE = 1 << 24  # bytes of images that are read at a time
_MOST_ROWS = 1 << 10
_LIMIT = 0.95  # share of the free space that unpacked images may take
_BYTES, _ENDS = "bytes", "ends.npy"  # the files of an unpacked column


def image_column(file: pq.ParquetFile) -> str | None:
    """Return the column of a Parquet file that holds images, or None.

    It is `image_path`, or without a column of this name the only one that holds images: structs with a field `bytes`,
    or bytes that begin as an image does. Other bytes may be text.

    Raises:
        DataError: if there are several such columns.
    """
    schema = file.schema_arrow
    names = [_PREFERRED] if _PREFERRED in schema.names else schema.names
    names = [name for name in names if holds_images(schema.field(name).type)]
    plain = [name for name in names if not pa.types.is_struct(schema.field(name).type)]
    if plain:
        first = next(file.iter_batches(_PEEKED, columns=plain, use_threads=False), None)
        seen = {} if first is None else {name: first.column(name).drop_null()[:1].to_pylist() for name in plain}
        names = [name for name in names if name not in plain or any(map(shows_format, seen.get(name, ())))]
    if len(names) > 1:
        raise DataError(f"several columns hold images ({quoted(names)}): rename the column to read to {_PREFERRED}")
    return names[0] if names else None


def holds_images(kind: pa.DataType) -> bool:
    """Return whether a column of this type may hold images."""
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and _is_binary(kind.field(at).type)
    return _is_binary(kind)


def location(file: str, row: int) -> str:
    """Return the path of the image in a row, counted from 0, of a Parquet file."""
    return f"{file}#{row + 1}"


def is_image_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a path names a file, or an image inside a Parquet file."""
    if os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises on a name that is too long
        return True
    found = parquet_and_row(path)
    return found is not None and os.path.isfile(found[0])  # noqa: PTH113


def containing_file(path: str) -> str:
    """Return the file that holds an image: the path itself, or the Parquet file around it."""
    found = parquet_and_row(path)
    return path if found is None else found[0]


def parquet_and_row(path: str | os.PathLike[str]) -> tuple[str, int] | None:
    """Return the Parquet file and the row, from 0, that a path names; None if it names a file or nothing such."""
    text = os.fspath(path)
    if "#" not in text:
        return None
    found = _LOCATION.fullmatch(text)
    return None if found is None or os.path.exists(text) else (found[1], int(found[2]) - 1)  # noqa: PTH110


def read_embedded(path: str | os.PathLike[str]) -> bytes | None:
    """Return the bytes of the image inside a Parquet file that a path names; None if it names another thing.

    Raises:
        OSError: if the file cannot be read, the row does not exist or has no bytes, or these are too many.
    """
    found = parquet_and_row(path)
    if found is None:
        return None
    file, row = found
    try:
        images = unpacked(file)
    except DataError as error:
        raise OSError(str(error)) from None
    return images.read(row)


@dataclass(frozen=True, eq=False)
class UnpackedImages:
    """The images of a Parquet file, readable one by one from any process.

    Args:
        name: the file's name, for messages.
        file: descriptor of the images' bytes, one after the other.
        ends: int64 [rows], where each ends; mapped from a file.
    """

    name: str
    file: int
    ends: npt.NDArray[np.int64]

    def read(self, row: int) -> bytes:
        """Return the bytes of the image in a row, from 0.

        Raises:
            OSError: if there is no such row, it has no bytes, or these are too many.
        """
        if row >= len(self.ends):
            raise OSError(f"{self.name} has {len(self.ends)} rows, and no row {row + 1}")
        start, end = int(self.ends[row - 1]) if row else 0, int(self.ends[row])
        if start == end:
            raise OSError(f"{self.name} row {row + 1} has no image")
        if end - start > max_decoded_bytes():
            raise OSError(f"{self.name} row {row + 1} has an image of {gib(end - start)}: shrink it")
        content = bytearray()
        while len(content) < end - start:
            part = os.pread(self.file, end - start - len(content), start + len(content))
            if not part:
                raise OSError(f"{self.name}: its unpacked images were cut off: delete the cache and start again")
            content += part
        return bytes(content)


@cache
def unpacked(file: str) -> UnpackedImages:
    """Return the images of a Parquet file; unpack them first if no earlier run has.

    One process unpacks, and the others of the host wait for it. The name of the unpacked images has the file's length
    and modification time; older ones of the same file are deleted.

    Args:
        file: path of the Parquet file.

    Raises:
        DataError: if the file is damaged or has no column of images, or the disk is full.
    """
    path, folder = Path(file), default_cache_folder()
    status = path.stat()
    name = f"images-{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]}-"
    place = folder / f"{name}{status.st_size:x}-{status.st_mtime_ns:x}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_process(folder / f".{name}lock"):
            if not (place / _ENDS).is_file():
                for outdated in folder.glob(f"{name}*"):
                    shutil.rmtree(outdated, ignore_errors=True)  # a run that has it open keeps its bytes
                _unpack(path, place)
            ends: npt.NDArray[np.int64] = np.load(place / _ENDS, mmap_mode="r")
            return UnpackedImages(path.name, os.open(place / _BYTES, os.O_RDONLY), ends)
    except OSError as error:
        raise DataError(
            f"the images in {path.name} cannot be unpacked to {folder} ({error.strerror or first_line(error)}): name "
            "another folder with the environment variable XDG_CACHE_HOME"
        ) from None


def _unpack(path: Path, place: Path) -> None:
    """Write the images of a Parquet file to a new folder, which gets its name when it is complete."""
    try:
        # Mapped, because otherwise pyarrow keeps all bytes of a row group in memory.
        with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            column = image_column(file)
            if column is None:
                raise DataError(f"{path.name} has no column of images")
            free, size = available_disk(place.parent), _length(file.metadata, column)
            _check_room(path, size, free)
            _logger.info(f"{path.name}: unpacking {file.metadata.num_rows:,} images, {gib(size)}, to {place.parent}")
            with tempfile.TemporaryDirectory(dir=place.parent, prefix=".", ignore_cleanup_errors=True) as unfinished:
                _write(path, file, column, Path(unfinished), free)
                Path(unfinished).rename(place)
    except pa.ArrowException as error:
        raise DataError(f"{path.name} is damaged ({first_line(error)}): write it again") from None


def _write(path: Path, file: pq.ParquetFile, column: str, folder: Path, free: int) -> None:
    rows = file.metadata.num_rows
    step = max(1, min(_MOST_ROWS, _AT_ONCE * rows // max(1, _length(file.metadata, column))))
    ends, end = np.zeros(rows, dtype=np.int64), 0
    show = _logger.isEnabledFor(logging.INFO)  # only the primary process logs
    with (folder / _BYTES).open("wb") as out, progress_bar(rows, "Unpacking", "image", show) as bar:
        row = 0
        for batch in file.iter_batches(step, columns=[column], use_threads=False):
            for content in _contents(batch.column(0)):
                end += 0 if content is None else len(content)
                ends[row], row = end, row + 1
                if content is not None:
                    out.write(content)
            _check_room(path, end, free)  # repeated images may take more than the header says
            bar.update(len(batch))
        out.flush()
        os.fsync(out.fileno())  # after a power failure, the name must not stand for unwritten bytes
    np.save(folder / _ENDS, ends)


def _contents(column: pa.Array) -> Iterator[Any]:
    """Yield the bytes of each image as a buffer, without a copy; None where there are none."""
    values = column.field("bytes") if pa.types.is_struct(column.type) else column
    outer = column.is_valid().to_pylist()
    for value, valid in zip(values, outer, strict=True):
        yield value.as_buffer() if valid and value.is_valid else None


def _check_room(path: Path, size: int, free: int) -> None:
    if size > free * _LIMIT:
        raise DataError(
            f"the images in {path.name} take {gib(size)} unpacked, more than {_LIMIT:.0%} of the {gib(free)} that are "
            f"free in {default_cache_folder()}: name a folder on a larger disk with the environment variable "
            "XDG_CACHE_HOME"
        )


def _length(metadata: pq.FileMetaData, column: str) -> int:
    """Return the bytes of a column without compression, according to the file's header."""
    chunks = (
        metadata.row_group(group).column(index)
        for group in range(metadata.num_row_groups)
        for index in range(metadata.num_columns)
    )
    return sum(one.total_uncompressed_size for one in chunks if one.path_in_schema in (column, f"{column}.bytes"))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


@contextlib.contextmanager
def _only_process(file: Path) -> Iterator[None]:
    """Let one process of the host in at a time, where the system has such locks."""
    try:
        import fcntl
    except ImportError:  # Windows: processes may do the same work twice
        yield
        return
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
