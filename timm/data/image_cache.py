"""Decoded images in one file, in memory or on disk, which any number of processes fill and read at once.

The file is a head, the extent of each source (bytes of pixels, and the stamp of the image file), and a slot for each:
its own head (checksum, height, width), and then its pixels, uint8 [H, W, C].

There is no lock. Whoever decodes an image first writes its pixels and then the head of its slot, and a reader believes
a slot only where the checksum is that of the pixels it got. So a slot that is half-written, by a process that still
writes or was killed, or out of order, by a processor or by a disk that lost its power, is as good as an empty one.

The file is read and written, not mapped into memory: that is as fast for whole images, and where a disk is full or a
file was cut short, a read or a write fails, but touching a mapping ends the process (SIGBUS).
"""

from __future__ import annotations

import logging
import os
import struct
import tempfile
import weakref
from collections.abc import Callable
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.decode import Pixels
from timm.data.image_sources import ImageSources, Stamps

_logger = logging.getLogger(__name__)

Extents = npt.NDArray[np.int64]

_HEAD = struct.Struct("<8sqq")  # magic word with the version, sources, channels
_MAGIC = b"pixels-1"
_SLOT = struct.Struct("<QII")  # checksum, height, width
_ALIGN = 16  # so that no slot's head lies across two blocks of a disk


class ImageCache:
    """The pixels of a table's images, kept once they have been decoded.

    It can be handed to worker processes, however they are started: they open the same file.

    Args:
        file: descriptor of a file of `create_in_memory` or `open_on_disk`, to read and write; the cache closes it.
        sources: the images; those for which the file was made.

    Raises:
        ValueError: it was not.
    """

    def __init__(self, file: int, sources: ImageSources) -> None:
        self.sources = sources
        self.channels, self.extents = _read_extents(file)
        if len(self.extents) != len(sources):
            raise ValueError(f"a cache of {len(self.extents)} images, not of {len(sources)}")
        self._offsets = _offsets(self.extents)
        self._open(file)

    def _open(self, file: int) -> None:
        self._file = file
        self._writable = True
        weakref.finalize(self, os.close, file)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": reduction.DupFd(self._file)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._open(state["_file"].detach())

    def get(self, row: int, decode: Callable[[], Pixels]) -> Pixels:
        """Return the pixels of a row's image, uint8 [H, W, C]; decode it, and keep it, where nobody has yet.

        Args:
            row: of the table.
            decode: returns the pixels; whatever it raises leaves here.
        """
        source = int(self.sources.of_row[row])
        pixels = self._read(source)
        if pixels is None:
            pixels = decode()
            self._write(source, pixels)
        return pixels

    def _read(self, source: int) -> Pixels | None:
        size, offset = int(self.extents[source, 0]), int(self._offsets[source])
        if not size:
            return None
        try:
            head = os.pread(self._file, _SLOT.size, offset)
            if len(head) < _SLOT.size:
                return None
            checksum, height, width = _SLOT.unpack(head)
            if height * width * self.channels != size:  # of an empty slot both are 0
                return None
            pixels = np.empty(size, dtype=np.uint8)
            if os.preadv(self._file, [pixels.data], offset + _SLOT.size) < size or _checksum(pixels) != checksum:
                return None
        except OSError:  # a disk that fails; the image itself may be on a better one
            return None
        return pixels.reshape(height, width, self.channels)

    def _write(self, source: int, pixels: Pixels) -> None:
        """Keep pixels, if they are what the slot was made for: of a header that tells the truth, of the same file."""
        size, *stamp = self.extents[source].tolist()
        height, width, channels = pixels.shape
        if not (self._writable and size == pixels.nbytes and channels == self.channels):
            return
        if self.sources.find(source)[1] != tuple(stamp):  # it was changed after the run began: these are other pixels
            return
        flat = np.ascontiguousarray(pixels).reshape(-1)
        offset = int(self._offsets[source])
        try:
            if os.pwrite(self._file, flat.data, offset + _SLOT.size) == size:
                os.pwrite(self._file, _SLOT.pack(_checksum(flat), height, width), offset)
        except OSError as error:
            self._writable = False
            _logger.warning("The cache of images takes no more (%s): the others are decoded each time", error.strerror)


def extents_of(areas: npt.NDArray[np.int64], channels: int, stamps: Stamps) -> Extents:
    """Return what a file of the cache is made from: int64 [sources, 4], bytes of pixels, and the stamp.

    Args:
        areas: pixels of each source, int64 [sources]; 0 has no slot, and is decoded each time.
        channels: 1 or 3.
        stamps: of ImageSources.stamps, int64 [sources, 3].
    """
    return np.column_stack([areas * channels, stamps])


def file_size(extents: Extents) -> int:
    """Return the bytes of the file once it is full."""
    return int(_offsets(extents)[-1])


def create_in_memory(extents: Extents, channels: int) -> int:
    """Create an empty cache in memory that has no name and vanishes with the last process that has it open.

    Unlike a file in /dev/shm it needs no room there, of which a container has 64 MiB.

    Returns:
        The descriptor.
    """
    file = os.memfd_create("image-cache")
    _write_extents(file, extents, channels)
    return file


def create_on_disk(path: Path, extents: Extents, channels: int) -> None:
    """Create an empty cache on disk, which takes its name when it is whole.

    Two runs that do so at once are in nobody's way: the later one takes the name, and the earlier one's file goes
    with the process that has it open.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        _write_extents(file, extents, channels)
        Path(unfinished).replace(path)
    finally:
        os.close(file)
        Path(unfinished).unlink(missing_ok=True)


def read_on_disk(path: Path) -> Extents | None:
    """Return the extents of a cache on disk; None where there is none that is whole.

    Raises:
        OSError: there is one, but it cannot be opened to read and write.
    """
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        extents = _read_extents(file)[1]
        return extents if os.fstat(file).st_size == file_size(extents) else None
    except ValueError:
        return None
    finally:
        os.close(file)


def _write_extents(file: int, extents: Extents, channels: int) -> None:
    os.truncate(file, file_size(extents))  # holes, which take no room until they are written
    head = _HEAD.pack(_MAGIC, len(extents), channels) + np.ascontiguousarray(extents, dtype="<i8").tobytes()
    written = 0
    while written < len(head):
        written += os.pwrite(file, head[written : written + 2**30], written)


def _read_extents(file: int) -> tuple[int, Extents]:
    """Return the channels and the extents of a file.

    Raises:
        ValueError: it is no such file, or not a whole one.
    """
    head = os.pread(file, _HEAD.size, 0)
    if len(head) < _HEAD.size or not head.startswith(_MAGIC):
        raise ValueError("not a cache of images")
    _, count, channels = _HEAD.unpack(head)
    room = os.fstat(file).st_size - _HEAD.size
    if not 0 <= count * 32 <= room:
        raise ValueError("a cache of images that was cut short")
    extents = np.empty((count, 4), dtype="<i8")
    if os.preadv(file, [extents.reshape(-1).view(np.uint8).data], _HEAD.size) < extents.nbytes:
        raise ValueError("a cache of images that was cut short")
    return channels, extents.astype(np.int64, copy=False)


def _offsets(extents: Extents) -> npt.NDArray[np.int64]:
    """Return where each slot begins, and last where the file ends, int64 [sources + 1]."""
    sizes = extents[:, 0]
    slots = np.where(sizes > 0, (sizes + _SLOT.size + _ALIGN - 1) // _ALIGN * _ALIGN, 0)
    begin = (_HEAD.size + extents.nbytes + _ALIGN - 1) // _ALIGN * _ALIGN
    return np.concatenate([[begin], begin + np.cumsum(slots)])


def _checksum(pixels: Pixels) -> int:
    """Return the sum of flat pixels, taken as 64-bit words, modulo 2^64.

    It tells whole pixels from those of which a part is still the zeros of an empty slot, at the speed of reading
    memory; a better one would take a good part of the time that not decoding saves.
    """
    words = len(pixels) // 8 * 8
    return (int(pixels[:words].view("<u8").sum(dtype=np.uint64)) + int(pixels[words:].sum())) % 2**64
